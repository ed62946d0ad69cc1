{#- In the statement of `apply` that looks at `present`. -#}
    ), adoption AS (
        -- An attachment that was taken back has left it here.
        UPDATE refresher.videos AS v SET attached_by = this
        FROM (SELECT open_id, video_id FROM present ORDER BY open_id, video_id) AS p
        WHERE v.open_id = p.open_id AND v.video_id = p.video_id
          AND v.attached_by <> ALL (ARRAY(SELECT o.attachment FROM refresher.attachments AS o))
