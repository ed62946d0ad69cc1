open_id = ANY (:tried::text[]), isolated_since IS NOT NULL, failures > 0, random()
