-- Whether the triggers tell daemons of accounts. With prepared transactions they do not: a
-- transaction that has notified cannot be prepared.
SELECT current_setting('max_prepared_transactions') = '0'
