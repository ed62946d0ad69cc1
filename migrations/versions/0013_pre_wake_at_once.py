"""Daemons that listen are told of accounts that can be claimed from now on.

Runs before the code that needs it; replicas of earlier revisions go on working: they do not listen,
and their poll finds the accounts as before.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        LOCK,
        DAEMONS_TOLD,
        TELL_DAEMONS,
        TELL_DAEMONS_RIGHTS,
        WAKE_ACCOUNTS,
        WAKE_ACCOUNT,
        TOKENS_REPLACED,
        ACCOUNTS_ADDED_FUNCTION,
        ACCOUNTS_ADDED,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Behind an autovacuum, and in short turns, as revision 0005 says. Readers go on.
LOCK = """
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE refresher.accounts IN SHARE UPDATE EXCLUSIVE MODE;
    FOR attempt IN 1..20 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500ms', true);
            LOCK TABLE refresher.accounts IN SHARE ROW EXCLUSIVE MODE;
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

# --- Telling daemons ---

# When daemons were told last, in milliseconds of the server's clock. A sequence, as that must be
# known to others before the transaction ends, and no row is to be locked.
DAEMONS_TOLD = """
CREATE SEQUENCE refresher.daemons_told AS bigint MINVALUE 0 START 0
"""
# Transactions that notify commit one after the other, so few may: of those that come within fifty
# milliseconds, one does. The others commit at about its time, and daemons look again a moment
# later. Where NOTIFY could make the commit fail it is left out, too, and the poll finds the
# account. docs/decisions/0023 has the measurements.
TELL_DAEMONS = """
CREATE FUNCTION refresher.tell_daemons() RETURNS void
LANGUAGE plpgsql
-- Who may insert videos need not be allowed to use the sequence.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment bigint := 1000 * date_part('epoch', clock_timestamp());
BEGIN
    IF abs(moment - (SELECT last_value FROM refresher.daemons_told)) >= 50
       -- A transaction that has notified cannot be prepared.
       AND current_setting('max_prepared_transactions') = '0'
       -- With a full queue nobody could commit who notifies.
       AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM setval('refresher.daemons_told', moment);
        PERFORM pg_notify('refresher_wake', '');
    END IF;
END
$$
"""

# Triggers of applications call it with the application's rights. Default privileges may have taken
# the right from all, and nobody grants anew at the moment of an upgrade.
TELL_DAEMONS_RIGHTS = "GRANT EXECUTE ON FUNCTION refresher.tell_daemons() TO PUBLIC"

# --- What wakes an account ---

# As before, and daemons are told where an account can be claimed from now on. Nothing is told of an
# account in work: its release finds a wake-up that was lowered meanwhile.
WAKE_ACCOUNTS = """
CREATE OR REPLACE FUNCTION refresher.wake_accounts() RETURNS trigger
LANGUAGE plpgsql
-- An application that may insert videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first_account text;
    last_account  text;
    due           timestamptz;
    claimable     boolean;
BEGIN
    SELECT min(open_id COLLATE "C"), max(open_id COLLATE "C"), min(due_at)
    INTO first_account, last_account, due
    FROM inserted;
    -- Of one account: the usual case, and what it saves is more than it costs to tell daemons.
    IF first_account = last_account THEN
        UPDATE refresher.accounts AS a
        -- Below the end of the lease in any case: so the release, which may not see these rows yet,
        -- is told of them.
        SET wake_at = least(
            a.wake_at,
            greatest(due, CASE WHEN a.next_slot_at > now() + interval '1 minute'
                               THEN a.next_slot_at END),
            CASE WHEN a.lease_expires_at > now()
                 THEN a.lease_expires_at - interval '1 millisecond' END
        )
        WHERE a.open_id = first_account
          AND (a.lease_expires_at > now()
               OR a.wake_at > greatest(
                   due, CASE WHEN a.next_slot_at > now() + interval '1 minute'
                                  THEN a.next_slot_at END))
        RETURNING a.state = 'active' AND a.wake_at <= now()
                  AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now())
                  -- As tell_daemons looks, which need not be called then.
                  AND abs(1000 * date_part('epoch', clock_timestamp())
                          - (SELECT last_value FROM refresher.daemons_told)) >= 50
        INTO claimable;
        IF claimable THEN
            PERFORM refresher.tell_daemons();
        END IF;
        RETURN NULL;
    END IF;
    -- Locked in one order, so that two inserting transactions cannot wait for each other in a ring.
    WITH earliest AS MATERIALIZED (
        SELECT open_id, min(due_at) AS due_at FROM inserted GROUP BY open_id
    ), sleeping AS MATERIALIZED (
        SELECT a.open_id, held.due_at
        FROM refresher.accounts AS a
        JOIN earliest AS e USING (open_id)
        CROSS JOIN LATERAL (
            SELECT greatest(e.due_at, CASE WHEN a.next_slot_at > now() + interval '1 minute'
                                           THEN a.next_slot_at END) AS due_at
        ) AS held
        WHERE a.wake_at > held.due_at OR a.lease_expires_at > now()
        ORDER BY a.open_id
        FOR NO KEY UPDATE OF a
    ), woken AS (
        UPDATE refresher.accounts AS a
        -- Below the end of the lease in any case: so the release, which may not see these rows yet,
        -- is told of them.
        SET wake_at = least(
            a.wake_at, s.due_at,
            CASE WHEN a.lease_expires_at > now()
                 THEN a.lease_expires_at - interval '1 millisecond' END
        )
        FROM sleeping AS s
        WHERE a.open_id = s.open_id
        RETURNING a.state = 'active' AND a.wake_at <= now()
                  AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now()) AS claimable
    )
    SELECT bool_or(w.claimable) INTO claimable FROM woken AS w;
    IF claimable THEN
        PERFORM refresher.tell_daemons();
    END IF;
    RETURN NULL;
END
$$
"""
WAKE_ACCOUNT = """
CREATE OR REPLACE FUNCTION refresher.wake_account(account text, due timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asleep boolean;
    held   timestamptz;
    free   boolean;
BEGIN
    -- As the foreign key of an insert does: until we commit, the account is neither claimed nor
    -- given back by those who cannot see what we did.
    SELECT a.wake_at > greatest(due, h.until)
           OR (a.lease_expires_at > now() AND a.wake_at >= a.lease_expires_at), h.until,
           a.state = 'active' AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now())
    INTO asleep, held, free
    FROM refresher.accounts AS a
    CROSS JOIN LATERAL (
        SELECT CASE WHEN a.next_slot_at > now() + interval '1 minute'
                    THEN a.next_slot_at END AS until
    ) AS h
    WHERE a.open_id = account
    FOR KEY SHARE OF a;
    -- For one video of an account at most: each such block is a subtransaction.
    IF asleep THEN
        BEGIN
            UPDATE refresher.accounts AS a
            -- Below the end of the lease in any case: so the release is told.
            SET wake_at = least(
                a.wake_at, greatest(due, held),
                CASE WHEN a.lease_expires_at > now()
                     THEN a.lease_expires_at - interval '1 millisecond' END
            )
            WHERE a.open_id = account;
        EXCEPTION
            -- In a ring with others that wake accounts, too: whoever holds this one has woken it,
            -- and nobody can claim it before we have committed.
            WHEN deadlock_detected THEN NULL;
        END;
        IF free AND greatest(due, held) <= now() THEN
            PERFORM refresher.tell_daemons();
        END IF;
    END IF;
END
$$
"""
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
    IF NEW.state = 'active' AND (NEW.lease_expires_at IS NULL OR NEW.lease_expires_at <= now()) THEN
        PERFORM refresher.tell_daemons();
    END IF;
    RETURN NEW;
END
$$
"""

# A new account is awake before it has videos. It is put to sleep at once, so that they wake it.
ACCOUNTS_ADDED_FUNCTION = """
CREATE FUNCTION refresher.accounts_added() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM refresher.tell_daemons();
    RETURN NULL;
END
$$
"""
ACCOUNTS_ADDED = """
CREATE TRIGGER accounts_added
AFTER INSERT ON refresher.accounts
FOR EACH STATEMENT EXECUTE FUNCTION refresher.accounts_added()
"""
