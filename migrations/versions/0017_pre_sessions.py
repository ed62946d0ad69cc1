"""Replicas say which session of the server they keep open.

Runs before the code that needs it; replicas of earlier revisions go on working: they say nothing,
and when one of them dies its leases run out as before.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Straight to the driver: no parameter syntax to escape in plain SQL.
    op.get_bind().exec_driver_sql(REPLICAS)


# The table has a row for each replica: the lock is held for no time.
REPLICAS = """
ALTER TABLE refresher.replicas
    -- The advisory lock that its session holds; NULL: it keeps none open, or is known to be gone.
    ADD COLUMN session bigint
"""
