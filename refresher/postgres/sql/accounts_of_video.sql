-- The accounts of one part, of four, under which a video is stored. The primary key begins with
-- open_id, so it is looked up once for each account: LATERAL with LIMIT keeps the planner from
-- reading all videos instead.
SELECT a.open_id
FROM refresher.accounts AS a
CROSS JOIN LATERAL (
    SELECT 1 FROM refresher.videos WHERE open_id = a.open_id AND video_id = :video_id LIMIT 1
) AS v
WHERE hashtext(a.open_id) & 3 = :part::integer
