-- Where one account spoils it for the others: the walk alone, and then part by part.
WITH {{ audit_batch }}
SELECT open_id FROM batch
