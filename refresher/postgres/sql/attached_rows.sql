-- What an attachment has added: videos, or accounts whose tokens were taken over. And whether more can
-- be applied now: not what was refused and waits.
SELECT (SELECT count(*) FROM refresher.videos AS v WHERE v.attached_by = a.attachment)
       + (SELECT count(*) FROM refresher.attached_tokens AS t WHERE t.attachment = a.name) AS added,
       EXISTS (SELECT FROM refresher.changed_rows AS c
               WHERE c.attachment = a.name AND c.not_before <= now()) AS more
FROM refresher.attachments AS a
WHERE a.name = :attachment
