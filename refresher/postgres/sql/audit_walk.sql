-- For when one account spoils the audit for the others: the walk alone. Its accounts are then
-- audited in parts.
WITH {{ audit_batch }}
SELECT open_id FROM batch
