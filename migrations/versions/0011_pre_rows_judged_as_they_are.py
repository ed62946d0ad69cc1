"""What other programs write, judged by the rows as they are: unsaid expiries, flushes, whole rows.

And an account that is held for long, by a pause or as it is isolated, sleeps through new videos.

Runs before the code that needs it; replicas of earlier revisions go on working: what they write is
told from an application's writes as before.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        LOCKS,
        WAKE_ACCOUNTS,
        WAKE_ACCOUNT,
        VIDEO_REWRITTEN,
        VIDEO_GIVEN,
        VIDEOS_GIVEN,
        VIDEOS_GIVEN_ALWAYS,
        ACCOUNT_SAVED_WHOLE,
        ACCOUNTS_SAVED_WHOLE,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Both tables at once or none, and behind an autovacuum, as revision 0005 says. Readers go on.
LOCKS = """
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    LOCK TABLE refresher.accounts, refresher.videos IN SHARE UPDATE EXCLUSIVE MODE;
    FOR attempt IN 1..20 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '500ms', true);
            LOCK TABLE refresher.accounts, refresher.videos IN SHARE ROW EXCLUSIVE MODE;
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

# --- Waking an account ---

# As before, but for an account whose next slot is far ahead: a pause for a day's quota, or the wait
# of an isolated one. Awake it would lie at the front of every claim, which would pass it by. What
# ends such a wait sets wake_at, too.
WAKE_ACCOUNTS = """
CREATE OR REPLACE FUNCTION refresher.wake_accounts() RETURNS trigger
LANGUAGE plpgsql
-- An application that may insert videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
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
WAKE_ACCOUNT = """
CREATE OR REPLACE FUNCTION refresher.wake_account(account text, due timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asleep boolean;
    held   timestamptz;
BEGIN
    -- As the foreign key of an insert does: until we commit, the account is neither claimed nor
    -- given back by those who cannot see what we did.
    SELECT a.wake_at > greatest(due, h.until)
           OR (a.lease_expires_at > now() AND a.wake_at >= a.lease_expires_at), h.until
    INTO asleep, held
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
    END IF;
END
$$
"""

# --- Covers that other programs write ---

# The row is judged as it is when this runs, each time: of what an application does in several
# statements, one may move the row, and the next one say nothing that would call us again.
VIDEO_REWRITTEN = """
CREATE OR REPLACE FUNCTION refresher.video_rewritten() RETURNS trigger
LANGUAGE plpgsql
-- An application that may change videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A row that comes to another partition is inserted there.
    moved     boolean := TG_OP = 'INSERT' OR NEW.open_id IS DISTINCT FROM OLD.open_id;
    another   boolean := TG_OP = 'UPDATE' AND NEW.video_id IS DISTINCT FROM OLD.video_id;
    other_url boolean;
    other     boolean;
    url       text;
    expires   timestamptz;
    due       timestamptz;
    resting   boolean;
    named     timestamptz;
BEGIN
    SELECT v.cover_image_url, v.cover_expires_at, v.due_at,
           v.missing_since IS NOT NULL OR v.gone_at IS NOT NULL
    INTO url, expires, due, resting
    FROM refresher.videos AS v
    WHERE v.open_id = NEW.open_id AND v.video_id = NEW.video_id;
    IF NOT FOUND THEN
        RETURN NULL;  -- moved on, which has its own turn, or deleted
    END IF;
    other_url := TG_OP = 'UPDATE' AND url IS DISTINCT FROM OLD.cover_image_url;
    other := other_url OR expires IS DISTINCT FROM OLD.cover_expires_at;
    IF another AND NOT other_url THEN
        url := NULL;  -- it shows another video
    END IF;
    -- An expiry belongs to its URL: a new URL that comes without one has what it says itself.
    IF other_url AND expires IS NOT DISTINCT FROM OLD.cover_expires_at THEN
        expires := NULL;
    END IF;
    -- Later than the URL says it cannot be, and where that says nothing nobody can know: with one
    -- that is too late no answer is newer. What it has been, or less, is in no answer's way.
    named := refresher.named_expiry(url);
    expires := CASE WHEN named IS NOT NULL THEN least(expires, named)
                    WHEN url IS NULL THEN NULL
                    WHEN expires <= now() THEN expires
                    WHEN NOT other_url AND expires <= OLD.cover_expires_at THEN expires END;
    IF moved OR another OR url IS NULL OR expires IS NULL OR expires <= now()
       -- Not for the fraction of a second that no URL says.
       OR expires < date_trunc('second', OLD.cover_expires_at)
       OR (other AND (resting OR due > expires)) THEN
        due := least(due, now());
    END IF;
    UPDATE refresher.videos AS v
    SET cover_image_url = url,
        cover_expires_at = expires,
        due_at = due,
        refreshed_at = CASE WHEN NOT another THEN v.refreshed_at END,
        missing_since = CASE WHEN NOT (moved OR another) THEN v.missing_since END,
        gone_at = CASE WHEN NOT (moved OR another) THEN v.gone_at END,
        misses = CASE WHEN moved OR another THEN 0 ELSE v.misses END,
        refusal = CASE WHEN NOT (moved OR another) THEN v.refusal END
    WHERE v.open_id = NEW.open_id AND v.video_id = NEW.video_id
      AND (moved OR another
           OR (v.cover_image_url, v.cover_expires_at, v.due_at) IS DISTINCT FROM (url, expires, due));
    -- Where it is no more due than it was, its account knows of it. To lock that for nothing would
    -- have an application in REPEATABLE READ fail where it was claimed meanwhile.
    IF moved OR another OR due <= now() OR due < OLD.due_at THEN
        PERFORM refresher.wake_account(NEW.open_id, due);
    END IF;
    RETURN NULL;
END
$$
"""

# A new video that brings a cover is due at once; with an expiry that its URL does not say, no answer
# would be newer.
VIDEO_GIVEN = """
CREATE FUNCTION refresher.video_given() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    named timestamptz := refresher.named_expiry(NEW.cover_image_url);
BEGIN
    NEW.cover_expires_at := CASE WHEN named IS NOT NULL
                                 THEN least(NEW.cover_expires_at, named) END;
    RETURN NEW;
END
$$
"""
# Not for rows that come from another partition, nor for those that say when they are due, nor for
# a copy of a row that has been refreshed: its expiry is the answer's.
VIDEOS_GIVEN = """
CREATE TRIGGER videos_given
BEFORE INSERT ON refresher.videos
FOR EACH ROW
WHEN (NEW.cover_image_url IS NOT NULL AND NEW.cover_expires_at > now() AND NEW.due_at <= now()
      AND NEW.refreshed_at IS NULL
      AND coalesce(current_setting('refresher.moving', true), '') = '')
EXECUTE FUNCTION refresher.video_given()
"""
# Also for rows that come by logical replication.
VIDEOS_GIVEN_ALWAYS = "ALTER TABLE refresher.videos ENABLE ALWAYS TRIGGER videos_given"

# --- Rows of accounts that are saved whole ---

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
    RETURN NEW;
END
$$
"""
# Epoch and generation only ever grow, and a lease begins with a new epoch: one that comes with the
# same was given back since the row was read. Its name comes before those of the triggers that look
# at the tokens.
ACCOUNTS_SAVED_WHOLE = """
CREATE OR REPLACE TRIGGER accounts_saved_whole
BEFORE UPDATE ON refresher.accounts
FOR EACH ROW
WHEN (NEW.lease_epoch < OLD.lease_epoch OR NEW.tokens_generation < OLD.tokens_generation
      OR (OLD.lease_owner IS NULL AND NEW.lease_owner IS NOT NULL
          AND NEW.lease_epoch = OLD.lease_epoch))
EXECUTE FUNCTION refresher.account_saved_whole()
"""
