"""The outbox of webhooks: a row for each change that only the application can mend.

Runs before the code that needs it; replicas of earlier revisions go on working: triggers write the
rows, and only while a daemon with a webhook URL has said lately that it will deliver them.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        LOCK,
        OUTBOX,
        OUTBOX_DUE,
        OUTBOX_OF_ACCOUNT,
        OUTBOX_PLACE,
        APP,
        ACCOUNT_CHANGED,
        ACCOUNTS_CHANGED,
        RISK_CHANGED,
        RISK_CHANGED_TRIGGER,
        WEBHOOKS_FOLLOW,
        WEBHOOKS_FORGOTTEN,
        WEBHOOKS_RENAMED,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Both tables at once or none, as a claim takes both; behind an autovacuum, and in short turns, as
# revision 0005 says. No video is touched.
LOCK = """
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE refresher.accounts IN SHARE UPDATE EXCLUSIVE MODE;
    FOR attempt IN 1..20 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500ms', true);
            LOCK TABLE refresher.app, refresher.accounts IN ACCESS EXCLUSIVE MODE;
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

OUTBOX = """
CREATE TABLE refresher.outbox (
    -- What the receiver knows it by. No number: a sequence begins anew in a replicated copy, and a
    -- change of an account must not fail for that.
    webhook_id      uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    -- The account; '' for what concerns all. No foreign key, as for used_tokens.
    open_id         text        NOT NULL,
    -- The order within an account.
    place           bigint      NOT NULL,
    type            text        NOT NULL,
    data            jsonb       NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    attempts        integer     NOT NULL DEFAULT 0,
    -- While it is being sent, this is the end of the sender's lease.
    next_attempt_at timestamptz NOT NULL DEFAULT now()
)
"""
OUTBOX_DUE = "CREATE INDEX outbox_next_attempt_at ON refresher.outbox (next_attempt_at)"
OUTBOX_OF_ACCOUNT = "CREATE INDEX outbox_open_id ON refresher.outbox (open_id, place)"

# Behind what waits already, also if the clock was set back. The row of the account, or of the app, is
# locked where this is asked.
OUTBOX_PLACE = """
CREATE FUNCTION refresher.outbox_place(account text) RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, max(place))
    FROM refresher.outbox
    WHERE open_id = account
$$
"""

APP = """
ALTER TABLE refresher.app
    -- Until then changes go to the outbox; a daemon with a webhook URL moves it on.
    ADD webhooks_until timestamptz,
    -- What the forecast saw that was said last.
    ADD risk           jsonb
"""

# Times in UTC, whatever the session that makes the change has.
ACCOUNT_CHANGED = """
CREATE FUNCTION refresher.account_changed() RETURNS trigger
LANGUAGE plpgsql
-- An application that may store tokens need not be allowed to write the outbox.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    was_parked boolean := OLD.state IN ('needs_reauthorization', 'needs_scope');
    warned     boolean := NEW.consent_warned_days IS DISTINCT FROM OLD.consent_warned_days;
    ends_at    timestamptz := CASE WHEN isfinite(NEW.refresh_token_expires_at)
                                   THEN NEW.refresh_token_expires_at END;
BEGIN
    INSERT INTO refresher.outbox (open_id, place, type, data)
    SELECT NEW.open_id, refresher.outbox_place(NEW.open_id) + change.number, change.type, change.data
    FROM refresher.app, (VALUES
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
    ) AS change (number, type, happened, data)
    WHERE app.webhooks_until > now() AND change.happened;
    RETURN NULL;
END
$$
"""
# For each row and without a list of columns: triggers of ours change the state, too, where the
# statement names only tokens. Claims and releases pay for two comparisons a row.
ACCOUNTS_CHANGED = """
CREATE TRIGGER accounts_changed
AFTER UPDATE ON refresher.accounts
FOR EACH ROW
WHEN (OLD.state <> NEW.state
      OR OLD.consent_warned_days IS DISTINCT FROM NEW.consent_warned_days)
EXECUTE FUNCTION refresher.account_changed()
"""

RISK_CHANGED = """
CREATE FUNCTION refresher.risk_changed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO refresher.outbox (open_id, place, type, data)
    SELECT '', refresher.outbox_place('') + 1,
           CASE WHEN NEW.risk_said_at IS NULL THEN 'forecast.recovered'
                    ELSE 'forecast.at_risk' END,
           -- A replica of an earlier revision says no numbers: those that stand there are old.
           CASE WHEN NEW.risk_said_at IS NOT NULL AND NEW.risk IS DISTINCT FROM OLD.risk
                THEN NEW.risk ELSE '{}' END
    WHERE NEW.webhooks_until > now();
    RETURN NULL;
END
$$
"""
RISK_CHANGED_TRIGGER = """
CREATE TRIGGER risk_changed
AFTER UPDATE ON refresher.app
FOR EACH ROW
WHEN ((OLD.risk_said_at IS NULL) <> (NEW.risk_said_at IS NULL))
EXECUTE FUNCTION refresher.risk_changed()
"""

WEBHOOKS_FOLLOW = """
CREATE FUNCTION refresher.webhooks_follow() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM refresher.outbox WHERE open_id = OLD.open_id;
    ELSE
        UPDATE refresher.outbox SET open_id = NEW.open_id WHERE open_id = OLD.open_id;
    END IF;
    RETURN NULL;
END
$$
"""
WEBHOOKS_FORGOTTEN = """
CREATE TRIGGER webhooks_forgotten
AFTER DELETE ON refresher.accounts
FOR EACH ROW EXECUTE FUNCTION refresher.webhooks_follow()
"""
WEBHOOKS_RENAMED = """
CREATE TRIGGER webhooks_renamed
AFTER UPDATE OF open_id ON refresher.accounts
FOR EACH ROW
WHEN (OLD.open_id <> NEW.open_id)
EXECUTE FUNCTION refresher.webhooks_follow()
"""
