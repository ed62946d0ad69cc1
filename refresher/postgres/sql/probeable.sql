-- Whom a probe that failed may have picked: by chance, so any of them.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ candidates }}" horizon=":horizon::interval" }}
ORDER BY {{ probe_order }}
