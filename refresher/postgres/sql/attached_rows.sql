-- What an attachment has added: videos, or accounts whose tokens were taken over.
SELECT (SELECT count(*) FROM refresher.videos AS v WHERE v.attached_by = a.attachment)
       + (SELECT count(*) FROM refresher.attached_tokens AS t WHERE t.attachment = a.name)
FROM refresher.attachments AS a
WHERE a.name = :attachment
