-- Forgets yesterday's probes. By itself, as Citus wants an INSERT.
DELETE FROM refresher.probes WHERE probed_at < now() - interval '1 day'
