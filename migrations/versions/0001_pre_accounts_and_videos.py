"""Schema refresher: accounts, videos, the app's slots, and the triggers that wake an account.

Runs before the code that needs it.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        ACCOUNTS,
        ACCOUNTS_WAKE_AT,
        VIDEOS,
        APP,
        APP_ROW,
        AUDIT,
        AUDIT_ROW,
        COUNT_COVERS,
        WAKE_ACCOUNTS,
        VIDEOS_INSERTED,
        REVIVE_ACCOUNT,
        TOKENS_REPLACED,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


ACCOUNTS = """
CREATE TABLE refresher.accounts (
    open_id                  text        PRIMARY KEY CHECK (open_id <> ''),
    access_token             text,
    access_token_expires_at  timestamptz,
    refresh_token            text,
    refresh_token_expires_at timestamptz,
    scope                    text,
    state                    text        NOT NULL DEFAULT 'active' CHECK (
        state IN ('active', 'paused', 'needs_reauthorization', 'needs_scope')
    ),
    state_reason             text,
    state_since              timestamptz NOT NULL DEFAULT now(),

    -- When the account next deserves attention: the earliest due_at of its videos, a back-off, or
    -- the end of the lease while it is worked.
    wake_at                  timestamptz NOT NULL DEFAULT now(),
    lease_owner              text,
    lease_epoch              bigint      NOT NULL DEFAULT 0,
    lease_expires_at         timestamptz,
    -- The first instant at which a request with this account's token may be sent.
    next_slot_at             timestamptz NOT NULL DEFAULT '-infinity',
    -- Claims in a row that failed: the back-off grows with it.
    failures                 integer     NOT NULL DEFAULT 0,
    -- Requests sent since a full hour.
    requests_since           timestamptz NOT NULL DEFAULT '-infinity',
    requests                 integer     NOT NULL DEFAULT 0,

    -- Counts of its videos as of the last release or audit; good until valid_until.
    videos                   integer     NOT NULL DEFAULT 0,
    valid                    integer     NOT NULL DEFAULT 0,
    expired                  integer     NOT NULL DEFAULT 0,
    unreachable              integer     NOT NULL DEFAULT 0,
    valid_until              timestamptz NOT NULL DEFAULT 'infinity',
    earliest_due_at          timestamptz NOT NULL DEFAULT 'infinity'
) WITH (
    -- Every claim and release rewrites the row; it is a small table, so vacuum it early.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000
)
"""

ACCOUNTS_WAKE_AT = """
CREATE INDEX accounts_wake_at ON refresher.accounts (wake_at) WHERE state = 'active'
"""

VIDEOS = """
CREATE TABLE refresher.videos (
    open_id          text        NOT NULL REFERENCES refresher.accounts ON DELETE CASCADE,
    video_id         text        NOT NULL CHECK (video_id <> '' AND length(video_id) <= 20),
    cover_image_url  text,
    cover_expires_at timestamptz,
    refreshed_at     timestamptz,
    missing_since    timestamptz,
    gone_at          timestamptz,
    due_at           timestamptz NOT NULL DEFAULT now(),
    -- Answers in a row that brought no newer cover.
    misses           smallint    NOT NULL DEFAULT 0,
    -- Keeps the place of the URL until the first one comes: without it that update would not fit
    -- on the page and every index entry would be written twice. See docs/decisions/0001.
    reserve          text        DEFAULT repeat('.', 340),
    PRIMARY KEY (open_id, video_id)
) WITH (
    -- A refresh rewrites all rows of a page at once: old and new versions must fit side by side
    -- for the update to be HOT. No index may cover a column that a refresh writes.
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.2
)
"""

APP = """
CREATE TABLE refresher.app (
    only_row     boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The first instant at which any request may be sent, where the app as a whole has a limit.
    next_slot_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10)
"""

APP_ROW = "INSERT INTO refresher.app DEFAULT VALUES"

AUDIT = """
CREATE TABLE refresher.audit (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- How far the audit has walked through the accounts; all replicas share one walk.
    audited_to text    NOT NULL DEFAULT ''
) WITH (fillfactor = 10)
"""

AUDIT_ROW = "INSERT INTO refresher.audit DEFAULT VALUES"

COUNT_COVERS = """
CREATE FUNCTION refresher.count_covers(account text)
RETURNS TABLE (
    videos integer, valid integer, expired integer, unreachable integer, due integer,
    valid_until timestamptz, earliest_due_at timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT count(*)::integer,
           (count(*) FILTER (WHERE v.cover_image_url IS NOT NULL AND v.cover_expires_at > now()))::integer,
           (count(*) FILTER (WHERE v.cover_image_url IS NOT NULL AND v.cover_expires_at <= now()
                               AND v.gone_at IS NULL))::integer,
           (count(*) FILTER (WHERE v.gone_at IS NOT NULL
                               AND (v.cover_image_url IS NULL OR v.cover_expires_at <= now())))::integer,
           (count(*) FILTER (WHERE v.due_at <= now()))::integer,
           coalesce(min(v.cover_expires_at) FILTER (WHERE v.cover_image_url IS NOT NULL
                                                      AND v.cover_expires_at > now()), 'infinity'),
           coalesce(min(v.due_at), 'infinity')
    FROM refresher.videos AS v
    WHERE v.open_id = account
$$
"""

WAKE_ACCOUNTS = """
CREATE FUNCTION refresher.wake_accounts() RETURNS trigger
LANGUAGE plpgsql
-- An application that may insert videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Locked in one order, so that two inserting transactions cannot wait for each other in a ring.
    WITH earliest AS MATERIALIZED (
        SELECT open_id, min(due_at) AS due_at FROM inserted GROUP BY open_id
    ), sleeping AS MATERIALIZED (
        SELECT a.open_id, e.due_at
        FROM refresher.accounts AS a JOIN earliest AS e USING (open_id)
        WHERE a.wake_at > e.due_at OR a.lease_expires_at > now()
        ORDER BY a.open_id
        FOR NO KEY UPDATE OF a
    )
    UPDATE refresher.accounts AS a
    -- Below the end of the lease in any case: so the release, which may not see these rows yet,
    -- is told of them.
    SET wake_at = least(
        a.wake_at, s.due_at,
        CASE WHEN a.lease_expires_at > now()
             THEN a.lease_expires_at - interval '1 millisecond' END
    )
    FROM sleeping AS s
    WHERE a.open_id = s.open_id;
    RETURN NULL;
END
$$
"""

VIDEOS_INSERTED = """
CREATE TRIGGER videos_inserted
AFTER INSERT ON refresher.videos
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION refresher.wake_accounts()
"""

REVIVE_ACCOUNT = """
CREATE FUNCTION refresher.revive_account() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.failures := 0;
    IF NEW.state IN ('needs_reauthorization', 'needs_scope') AND NEW.state = OLD.state THEN
        NEW.state := 'active';
        NEW.state_reason := NULL;
        NEW.state_since := now();
        NEW.wake_at := least(NEW.wake_at, now());
    END IF;
    RETURN NEW;
END
$$
"""

# For each row and by column: it costs claims and releases nothing, as they name no token, where a
# statement-level trigger with a transition table would run for every one of them.
TOKENS_REPLACED = """
CREATE TRIGGER tokens_replaced
BEFORE UPDATE OF access_token, refresh_token, scope ON refresher.accounts
FOR EACH ROW
WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token
      OR OLD.refresh_token IS DISTINCT FROM NEW.refresh_token
      OR OLD.scope IS DISTINCT FROM NEW.scope)
EXECUTE FUNCTION refresher.revive_account()
"""
