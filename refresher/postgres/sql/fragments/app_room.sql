-- How many chunks the app's slots have room for. In seconds, because PostgreSQL cannot subtract
-- times that lie at the end of its range. Reads `pace`.
greatest(0, ceil(
    (extract(epoch FROM {{ now }} + greatest(pace.horizon, pace.app_step))
     - extract(epoch FROM {{ slot }}))
    / nullif(extract(epoch FROM pace.app_step), 0)
))
