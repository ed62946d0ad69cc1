-- Accounts that nobody has tried come first, then those that were well before the trouble began.
-- Chance decides the rest, because the failing accounts may all be due together.
open_id = ANY (:tried::text[]), isolated_since IS NOT NULL, failures > 0, random()
