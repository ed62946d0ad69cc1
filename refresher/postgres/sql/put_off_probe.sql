-- All but the first one of some probes came early: the next turn is that much later.
WITH turn AS MATERIALIZED (
    SELECT next_at + :early::interval AS next_at FROM refresher.probing FOR NO KEY UPDATE
)
UPDATE refresher.probing SET next_at = turn.next_at FROM turn
