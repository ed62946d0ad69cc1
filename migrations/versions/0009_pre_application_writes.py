"""What other programs write: covers mended at once, used-up tokens kept out, open_ids changed.

Runs before the code that needs it; replicas of revision 0004 go on working: what they write is told
from an application's writes as ours is, and what they are not told of they need not know.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        NAMED_EXPIRY,
        WAKE_ACCOUNT,
        WAKE_ACCOUNT_RIGHTS,
        VIDEO_REWRITTEN,
        VIDEOS_REWRITTEN,
        VIDEOS_REWRITTEN_ELSEWHERE,
        VIDEOS_REWRITTEN_ELSEWHERE_ONLY,
        NOTE_MOVING,
        VIDEOS_MOVING,
        VIDEOS_MOVED,
        VIDEOS_MOVED_ON,
        VIDEO_REPLICATED,
        VIDEOS_REPLICATED,
        VIDEOS_REPLICATED_ONLY,
        ACCOUNT_RENAMING,
        ACCOUNTS_RENAMING,
        ACCOUNT_RENAMED,
        ACCOUNTS_RENAMED,
        ACCOUNT_SAVED_WHOLE,
        ACCOUNTS_SAVED_WHOLE,
        ACCOUNTS,
        ACCOUNTS_TOKENS_KEPT,
        USED_TOKENS,
        TOKENS_FORGOTTEN,
        TOKENS_FORGOTTEN_TRIGGER,
        TOKENS_USED_UP,
        TOKENS_USED_UP_TRIGGER,
        TOKENS_KEPT,
        TOKENS_KEPT_TRIGGER,
        *REPLICATED_TOKENS,
        TOKEN_DUE_AT,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# --- Covers that other programs write ---

# As `named_expiry` in refresher/domain/expiry.py; a test holds the two together.
NAMED_EXPIRY = r"""
CREATE FUNCTION refresher.named_expiry(url text) RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN moment BETWEEN extract(epoch FROM timestamptz '2015-01-01 00:00Z')
                            AND extract(epoch FROM now()) + 400 * 86400
                THEN to_timestamp(moment) END
    FROM (
        SELECT CASE WHEN number >= 1e11 THEN number / 1000 ELSE number END AS moment
        FROM (
            SELECT coalesce(substring(query FROM '(?i)&x-expires=([0-9]{1,14})(?=&|$)'),
                            substring(query FROM '(?i)&expires=([0-9]{1,14})(?=&|$)')
                   )::float8 AS number
            FROM (
                SELECT '&' || substring(split_part(url, '#', 1) FROM '\?(.*)$') AS query
            ) AS queries
        ) AS numbers
    ) AS moments
$$
"""

WAKE_ACCOUNT = """
CREATE FUNCTION refresher.wake_account(account text, due timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asleep boolean;
BEGIN
    -- As the foreign key of an insert does: until we commit, the account is neither claimed nor
    -- given back by those who cannot see what we did.
    SELECT a.wake_at > due OR (a.lease_expires_at > now() AND a.wake_at >= a.lease_expires_at)
    INTO asleep
    FROM refresher.accounts AS a
    WHERE a.open_id = account
    FOR KEY SHARE;
    -- For one video of an account at most: each such block is a subtransaction.
    IF asleep THEN
        BEGIN
            UPDATE refresher.accounts AS a
            -- Below the end of the lease in any case: so the release is told.
            SET wake_at = least(
                a.wake_at, due,
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
# For the triggers only, which have their owner's rights.
WAKE_ACCOUNT_RIGHTS = """
REVOKE EXECUTE ON FUNCTION refresher.wake_account(text, timestamptz) FROM PUBLIC
"""

VIDEO_REWRITTEN = """
CREATE FUNCTION refresher.video_rewritten() RETURNS trigger
LANGUAGE plpgsql
-- An application that may change videos need not be allowed to write accounts.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A row that comes to another partition is inserted there.
    moved     boolean := TG_OP = 'INSERT' OR NEW.open_id IS DISTINCT FROM OLD.open_id;
    another   boolean := TG_OP = 'UPDATE' AND NEW.video_id IS DISTINCT FROM OLD.video_id;
    other_url boolean := TG_OP = 'UPDATE'
                         AND NEW.cover_image_url IS DISTINCT FROM OLD.cover_image_url;
    url       text := NEW.cover_image_url;
    expires   timestamptz := NEW.cover_expires_at;
    due       timestamptz := NEW.due_at;
BEGIN
    IF another AND NOT other_url THEN
        url := NULL;  -- it shows another video
    END IF;
    -- An expiry belongs to its URL: a new URL that comes without one has what it says itself.
    IF other_url AND expires IS NOT DISTINCT FROM OLD.cover_expires_at THEN
        expires := NULL;
    END IF;
    -- Later than the URL says it cannot be; and with one that is too late no answer is newer.
    expires := CASE WHEN url IS NOT NULL
                    THEN least(expires, refresher.named_expiry(url)) END;
    IF moved OR another OR url IS NULL OR expires IS NULL OR expires <= now()
       OR expires < OLD.cover_expires_at THEN
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
      -- What was changed once more in the same transaction has its own turn.
      AND (v.cover_image_url, v.cover_expires_at, v.due_at)
          IS NOT DISTINCT FROM (NEW.cover_image_url, NEW.cover_expires_at, NEW.due_at)
      AND (moved OR another
           OR (v.cover_image_url, v.cover_expires_at, v.due_at) IS DISTINCT FROM (url, expires, due));
    PERFORM refresher.wake_account(NEW.open_id, due);
    RETURN NULL;
END
$$
"""

# AFTER and for each row: a BEFORE trigger would lock every row that a write-back writes. The
# condition is looked at where the row is written, and for a write-back it is false at its first
# line: with a cover, and only then, it sets refreshed_at, and due_at always.
# Deferred, so that a long transaction of the application does not hold its accounts locked. A due_at
# that is lowered is the wish to ask at once; a miss that lowers it counts, too.
IS_REWRITTEN = """
(NEW.refreshed_at IS DISTINCT FROM now() OR NEW.due_at = OLD.due_at)
AND (OLD.cover_image_url IS DISTINCT FROM NEW.cover_image_url
     OR OLD.cover_expires_at IS DISTINCT FROM NEW.cover_expires_at
     OR (NEW.due_at < OLD.due_at AND NEW.misses = OLD.misses)
     OR ((OLD.open_id <> NEW.open_id OR OLD.video_id <> NEW.video_id)
         AND current_setting('refresher.moving', true) IS DISTINCT FROM 'account'))
"""
VIDEOS_REWRITTEN = f"""
CREATE CONSTRAINT TRIGGER videos_rewritten
AFTER UPDATE ON refresher.videos
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW
WHEN ({IS_REWRITTEN})
EXECUTE FUNCTION refresher.video_rewritten()
"""

# Where rows come by logical replication no other trigger fires. A copy of the whole table brings
# the due_at of its daemon along; what brings a cover without one was written by an application.
VIDEOS_REWRITTEN_ELSEWHERE = """
CREATE CONSTRAINT TRIGGER videos_rewritten_elsewhere
AFTER UPDATE ON refresher.videos
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW
WHEN (NEW.due_at = OLD.due_at
      AND (OLD.cover_image_url IS DISTINCT FROM NEW.cover_image_url
           OR OLD.cover_expires_at IS DISTINCT FROM NEW.cover_expires_at
           OR OLD.open_id <> NEW.open_id OR OLD.video_id <> NEW.video_id))
EXECUTE FUNCTION refresher.video_rewritten()
"""
VIDEOS_REWRITTEN_ELSEWHERE_ONLY = """
ALTER TABLE refresher.videos ENABLE REPLICA TRIGGER videos_rewritten_elsewhere
"""

# Where videos is partitioned, a row that goes to another partition is deleted and inserted, and
# fires no trigger for updates; this tells such an insert from an application's own.
NOTE_MOVING = """
CREATE FUNCTION refresher.note_moving() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('refresher.moving', true) IS DISTINCT FROM 'account' THEN
        PERFORM set_config('refresher.moving', CASE TG_WHEN WHEN 'BEFORE' THEN 'video' ELSE '' END, true);
    END IF;
    RETURN NULL;
END
$$
"""
VIDEOS_MOVING = """
CREATE TRIGGER videos_moving
BEFORE UPDATE OF open_id ON refresher.videos
FOR EACH STATEMENT EXECUTE FUNCTION refresher.note_moving()
"""
VIDEOS_MOVED = """
CREATE TRIGGER videos_moved
AFTER UPDATE OF open_id ON refresher.videos
FOR EACH STATEMENT EXECUTE FUNCTION refresher.note_moving()
"""
VIDEOS_MOVED_ON = """
CREATE CONSTRAINT TRIGGER videos_moved_on
AFTER INSERT ON refresher.videos
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW
WHEN (current_setting('refresher.moving', true) = 'video')
EXECUTE FUNCTION refresher.video_rewritten()
"""

VIDEO_REPLICATED = """
CREATE FUNCTION refresher.video_replicated() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM refresher.wake_account(NEW.open_id, NEW.due_at);
    RETURN NULL;
END
$$
"""
VIDEOS_REPLICATED = """
CREATE CONSTRAINT TRIGGER videos_replicated
AFTER INSERT ON refresher.videos
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refresher.video_replicated()
"""
VIDEOS_REPLICATED_ONLY = """
ALTER TABLE refresher.videos ENABLE REPLICA TRIGGER videos_replicated
"""

# --- An account's open_id ---

ACCOUNT_RENAMING = """
CREATE FUNCTION refresher.account_renaming() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Whoever holds the new pair looks for the row by its old name.
    IF OLD.token_request_until > now() THEN
        RAISE EXCEPTION 'account % cannot be renamed while its token is being refreshed',
                        OLD.open_id
        USING ERRCODE = 'object_in_use', HINT = 'Try again in a minute.';
    END IF;
    NEW.lease_epoch := OLD.lease_epoch + 1;
    NEW.lease_owner := NULL;
    NEW.lease_expires_at := NULL;
    NEW.wake_at := least(OLD.wake_at, now());
    RETURN NEW;
END
$$
"""
ACCOUNTS_RENAMING = """
CREATE TRIGGER accounts_renaming
BEFORE UPDATE OF open_id ON refresher.accounts
FOR EACH ROW
WHEN (OLD.open_id <> NEW.open_id)
EXECUTE FUNCTION refresher.account_renaming()
"""

# What ON UPDATE CASCADE would do, without a new foreign key, for which all videos would be read.
ACCOUNT_RENAMED = """
CREATE FUNCTION refresher.account_renamed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The same videos with the same covers: no more due than they were.
    PERFORM set_config('refresher.moving', 'account', true);
    UPDATE refresher.videos SET open_id = NEW.open_id WHERE open_id = OLD.open_id;
    PERFORM set_config('refresher.moving', '', true);
    DELETE FROM refresher.used_tokens WHERE open_id = NEW.open_id;
    UPDATE refresher.used_tokens SET open_id = NEW.open_id WHERE open_id = OLD.open_id;
    RETURN NULL;
END
$$
"""
# Triggers fire in the order of their names: before the foreign key's own, RI_ConstraintTrigger_…,
# which then finds no video left behind.
ACCOUNTS_RENAMED = """
CREATE TRIGGER "Accounts_renamed"
AFTER UPDATE OF open_id ON refresher.accounts
FOR EACH ROW
WHEN (OLD.open_id <> NEW.open_id)
EXECUTE FUNCTION refresher.account_renamed()
"""

# --- Rows of accounts that are saved whole ---

ACCOUNT_SAVED_WHOLE = """
CREATE FUNCTION refresher.account_saved_whole() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- The columns of the contract are its to write; all others stay as they are.
    OLD.open_id := NEW.open_id;
    OLD.access_token := NEW.access_token;
    OLD.access_token_expires_at := NEW.access_token_expires_at;
    OLD.refresh_token := NEW.refresh_token;
    OLD.refresh_token_expires_at := NEW.refresh_token_expires_at;
    OLD.scope := NEW.scope;
    OLD.state := NEW.state;
    OLD.state_reason := NEW.state_reason;
    OLD.state_since := NEW.state_since;
    RETURN OLD;
END
$$
"""
# Both only ever grow; its name comes before those of the triggers that look at the tokens.
ACCOUNTS_SAVED_WHOLE = """
CREATE TRIGGER accounts_saved_whole
BEFORE UPDATE ON refresher.accounts
FOR EACH ROW
WHEN (NEW.lease_epoch < OLD.lease_epoch OR NEW.tokens_generation < OLD.tokens_generation)
EXECUTE FUNCTION refresher.account_saved_whole()
"""

# --- Refresh tokens that were used up ---

ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- Fingerprint (sha256) of the refresh token, in plain text, that the last refresh used up.
    ADD used_token          bytea,
    -- Writes of used-up tokens that were kept out and not said yet, and when that was said last.
    ADD tokens_ignored      integer     NOT NULL DEFAULT 0,
    ADD tokens_ignored_said timestamptz NOT NULL DEFAULT '-infinity'
"""
ACCOUNTS_TOKENS_KEPT = """
CREATE INDEX accounts_tokens_ignored ON refresher.accounts (open_id) WHERE tokens_ignored > 0
"""

USED_TOKENS = """
CREATE TABLE refresher.used_tokens (
    -- No foreign key: accounts and videos could not be truncated any more without naming this table.
    open_id      text    PRIMARY KEY,
    -- The first 16 bytes of their sha256; the one seen last is the first.
    fingerprints bytea[] NOT NULL
)
"""

TOKENS_FORGOTTEN = """
CREATE FUNCTION refresher.tokens_forgotten() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM refresher.used_tokens WHERE open_id = OLD.open_id;
    RETURN NULL;
END
$$
"""
TOKENS_FORGOTTEN_TRIGGER = """
CREATE TRIGGER tokens_forgotten
AFTER DELETE ON refresher.accounts
FOR EACH ROW EXECUTE FUNCTION refresher.tokens_forgotten()
"""

# By a trigger with its owner's rights: a daemon's role that was given no right to the new table
# must not fail where it stores the only copy of a new pair.
TOKENS_USED_UP = """
CREATE FUNCTION refresher.token_used_up() RETURNS trigger
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
    SET fingerprints = (used || u.fingerprints)[:32];
    RETURN NULL;
END
$$
"""
TOKENS_USED_UP_TRIGGER = """
CREATE TRIGGER tokens_used_up
AFTER UPDATE OF used_token ON refresher.accounts
FOR EACH ROW
WHEN (NEW.used_token IS NOT NULL AND NEW.used_token IS DISTINCT FROM OLD.used_token)
EXECUTE FUNCTION refresher.token_used_up()
"""

TOKENS_KEPT = """
CREATE FUNCTION refresher.tokens_kept() RETURNS trigger
LANGUAGE plpgsql
-- An application that may store tokens need not be allowed to read what became of old ones.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given bytea := substr(sha256(convert_to(NEW.refresh_token, 'UTF8')), 1, 16);
BEGIN
    -- Seen again, it is remembered longer: who keeps one saves it again and again.
    UPDATE refresher.used_tokens AS u
    SET fingerprints = given || array_remove(u.fingerprints, given)
    WHERE u.open_id = OLD.open_id AND given = ANY (u.fingerprints);
    IF FOUND THEN
        NEW.access_token := OLD.access_token;
        NEW.access_token_expires_at := OLD.access_token_expires_at;
        NEW.refresh_token := OLD.refresh_token;
        NEW.refresh_token_expires_at := OLD.refresh_token_expires_at;
        NEW.scope := OLD.scope;
        NEW.tokens_ignored := OLD.tokens_ignored + 1;
    END IF;
    RETURN NEW;
END
$$
"""
# Its name comes before tokens_replaced, which then finds no new tokens.
TOKENS_KEPT_TRIGGER = """
CREATE TRIGGER tokens_kept
BEFORE UPDATE OF refresh_token ON refresher.accounts
FOR EACH ROW
WHEN (OLD.tokens_generation = NEW.tokens_generation
      AND NEW.refresh_token IS DISTINCT FROM OLD.refresh_token
      AND NEW.refresh_token IS NOT NULL)
EXECUTE FUNCTION refresher.tokens_kept()
"""

# Tokens that come by logical replication are an application's, too: a copy of the whole row brings
# a new generation along, which these leave alone. One by one, as Citus wants them.
REPLICATED_TOKENS = [
    f"ALTER TABLE refresher.accounts ENABLE ALWAYS TRIGGER {name}"
    for name in ("tokens_added", "tokens_kept", "tokens_replaced")
]

# --- Times at the end of PostgreSQL's range ---

TOKEN_DUE_AT = """
CREATE OR REPLACE FUNCTION refresher.token_due_at(
    refresh_token text, access_token_expires_at timestamptz
)
RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN refresh_token IS NULL THEN 'infinity'
                WHEN access_token_expires_at < '0001-01-02 00:00Z' THEN access_token_expires_at
                ELSE coalesce(access_token_expires_at - interval '15 minutes', 'infinity') END
$$
"""
