"""What operators ask about: an account's last failure, the replicas, a pause of everything.

Runs before the code that needs it; replicas of earlier revisions go on working: they write none of
it, and do not heed a pause of everything.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (LOCK, ACCOUNTS, ACCOUNT_SAVED_WHOLE, APP, REPLICAS):
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

ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- The last failure that a release was told of; it stays after the account has recovered.
    ADD last_failure_at          timestamptz,
    ADD last_failure_code        text,
    ADD last_failure_http_status smallint,
    ADD last_failure_log_id      text
"""

# A column that a later revision adds is to be named here; a test sees to it.
ACCOUNT_SAVED_WHOLE = """
CREATE OR REPLACE FUNCTION refresher.account_saved_whole() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- The daemon's columns stay as they are; those of the contract, and any that an application has
    -- added, are its to write.
    NEW.wake_at := OLD.wake_at;
    NEW.lease_owner := OLD.lease_owner;
    NEW.lease_epoch := OLD.lease_epoch;
    NEW.lease_expires_at := OLD.lease_expires_at;
    NEW.next_slot_at := OLD.next_slot_at;
    NEW.read_to := OLD.read_to;
    NEW.failures := OLD.failures;
    NEW.isolated_since := OLD.isolated_since;
    NEW.isolated_reason := OLD.isolated_reason;
    NEW.rate_share := OLD.rate_share;
    NEW.rate_lowered_at := OLD.rate_lowered_at;
    NEW.requests_since := OLD.requests_since;
    NEW.requests := OLD.requests;
    NEW.videos := OLD.videos;
    NEW.valid := OLD.valid;
    NEW.expired := OLD.expired;
    NEW.uncovered := OLD.uncovered;
    NEW.missing := OLD.missing;
    NEW.unreachable := OLD.unreachable;
    NEW.valid_until := OLD.valid_until;
    NEW.earliest_due_at := OLD.earliest_due_at;
    NEW.tokens_generation := OLD.tokens_generation;
    NEW.token_standing := OLD.token_standing;
    NEW.token_due_at := OLD.token_due_at;
    NEW.token_failures := OLD.token_failures;
    NEW.token_request_until := OLD.token_request_until;
    NEW.token_open_id := OLD.token_open_id;
    NEW.consent_warned_days := OLD.consent_warned_days;
    NEW.used_token := OLD.used_token;
    NEW.tokens_ignored := OLD.tokens_ignored;
    NEW.tokens_ignored_said := OLD.tokens_ignored_said;
    NEW.last_failure_at := OLD.last_failure_at;
    NEW.last_failure_code := OLD.last_failure_code;
    NEW.last_failure_http_status := OLD.last_failure_http_status;
    NEW.last_failure_log_id := OLD.last_failure_log_id;
    RETURN NEW;
END
$$
"""

APP = """
ALTER TABLE refresher.app
    -- Since when nothing is claimed, by an operator's wish; NULL: work goes on.
    ADD paused_since timestamptz,
    -- When a replica last made a forecast, for all of them.
    ADD forecast_at  timestamptz,
    -- When it was last said that covers will die; NULL: the last forecast saw none die.
    ADD risk_said_at timestamptz
"""

REPLICAS = """
CREATE TABLE refresher.replicas (
    replica     text        PRIMARY KEY,
    version     text        NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    -- A replica that stops takes its row with it: an old one is of a replica that died or hangs.
    seen_at     timestamptz NOT NULL DEFAULT now(),
    -- When TikTok last answered it; NULL: not yet. No answer: 5xx, a time-out, no connection.
    progress_at timestamptz
) WITH (fillfactor = 50)
"""
