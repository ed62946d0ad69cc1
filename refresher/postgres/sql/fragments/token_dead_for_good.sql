-- The access token is dead, and nothing that we do brings another one.
({{ token_is_dead }} AND NOT (:managed AND {{ is_renewable }}))
