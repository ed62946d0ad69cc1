-- The access token is dead, and nobody renews it, or nobody could so far.
({{ token_is_dead }} AND NOT (:managed AND {{ is_renewable }} AND a.token_failures = 0))
