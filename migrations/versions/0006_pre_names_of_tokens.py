"""Under which open_id TikTok knows an account that is stored under another of its IDs.

Runs before the code that needs it; replicas of revision 0004 go on working: they do not look.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Straight to the driver: no parameter syntax to escape in plain SQL.
    op.get_bind().exec_driver_sql(ACCOUNTS)


ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- As its latest pair of tokens said where that was another; so it is told once.
    ADD token_open_id text
"""
