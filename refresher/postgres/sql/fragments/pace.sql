-- One row: the time between two slots, of the app and of an account, and how far ahead we reserve
-- slots.
SELECT app_step,
       greatest(:step::interval, app_step) AS step,
       CASE WHEN app_step > '0' THEN least(:horizon::interval, :app_horizon::interval)
            ELSE :horizon::interval END AS horizon
FROM (
    -- There is one row. LIMIT tells it to a planner that has no statistics of the table yet.
    SELECT {{ app_step }} AS app_step FROM refresher.app LIMIT 1
) AS app
