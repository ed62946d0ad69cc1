"""Accounts of more videos than are read at once.

Runs before the code that needs it; replicas of revision 0002 go on working: they read all.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (ACCOUNTS, COUNT_SOME_COVERS, COUNT_COVERS):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- The last video that was read of an account too large for one claim; the next one goes on
    -- behind it. Empty: from the beginning.
    ADD read_to text NOT NULL DEFAULT ''
"""

COUNT_SOME_COVERS = """
CREATE FUNCTION refresher.count_covers(account text, at_most bigint)
RETURNS TABLE (
    videos integer, valid integer, expired integer, unreachable integer, due integer,
    valid_until timestamptz, earliest_due_at timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT count(*)::integer,
           (count(*) FILTER (WHERE v.cover_image_url IS NOT NULL AND v.cover_expires_at > now()))::integer,
           (count(*) FILTER (WHERE v.cover_image_url IS NOT NULL AND v.cover_expires_at <= now()
                               AND v.gone_at IS NULL))::integer,
           (count(*) FILTER (WHERE v.gone_at IS NOT NULL
                               AND (v.cover_image_url IS NULL OR v.cover_expires_at <= now())))::integer,
           (count(*) FILTER (WHERE v.due_at <= now()))::integer,
           coalesce(min(v.cover_expires_at) FILTER (WHERE v.cover_image_url IS NOT NULL
                                                      AND v.cover_expires_at > now()), 'infinity'),
           coalesce(min(v.due_at), 'infinity')
    FROM (SELECT * FROM refresher.videos AS v WHERE v.open_id = account LIMIT at_most) AS v
$$
"""

COUNT_COVERS = """
CREATE OR REPLACE FUNCTION refresher.count_covers(account text)
RETURNS TABLE (
    videos integer, valid integer, expired integer, unreachable integer, due integer,
    valid_until timestamptz, earliest_due_at timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT * FROM refresher.count_covers(account, NULL)
$$
"""
