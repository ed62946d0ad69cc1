-- The schema that the triggers of this one write to: another one after it was renamed.
SELECT substring(prosrc FROM '(\w+)\.accounts')
FROM pg_proc
WHERE pronamespace = 'refresher'::regnamespace AND proname = 'wake_accounts'
