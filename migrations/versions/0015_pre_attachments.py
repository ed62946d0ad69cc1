"""Tables of applications that are attached: what they have changed, and what is carried to them.

Runs before the code that needs it; replicas of earlier revisions go on working: of what an
application's table tells they know nothing, and covers that they write are carried, too.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in (
        LOCKS,
        ATTACHMENTS,
        VIDEOS,
        CHANGED_ROWS,
        CHANGED_COVERS,
        ATTACHED_TOKENS,
        ACCESS_TOKEN,
        ACCESS_TOKEN_RIGHTS,
        TELL_OF_ACCOUNTS,
        ACCOUNTS_TOLD,
        TELL_OF_ACCOUNTS_RIGHTS,
        TELL_OF_COVERS,
        TELL_OF_COVERS_RIGHTS,
    ):
        # Straight to the driver: no parameter syntax to escape in plain SQL.
        op.get_bind().exec_driver_sql(statement)


# Both tables at once or none, as a claim takes both; behind an autovacuum, and in short turns, as
# revision 0005 says. No video is touched.
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

ATTACHMENTS = """
CREATE TABLE refresher.attachments (
    attachment  smallint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Begins the names of its functions and triggers.
    name        text        NOT NULL UNIQUE CHECK (name ~ '^[a-z_][a-z0-9_]{0,35}$'),
    kind        text        NOT NULL CHECK (kind IN ('videos', 'tokens')),
    -- What `refresher attach` was told: tables, columns and condition.
    mapping     jsonb       NOT NULL,
    -- The tables with its triggers, as SQL writes their names.
    tables      text[]      NOT NULL,
    -- Whether covers are written into the application's own columns.
    carries     boolean     NOT NULL,
    attached_at timestamptz NOT NULL DEFAULT now(),
    -- How far the walk through its accounts has come, and when one was last complete.
    walked_to   text        NOT NULL DEFAULT '',
    walked_at   timestamptz,
    -- Counts the walks that were begun anew: a step of the one before moves this one no further.
    walk        integer     NOT NULL DEFAULT 0,
    -- `refresher detach` has taken back its functions, and is taking away its videos.
    detaching   boolean     NOT NULL DEFAULT false
)
"""

VIDEOS = """
ALTER TABLE refresher.videos
    -- The attachment that has added the video, and that takes it away again.
    ADD attached_by smallint
"""

# Without foreign keys: what an application writes must wait for nobody.
CHANGED_ROWS = """
CREATE TABLE refresher.changed_rows (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    attachment text        NOT NULL,
    -- Of three kinds: values of the application's account column with video IDs; open_ids with
    -- video IDs; open_ids alone, of which all rows are meant. A row tells of a thousand videos or
    -- of fifty whole accounts at most, so each can be applied in a short transaction.
    accounts   text[],
    open_ids   text[],
    video_ids  text[],
    told_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What could not be done is tried again then.
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    -- The oldest of an attachment are read.
    PRIMARY KEY (attachment, id),
    CHECK ((accounts IS NULL) <> (open_ids IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
"""

CHANGED_COVERS = """
CREATE TABLE refresher.changed_covers (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    attachment text        NOT NULL,
    open_ids   text[]      NOT NULL,
    video_ids  text[]      NOT NULL,
    told_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (attachment, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
"""

ATTACHED_TOKENS = """
CREATE TABLE refresher.attached_tokens (
    -- No foreign key: what was deleted here must not be added again from the application's old row.
    open_id    text    PRIMARY KEY,
    attachment text    NOT NULL,
    -- The first 16 bytes of the sha256 of tokens that were taken over; the last one is the first.
    taken      bytea[] NOT NULL
)
"""

# For an application's own calls. Whether it may call this is granted, as it may with a column.
ACCESS_TOKEN = """
CREATE FUNCTION refresher.access_token(
    account text, OUT access_token text, OUT access_token_expires_at timestamptz
)
LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.access_token, a.access_token_expires_at
    FROM refresher.accounts AS a
    WHERE a.open_id = account AND a.state IN ('active', 'paused')
      AND a.token_standing <> 'refused'
      -- Long enough for a request.
      AND (a.access_token_expires_at IS NULL
           OR a.access_token_expires_at > now() + interval '30 seconds')
$$
"""
ACCESS_TOKEN_RIGHTS = "REVOKE EXECUTE ON FUNCTION refresher.access_token(text) FROM PUBLIC"

# An application may have videos of an account that is added only now.
TELL_OF_ACCOUNTS = """
CREATE FUNCTION refresher.tell_of_accounts() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $$
BEGIN
    INSERT INTO refresher.changed_rows (attachment, open_ids)
    SELECT a.name, array_agg(i.open_id)
    FROM refresher.attachments AS a
    CROSS JOIN (SELECT open_id, row_number() OVER () / 50 AS part FROM inserted) AS i
    WHERE a.kind = 'videos' AND NOT a.detaching
    GROUP BY a.name, i.part;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- Nobody's account is refused for this: the walk finds its videos.
    RAISE LOG 'refresher: new accounts were not told: % (%)', SQLERRM, SQLSTATE;
    RETURN NULL;
END
$$
"""
ACCOUNTS_TOLD = """
CREATE TRIGGER accounts_told
AFTER INSERT ON refresher.accounts
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION refresher.tell_of_accounts()
"""

TELL_OF_ACCOUNTS_RIGHTS = "REVOKE EXECUTE ON FUNCTION refresher.tell_of_accounts() FROM PUBLIC"

# `attach` makes the trigger when the first attachment carries covers, and `detach` drops it with
# the last: so it costs nothing where nobody needs it.
TELL_OF_COVERS = """
CREATE FUNCTION refresher.tell_of_covers() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $$
BEGIN
    INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids)
    SELECT a.name, array_agg(w.open_id), array_agg(w.video_id)
    FROM refresher.attachments AS a CROSS JOIN written AS w
    -- With a cover, and only then, a write-back sets it.
    WHERE a.carries AND NOT a.detaching AND w.refreshed_at = now()
    GROUP BY a.name;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- No write-back fails for this: the walk carries what differs.
    RAISE LOG 'refresher: changed covers were not told: % (%)', SQLERRM, SQLSTATE;
    RETURN NULL;
END
$$
"""
TELL_OF_COVERS_RIGHTS = "REVOKE EXECUTE ON FUNCTION refresher.tell_of_covers() FROM PUBLIC"
