"""Probes of covers: what they showed, and the hosts whose covers die sooner than they say.

Runs before the code that needs it; replicas of earlier revisions go on working: they read none of
it. It makes tables of its own and locks no other.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (COVER_HOSTS, PROBES, PROBES_PROBED_AT, PROBING):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


COVER_HOSTS = """
CREATE TABLE refresher.cover_hosts (
    -- As TikTok's own answers name it, or one of a TikTok that the operator runs, with its port.
    host          text             PRIMARY KEY,
    named_at      timestamptz      NOT NULL DEFAULT now(),
    -- By how much its lead has grown, as its covers die early.
    grown_seconds double precision NOT NULL DEFAULT 0,
    -- When that changed last.
    grown_at      timestamptz,
    -- Stored covers are brought forward, account by account, up to this one; NULL: all are.
    forward_to    text
)
"""

PROBES = """
CREATE TABLE refresher.probes (
    probed_at    timestamptz      NOT NULL DEFAULT clock_timestamp(),
    -- Empty where it is no host that a cover may have.
    host         text             NOT NULL,
    open_id      text             NOT NULL,
    video_id     text             NOT NULL,
    -- Until the expiry, and from the answer to the expiry.
    left_seconds double precision NOT NULL,
    life_seconds double precision NOT NULL,
    outcome      text             NOT NULL CHECK (
        outcome IN ('served', 'refused', 'unknown', 'skipped')
    )
)
"""

PROBES_PROBED_AT = "CREATE INDEX probes_probed_at ON refresher.probes (probed_at)"

# Its row comes with the first probe, so that a dump without the schema can be restored into it.
PROBING = """
CREATE TABLE refresher.probing (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    -- When a cover is fetched next; all replicas share the turns.
    next_at  timestamptz NOT NULL DEFAULT '-infinity',
    -- Up to when the probes have been told of.
    told_at  timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10)
"""
