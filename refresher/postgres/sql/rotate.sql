-- Waits for locked rows, or fails and says so: when a key is dropped, tokens that are still sealed
-- with it are lost.
{{ store_sealed lock_timeout="current_setting('lock_timeout')" waiting="" }}
