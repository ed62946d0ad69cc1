-- Lines of the file with an account that an earlier line has, too.
SELECT max(line) AS line, count(*) OVER () AS wrong, open_id AS value,
       'open_id: expected each once (first in line ' || min(line) || ')' AS expected
FROM staged_accounts
GROUP BY open_id
HAVING count(*) > 1
ORDER BY 1
LIMIT :most
