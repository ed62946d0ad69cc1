-- Locks the accounts until the import ends.
{{ known_tokens }}
FOR NO KEY UPDATE OF a
