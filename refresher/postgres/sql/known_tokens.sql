{{ known_tokens }}
