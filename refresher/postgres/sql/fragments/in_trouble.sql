-- Rows: the accounts in trouble, in the state that operators see, and why. `told` is the reason in
-- full: that of an isolation names a request.
SELECT open_id, videos, valid,
       CASE WHEN {{ is_troubled }} THEN {{ kind_of_account }} ELSE 'dead_token' END AS state,
       CASE WHEN {{ is_troubled }} THEN {{ kind_reason }} ELSE {{ dead_token_reason }} END AS reason,
       CASE WHEN {{ is_troubled }} THEN CASE WHEN state = 'active' THEN isolated_reason
                                            ELSE state_reason END
            ELSE {{ dead_token_reason }} END AS told,
       CASE WHEN {{ is_troubled }} THEN {{ kind_since }} ELSE {{ dead_token_since }} END AS since
FROM refresher.accounts AS a
WHERE {{ is_troubled }} OR {{ has_dead_token }}
