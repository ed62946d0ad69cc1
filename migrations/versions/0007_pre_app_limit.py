"""What each replica saw answered lately, so that together they know what the app is allowed.

Runs before the code that needs it; replicas of revision 0004 go on working: they read the app's rate
as before, and those that tell nothing are taken to have seen as much as the others.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Straight to the driver: no parameter syntax to escape in plain SQL.
    op.get_bind().exec_driver_sql(APP)


APP = """
ALTER TABLE refresher.app
    -- By replica: when it told, and its good answers by the second, the latest first. Empty as long
    -- as there are no 429s, and no longer than a claim's update of this row can carry along.
    ADD answers jsonb NOT NULL DEFAULT '{}'
"""
