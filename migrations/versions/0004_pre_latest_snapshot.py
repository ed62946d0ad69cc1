"""What a claim asks to know whether it has seen all of an account's videos.

Runs before the code that needs it; replicas of revision 0003 go on working: they do not ask.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Straight to the driver: no parameter syntax to escape in plain SQL.
    op.get_bind().exec_driver_sql(IS_LATEST)


IS_LATEST = """
-- Whether no transaction has ended since `seen` was taken. PL/pgSQL and VOLATILE, so that it looks
-- with a snapshot of its own; at higher isolation levels it would get its transaction's.
CREATE FUNCTION refresher.is_latest(seen pg_snapshot) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN current_setting('transaction_isolation') = 'read committed'
           AND seen::text = pg_current_snapshot()::text;
END
$$
"""
