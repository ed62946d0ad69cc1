-- Takes no lock: for a dry run.
{{ known_tokens }}
