-- A row that somebody holds locked is sealed the next time it is seen: claims do not wait for it.
{{ store_sealed lock_timeout="'200ms'" waiting="SKIP LOCKED" }}
