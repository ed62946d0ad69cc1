-- For when one account spoils the statement for the others: the accounts, to be taken in parts.
{{ consents_ending }}
LIMIT {{ consents_at_once }}
