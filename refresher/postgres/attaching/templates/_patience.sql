-- While it waits for a lock, everybody who writes the table waits behind it. And it gives up before the
-- server looks for deadlocks, which could end the application's transaction. One attaches or detaches
-- at a time; daemons read refresher.attachments all the same.
DO $refresher$ BEGIN
    PERFORM set_config('lock_timeout', '500ms', true)
    FROM pg_catalog.pg_settings
    WHERE name = 'lock_timeout' AND setting::integer NOT BETWEEN 1 AND 500;
    LOCK TABLE refresher.attachments IN SHARE ROW EXCLUSIVE MODE;
END $refresher$;
