"""Videos that a good answer has left out are counted apart from covers that should be alive.

Runs before the code that needs it; replicas of earlier revisions go on working: they write the
counts that they know, and count no video as expired that was left out, either.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (ACCOUNTS, COUNT_VIDEOS, COUNT_COVERS):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Counted as the others, by a release or the audit. A replica of an earlier version leaves these two
# as they were when it writes the others.
ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- Left out of the last good answer, and not gone: with a living cover or without.
    ADD missing   integer NOT NULL DEFAULT 0,
    -- Without a cover so far, and neither missing nor gone. NULL: not counted yet.
    ADD uncovered integer
"""

# With `valid`, `expired`, `uncovered` and `unreachable` all videos are told but those that are
# missing and whose cover is dead: nothing can be done for these.
COUNT_VIDEOS = """
CREATE FUNCTION refresher.count_videos(account text, at_most bigint)
RETURNS TABLE (
    videos integer, valid integer, expired integer, uncovered integer, missing integer,
    unreachable integer, due integer, valid_until timestamptz, earliest_due_at timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT count(*)::integer,
           (count(*) FILTER (WHERE v.living))::integer,
           (count(*) FILTER (WHERE v.dead AND v.missing_since IS NULL
                               AND v.gone_at IS NULL))::integer,
           (count(*) FILTER (WHERE NOT v.living AND NOT v.dead AND v.missing_since IS NULL
                               AND v.gone_at IS NULL))::integer,
           (count(*) FILTER (WHERE v.missing_since IS NOT NULL AND v.gone_at IS NULL))::integer,
           (count(*) FILTER (WHERE NOT v.living AND v.gone_at IS NOT NULL))::integer,
           (count(*) FILTER (WHERE v.due_at <= now()))::integer,
           coalesce(min(v.cover_expires_at) FILTER (WHERE v.living), 'infinity'),
           coalesce(min(v.due_at), 'infinity')
    FROM (
        -- A cover whose expiry nobody knows is neither.
        SELECT missing_since, gone_at, due_at, cover_expires_at,
               cover_image_url IS NOT NULL AND coalesce(cover_expires_at > now(), false) AS living,
               cover_image_url IS NOT NULL AND coalesce(cover_expires_at <= now(), false) AS dead
        FROM refresher.videos
        WHERE open_id = account
        LIMIT at_most
    ) AS v
$$
"""

# For replicas of earlier versions, so that both write the same numbers.
COUNT_COVERS = """
CREATE OR REPLACE FUNCTION refresher.count_covers(account text, at_most bigint)
RETURNS TABLE (
    videos integer, valid integer, expired integer, unreachable integer, due integer,
    valid_until timestamptz, earliest_due_at timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT c.videos, c.valid, c.expired, c.unreachable, c.due, c.valid_until, c.earliest_due_at
    FROM refresher.count_videos(account, at_most) AS c
$$
"""
