-- What of all accounts cannot be kept alive, as their releases counted it.
SELECT count(*) AS accounts,
       count(*) FILTER (WHERE NOT {{ is_troubled }}) AS untroubled,
       count(*) FILTER (WHERE a.state = 'needs_reauthorization') AS needs_reauthorization,
       count(*) FILTER (WHERE a.state = 'needs_scope') AS needs_scope,
       extract(epoch FROM now() - min(a.state_since) FILTER (
           WHERE a.state IN ('needs_reauthorization', 'needs_scope')
       ))::float8 AS parked_seconds,
       count(*) FILTER (WHERE {{ has_dead_token }}) AS dead_tokens,
       coalesce(sum(a.videos), 0)::bigint AS videos,
       coalesce(sum(a.missing), 0)::bigint AS missing,
       coalesce(sum(a.unreachable) FILTER (WHERE a.state = 'active'), 0)::bigint AS gone
FROM refresher.accounts AS a
