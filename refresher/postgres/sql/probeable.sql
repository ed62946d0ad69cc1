-- The accounts that a probe which failed may have tried to lease: any candidate, as chance decides.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ candidates }}" horizon=":horizon::interval" }}
ORDER BY {{ probe_order }}
