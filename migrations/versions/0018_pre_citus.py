"""Triggers that Citus takes, too, where the schema is distributed and lives on one worker.

Runs before the code that needs it; replicas of earlier revisions go on working: the triggers do
what they did.

Citus refuses functions of a column in an UPDATE that are not immutable, and no table of ours can be
joined there with a transition table. So what does not depend on the row is computed before, and of
a transition table arrays are made.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        PROBES,
        TELL_DAEMONS,
        WAKE_ACCOUNTS,
        WAKE_ACCOUNT,
        TOKEN_USED_UP,
        ACCOUNT_CHANGED,
        RISK_CHANGED,
        TELL_OF_ACCOUNTS,
        TELL_OF_COVERS,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Without a key its rows have no identity. Then a publication of all tables has the server refuse to
# delete them, and Citus cannot move the schema while it is written to.
PROBES = "ALTER TABLE refresher.probes REPLICA IDENTITY FULL"

# As before. On a worker there is no such sequence, and nobody listens: Citus prepares transactions,
# so this ends before it looks.
TELL_DAEMONS = """
CREATE OR REPLACE FUNCTION refresher.tell_daemons() RETURNS void
LANGUAGE plpgsql
-- Who may insert videos need not be allowed to use the sequence.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment bigint;
BEGIN
    -- A transaction that has notified cannot be prepared.
    IF current_setting('max_prepared_transactions') <> '0' THEN
        RETURN;
    END IF;
    moment := 1000 * date_part('epoch', clock_timestamp());
    IF abs(moment - (SELECT last_value FROM refresher.daemons_told)) >= 50
       -- With a full queue nobody could commit who notifies.
       AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM setval('refresher.daemons_told', moment);
        PERFORM pg_notify('refresher_wake', '');
    END IF;
END
$$
"""

# A millisecond is taken away in UTC: that is immutable, where `timestamptz - interval` depends on the
# time zone.
WAKE_ACCOUNTS = """
CREATE OR REPLACE FUNCTION refresher.wake_accounts() RETURNS trigger
LANGUAGE plpgsql
-- An application that may insert videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment        timestamptz := now();
    soon          timestamptz := now() + interval '1 minute';
    first_account text;
    last_account  text;
    due           timestamptz;
    claimable     boolean;
    accounts      text[];
    dues          timestamptz[];
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
            greatest(due, CASE WHEN a.next_slot_at > soon THEN a.next_slot_at END),
            CASE WHEN a.lease_expires_at > moment
                 THEN (a.lease_expires_at AT TIME ZONE 'UTC' - interval '1 millisecond') AT TIME ZONE 'UTC' END
        )
        WHERE a.open_id = first_account
          AND (a.lease_expires_at > moment
               OR a.wake_at > greatest(
                   due, CASE WHEN a.next_slot_at > soon THEN a.next_slot_at END))
        RETURNING a.state = 'active' AND a.wake_at <= moment
                  AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= moment)
        INTO claimable;
        -- As tell_daemons looks, which need not be called then. In an IF of its own, as a worker of
        -- Citus has no such sequence.
        IF claimable AND current_setting('max_prepared_transactions') = '0' THEN
            IF abs(1000 * date_part('epoch', clock_timestamp())
                   - (SELECT last_value FROM refresher.daemons_told)) >= 50 THEN
                PERFORM refresher.tell_daemons();
            END IF;
        END IF;
        RETURN NULL;
    END IF;
    SELECT array_agg(e.open_id), array_agg(e.due_at)
    INTO accounts, dues
    FROM (SELECT open_id, min(due_at) AS due_at FROM inserted GROUP BY open_id) AS e;
    -- Locked in one order, so that two inserting transactions cannot wait for each other in a ring.
    WITH sleeping AS MATERIALIZED (
        SELECT a.open_id,
               least(a.wake_at, held.due_at,
                     CASE WHEN a.lease_expires_at > moment
                          THEN a.lease_expires_at - interval '1 millisecond' END) AS wake_at
        FROM unnest(accounts, dues) AS e (open_id, due_at)
        JOIN refresher.accounts AS a USING (open_id)
        CROSS JOIN LATERAL (
            SELECT greatest(e.due_at, CASE WHEN a.next_slot_at > soon
                                           THEN a.next_slot_at END) AS due_at
        ) AS held
        WHERE a.wake_at > held.due_at OR a.lease_expires_at > moment
        ORDER BY a.open_id
        FOR NO KEY UPDATE OF a
    ), woken AS (
        UPDATE refresher.accounts AS a
        SET wake_at = s.wake_at
        FROM sleeping AS s
        WHERE a.open_id = s.open_id
        RETURNING a.state, a.wake_at, a.lease_expires_at
    )
    SELECT bool_or(w.state = 'active' AND w.wake_at <= moment
                   AND (w.lease_expires_at IS NULL OR w.lease_expires_at <= moment))
    INTO claimable
    FROM woken AS w;
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
    moment timestamptz := now();
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
                CASE WHEN a.lease_expires_at > moment
                     THEN (a.lease_expires_at AT TIME ZONE 'UTC' - interval '1 millisecond') AT TIME ZONE 'UTC' END
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

# As before; the fingerprint is cut by a function of its bytes.
TOKEN_USED_UP = """
CREATE OR REPLACE FUNCTION refresher.token_used_up() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- In plain text, and as it stood in the row: a program may have kept either.
    used bytea[] := ARRAY[substr(NEW.used_token, 1, 16)];
    stood bytea := substr(sha256(convert_to(OLD.refresh_token, 'UTF8')), 1, 16);
BEGIN
    IF stood <> used[1] THEN
        used := used || stood;
    END IF;
    INSERT INTO refresher.used_tokens AS u VALUES (NEW.open_id, used)
    ON CONFLICT (open_id) DO UPDATE
    -- Twice the same where a statement is repeated whose commit was not heard of: no harm.
    SET fingerprints = trim_array(EXCLUDED.fingerprints || u.fingerprints, greatest(
        0, cardinality(EXCLUDED.fingerprints) + cardinality(u.fingerprints) - 32
    ));
    RETURN NULL;
END
$$
"""

# Times in UTC, whatever the session that makes the change has.
ACCOUNT_CHANGED = """
CREATE OR REPLACE FUNCTION refresher.account_changed() RETURNS trigger
LANGUAGE plpgsql
-- An application that may store tokens need not be allowed to write the outbox.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    was_parked boolean := OLD.state IN ('needs_reauthorization', 'needs_scope');
    warned     boolean := NEW.consent_warned_days IS DISTINCT FROM OLD.consent_warned_days;
    ends_at    timestamptz := CASE WHEN isfinite(NEW.refresh_token_expires_at)
                                   THEN NEW.refresh_token_expires_at END;
    place      bigint;
    change     record;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM refresher.app AS p WHERE p.webhooks_until > now()) THEN
        RETURN NULL;
    END IF;
    place := refresher.outbox_place(NEW.open_id);
    FOR change IN
        SELECT c.number, c.type, c.data
        FROM (VALUES
            (1, 'consent.ending', warned AND NEW.consent_warned_days > 0,
             jsonb_build_object('ends_at', ends_at, 'within_days', NEW.consent_warned_days)),
            (2, 'consent.ended', warned AND NEW.consent_warned_days = 0,
             jsonb_build_object('ends_at', ends_at)),
            -- The warnings begin anew with any other token; only a later end is good news.
            (3, 'consent.recovered',
             warned AND NEW.consent_warned_days IS NULL AND NEW.refresh_token IS NOT NULL
             AND coalesce(NEW.refresh_token_expires_at, 'infinity') > OLD.refresh_token_expires_at,
             jsonb_build_object('ends_at', ends_at)),
            (4, 'account.parked',
             NEW.state <> OLD.state AND NEW.state IN ('needs_reauthorization', 'needs_scope'),
             jsonb_build_object('state', NEW.state, 'reason', left(NEW.state_reason, 200),
                                'since', NEW.state_since)),
            (5, 'account.recovered', was_parked AND NEW.state = 'active',
             jsonb_build_object('state', NEW.state, 'was', OLD.state, 'since', NEW.state_since))
        ) AS c (number, type, happened, data)
        WHERE c.happened
        ORDER BY c.number
    LOOP
        INSERT INTO refresher.outbox (open_id, place, type, data)
        VALUES (NEW.open_id, place + change.number, change.type, change.data);
    END LOOP;
    RETURN NULL;
END
$$
"""

RISK_CHANGED = """
CREATE OR REPLACE FUNCTION refresher.risk_changed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place bigint;
BEGIN
    IF NEW.webhooks_until > now() THEN
        place := refresher.outbox_place('');
        INSERT INTO refresher.outbox (open_id, place, type, data)
        VALUES ('', place + 1,
                CASE WHEN NEW.risk_said_at IS NULL THEN 'forecast.recovered'
                     ELSE 'forecast.at_risk' END,
                -- A replica of an earlier revision says no numbers: those that stand there are old.
                CASE WHEN NEW.risk_said_at IS NOT NULL AND NEW.risk IS DISTINCT FROM OLD.risk
                     THEN NEW.risk ELSE '{}' END);
    END IF;
    RETURN NULL;
END
$$
"""

# --- What is told of attached tables ---

TELL_OF_ACCOUNTS = """
CREATE OR REPLACE FUNCTION refresher.tell_of_accounts() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $$
DECLARE
    attached text;
    told     text[];
BEGIN
    FOR attached IN
        SELECT a.name FROM refresher.attachments AS a WHERE a.kind = 'videos' AND NOT a.detaching
    LOOP
        FOR told IN
            SELECT array_agg(i.open_id)
            FROM (SELECT open_id, row_number() OVER () / 50 AS part FROM inserted) AS i
            GROUP BY i.part
        LOOP
            INSERT INTO refresher.changed_rows (attachment, open_ids) VALUES (attached, told);
        END LOOP;
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- Nobody's account is refused for this: the walk finds its videos.
    RAISE LOG 'refresher: new accounts were not told: % (%)', SQLERRM, SQLSTATE;
    RETURN NULL;
END
$$
"""

TELL_OF_COVERS = """
CREATE OR REPLACE FUNCTION refresher.tell_of_covers() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $$
DECLARE
    attached text;
    accounts text[];
    videos   text[];
BEGIN
    SELECT array_agg(w.open_id), array_agg(w.video_id)
    INTO accounts, videos
    FROM written AS w
    -- With a cover, and only then, a write-back sets it.
    WHERE w.refreshed_at = now();
    IF accounts IS NULL THEN
        RETURN NULL;
    END IF;
    FOR attached IN
        SELECT a.name FROM refresher.attachments AS a WHERE a.carries AND NOT a.detaching
    LOOP
        INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids)
        VALUES (attached, accounts, videos);
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- No write-back fails for this: the walk carries what differs.
    RAISE LOG 'refresher: changed covers were not told: % (%)', SQLERRM, SQLSTATE;
    RETURN NULL;
END
$$
"""
