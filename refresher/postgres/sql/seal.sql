-- Skips rows that are locked: they are sealed when they are seen again. Claims do not wait for
-- them.
{{ store_sealed lock_timeout="'200ms'" waiting="SKIP LOCKED" }}
