{#- In the statement of `apply`, where several attached tables may have tokens of an account. -#}
    ), others_told AS (
        -- One of them may still have it.
        INSERT INTO refresher.changed_rows (attachment, open_ids)
        SELECT o.name, array_agg(x.open_id)
        FROM pause AS x
        JOIN refresher.attachments AS o
             ON o.name <> {{ name | literal }} AND o.kind = 'tokens' AND NOT o.detaching
        GROUP BY o.name
    ), remembered AS (
        -- Of 32 tokens the oldest are forgotten: not those that are still there, while another table
        -- brings new ones.
        UPDATE refresher.attached_tokens AS t
        SET taken = ARRAY[t.taken[1], p.fingerprint] || array_remove(t.taken[2:], p.fingerprint)
        FROM (SELECT * FROM present ORDER BY open_id) AS p
        WHERE t.open_id = p.open_id AND array_position(t.taken, p.fingerprint) > 16
