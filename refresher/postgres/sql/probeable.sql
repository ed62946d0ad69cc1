-- The accounts that a failed probe may have tried to lease: all candidates, as chance decides.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ candidates }}" horizon=":horizon::interval" }}
ORDER BY {{ probe_order }}
