-- The accounts that a failed trial may have tried to lease: all candidates, as chance decides.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ candidates }}" horizon=":horizon::interval" }}
ORDER BY {{ trial_order }}
