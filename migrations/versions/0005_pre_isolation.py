"""The standing of an account that fails while others are answered.

Runs before the code that needs it; replicas of revision 0004 go on working: they neither set nor
heed it, but for the hold, which is a slot far ahead.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (LOCKS, ACCOUNTS, TOKENS_REPLACED):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# This and the revisions after it change both tables, in one transaction. Taken one after the other
# as they come, an application that inserts a video (which then looks up its account) would be the
# one to fail in a deadlock. So both are taken at once or none, and nobody waits for long behind us:
# for less than an application's own look for a deadlock takes.
#
# An autovacuum gives way only to who has waited for longer than that: it is waited for first, with a
# lock that stops no reader and no writer, and keeps the next one away.
LOCKS = """
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE refresher.accounts, refresher.videos IN SHARE UPDATE EXCLUSIVE MODE;
    FOR attempt IN 1..20 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500ms', true);
            LOCK TABLE refresher.accounts, refresher.videos IN ACCESS EXCLUSIVE MODE;
            PERFORM set_config('lock_timeout', '10s', true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 20 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.3);
        END;
    END LOOP;
END
$$
"""

ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- Since when the account has failed by itself, and what the last answer was; NULL: it does not.
    ADD isolated_since  timestamptz,
    ADD isolated_reason text
"""

# As before, and new tokens end the isolation.
TOKENS_REPLACED = """
CREATE OR REPLACE FUNCTION refresher.tokens_replaced() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.tokens_generation := OLD.tokens_generation + 1;
    -- An expiry belongs to its token: a new token that comes without one has none, where the old
    -- one's has passed. (The same token written again over its sealed self looks new, too.)
    IF NEW.access_token IS DISTINCT FROM OLD.access_token
       AND NEW.access_token_expires_at = OLD.access_token_expires_at
       AND NEW.access_token_expires_at <= now() + interval '15 minutes' THEN
        NEW.access_token_expires_at := NULL;
    END IF;
    IF NEW.refresh_token IS DISTINCT FROM OLD.refresh_token
       AND NEW.refresh_token_expires_at = OLD.refresh_token_expires_at
       AND NEW.refresh_token_expires_at <= now() THEN
        NEW.refresh_token_expires_at := NULL;
    END IF;
    NEW.token_standing := 'trusted';
    NEW.token_due_at := refresher.token_due_at(NEW.refresh_token, NEW.access_token_expires_at);
    NEW.token_failures := 0;
    NEW.token_request_until := NULL;
    NEW.consent_warned_days := NULL;
    NEW.failures := 0;
    IF NEW.isolated_since IS NOT NULL THEN
        NEW.isolated_since := NULL;
        NEW.isolated_reason := NULL;
        -- The hold; an account in work has slots of its own.
        IF NEW.lease_expires_at IS NULL OR NEW.lease_expires_at <= now() THEN
            NEW.next_slot_at := least(NEW.next_slot_at, now());
        END IF;
    END IF;
    IF NEW.state IN ('needs_reauthorization', 'needs_scope') AND NEW.state = OLD.state THEN
        NEW.state := 'active';
        NEW.state_reason := NULL;
        NEW.state_since := now();
    END IF;
    -- Looked at soon in any case: plain text is to be sealed.
    NEW.wake_at := least(NEW.wake_at, now());
    RETURN NEW;
END
$$
"""
