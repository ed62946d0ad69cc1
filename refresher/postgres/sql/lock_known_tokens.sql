{{ known_tokens }}
FOR NO KEY UPDATE OF a
