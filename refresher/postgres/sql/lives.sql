-- How long covers live, by those on some pages of the table.
SELECT count(*) AS sampled,
       coalesce(percentile_cont(0.05) WITHIN GROUP (ORDER BY life), 0)::float8 AS short_seconds,
       coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY life), 0)::float8 AS usual_seconds
FROM (
    SELECT extract(epoch FROM cover_expires_at - refreshed_at)::float8 AS life
    -- Said once more below, as Citus looks for parameters only there, and of this type.
    FROM refresher.videos TABLESAMPLE SYSTEM (:percent::float8::float4)
    WHERE :percent::float8 > 0 AND cover_expires_at > refreshed_at
        AND cover_expires_at < 'infinity'
    LIMIT :rows
) AS covers
