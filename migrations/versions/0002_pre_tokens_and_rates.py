"""Token lifecycle, rates that come down after a 429, videos that are asked for alone.

Runs before the code that needs it; replicas of revision 0001 go on working: all is added, with
defaults they need not know.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        ACCOUNTS,
        TOKEN_STANDING,
        APP,
        VIDEOS,
        TOKEN_DUE_AT,
        TOKENS_ADDED,
        TOKENS_ADDED_TRIGGER,
        TOKENS_REPLACED,
        TOKENS_REPLACED_TRIGGER,
        DROP_REVIVE_ACCOUNT,
        KNOWN_ACCOUNTS,
        PARKED_ACCOUNTS,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


ACCOUNTS = """
ALTER TABLE refresher.accounts
    -- Moves with every change of the tokens. Our own statements raise it; where it stays, somebody
    -- else has replaced the tokens, and the trigger raises it.
    ADD tokens_generation   bigint      NOT NULL DEFAULT 0,
    -- Both begin anew where no account of the same name that was deleted can have come to.
    ALTER lease_epoch       SET DEFAULT (extract(epoch FROM now()) * 1000000)::bigint,
    ALTER tokens_generation SET DEFAULT (extract(epoch FROM now()) * 1000000)::bigint,
    -- refused: not to be sent again. renewed: replaced after that and not accepted yet; refused
    -- again, it is the account's affair.
    ADD token_standing      text        NOT NULL DEFAULT 'trusted',
    -- When the access token is to be refreshed; infinity where there is nothing to refresh it with.
    ADD token_due_at        timestamptz NOT NULL DEFAULT 'infinity',
    -- Token requests in a row that failed: the back-off grows with it.
    ADD token_failures      integer     NOT NULL DEFAULT 0,
    -- A token request was begun and what came of it is not stored; until then it may still be.
    -- -infinity: it is over, and its outcome was never learnt.
    ADD token_request_until timestamptz,
    -- How many days before the end of the consent the last warning was due.
    ADD consent_warned_days smallint,
    -- The share of the rate limit in force, as of the last 429: it recovers with time.
    ADD rate_share          float8      NOT NULL DEFAULT 1,
    ADD rate_lowered_at     timestamptz NOT NULL DEFAULT '-infinity'
"""

# By itself, as Citus wants a constraint, and with the name that it has had since it came with its
# column.
TOKEN_STANDING = """
ALTER TABLE refresher.accounts
    ADD CONSTRAINT accounts_token_standing_check
        CHECK (token_standing IN ('trusted', 'refused', 'renewed'))
"""

APP = """
ALTER TABLE refresher.app
    -- Requests a minute that held when several tokens met a 429 at once; it grows with time.
    ADD rate            float8,
    ADD rate_lowered_at timestamptz NOT NULL DEFAULT '-infinity'
"""

VIDEOS = """
ALTER TABLE refresher.videos
    -- The code with which a request for this video alone was refused: it is asked for alone.
    ADD refusal text
"""

# An application's token says when it dies, not how long it lives; ours are told more exactly.
TOKEN_DUE_AT = """
CREATE FUNCTION refresher.token_due_at(refresh_token text, access_token_expires_at timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN refresh_token IS NULL THEN 'infinity'
                ELSE coalesce(access_token_expires_at - interval '15 minutes', 'infinity') END
$$
"""

TOKENS_ADDED = """
CREATE FUNCTION refresher.tokens_added() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.token_due_at := refresher.token_due_at(NEW.refresh_token, NEW.access_token_expires_at);
    RETURN NEW;
END
$$
"""

TOKENS_ADDED_TRIGGER = """
CREATE TRIGGER tokens_added
BEFORE INSERT ON refresher.accounts
FOR EACH ROW EXECUTE FUNCTION refresher.tokens_added()
"""

TOKENS_REPLACED = """
CREATE FUNCTION refresher.tokens_replaced() RETURNS trigger
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

# For each row and by column: it costs claims and releases nothing, as they name no token.
TOKENS_REPLACED_TRIGGER = """
CREATE OR REPLACE TRIGGER tokens_replaced
BEFORE UPDATE OF access_token, access_token_expires_at, refresh_token, refresh_token_expires_at,
                 scope
ON refresher.accounts
FOR EACH ROW
WHEN (OLD.tokens_generation = NEW.tokens_generation
      AND (OLD.access_token, OLD.access_token_expires_at, OLD.refresh_token,
           OLD.refresh_token_expires_at, OLD.scope)
          IS DISTINCT FROM
          (NEW.access_token, NEW.access_token_expires_at, NEW.refresh_token,
           NEW.refresh_token_expires_at, NEW.scope))
EXECUTE FUNCTION refresher.tokens_replaced()
"""

DROP_REVIVE_ACCOUNT = "DROP FUNCTION refresher.revive_account()"

KNOWN_ACCOUNTS = """
UPDATE refresher.accounts AS a
SET token_due_at = d.due_at,
    wake_at = least(a.wake_at, d.due_at)
FROM (
    SELECT open_id, refresher.token_due_at(refresh_token, access_token_expires_at) AS due_at
    FROM refresher.accounts
    WHERE refresh_token IS NOT NULL AND access_token_expires_at IS NOT NULL
    -- Citus takes no such function in an UPDATE itself, of which this would become a part.
    OFFSET 0
) AS d
WHERE a.open_id = d.open_id
"""

# Parked for an access token by a version that could not refresh it: worth another try.
PARKED_ACCOUNTS = """
UPDATE refresher.accounts
SET state = 'active',
    state_reason = NULL,
    state_since = now(),
    token_standing = 'refused',
    token_due_at = now(),
    wake_at = now()
WHERE state = 'needs_reauthorization'
  AND state_reason = 'access_token_invalid'
  AND refresh_token IS NOT NULL
"""
