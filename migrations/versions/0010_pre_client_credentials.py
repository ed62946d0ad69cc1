"""Which of the app's credentials TikTok has refused, so that others are tried at once.

Runs before the code that needs it; replicas of revision 0004 go on working: they write neither.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Straight to the driver: no parameter syntax to escape in plain SQL.
    op.get_bind().exec_driver_sql(APP)


APP = """
ALTER TABLE refresher.app
    -- Of the client key and secret that were refused last: enough to tell them from others, nothing
    -- to find them by.
    ADD refused_client    text,
    ADD client_refused_at timestamptz NOT NULL DEFAULT '-infinity'
"""
