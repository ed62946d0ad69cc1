    -- An account of which the table that has brought its tokens has no more, or is not attached any
    -- more, is this table's from now on. In statements of their own: the same rows.
    WITH here AS MATERIALIZED (
        SELECT r.{{ open_id }}::text AS open_id FROM {{ live(table, where) }} AS r
        WHERE r.{{ open_id }} = ANY (told_open_ids::{{ open_id_type }}[])
          AND r.{{ access_token }}::text <> ''
    )
    UPDATE refresher.attached_tokens AS t SET attachment = {{ name | literal }}
    WHERE t.open_id = ANY (ARRAY(SELECT h.open_id FROM here AS h))
      AND t.attachment <> {{ name | literal }}
      AND (NOT EXISTS (SELECT 1 FROM refresher.attachments AS o
                       WHERE o.name = t.attachment AND NOT o.detaching)
           OR EXISTS (SELECT 1 FROM refresher.accounts AS a
                      WHERE a.open_id = t.open_id AND a.state = 'paused'
                        AND a.state_reason = 'deleted_by_application'));
    -- Of one that was deleted and is there again.
    WITH {{ their_path() }}
    UPDATE refresher.accounts AS a
    SET state = 'active', state_reason = NULL, state_since = now(), wake_at = least(wake_at, now())
    FROM their_path
    WHERE a.open_id = ANY (told_open_ids) AND a.state = 'paused'
      AND a.state_reason = 'deleted_by_application'
      AND EXISTS (SELECT 1 FROM {{ live(table, where) }} AS r
                  WHERE r.{{ open_id }} = a.open_id::{{ open_id_type }}
                    AND r.{{ access_token }}::text <> '');
