-- Once a key is dropped, what was left sealed with it is lost: rather wait, or fail and say so.
{{ store_sealed lock_timeout="current_setting('lock_timeout')" waiting="" }}
