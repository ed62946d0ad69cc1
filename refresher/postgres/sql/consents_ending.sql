-- Where one account spoils it for the others: who they are, and then part by part.
{{ consents_ending }}
LIMIT 500
