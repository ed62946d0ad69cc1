"""The statements of attached tables find their rows by the indexes that attach demands: 200,000 rows."""

import json
from contextlib import asynccontextmanager

import asyncpg
import pytest

from refresher.domain.attachment import TokenMapping, VideoMapping
from refresher.postgres.attaching.attach import attach, plan
from refresher.postgres.database import SCAN_SECONDS

ACCOUNTS, VIDEOS_EACH = 20_000, 10
#: So a plan that has been made often enough to be kept is run, too.
TIMES = 8
#: Rows that a call may read for each that it is told of: never more than its account has, and a look
#: into each of our tables.
ROWS_EACH = 2 * VIDEOS_EACH + 12

CLIPS = """
CREATE TABLE clips (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {account}, video {type} NOT NULL, cover text,
    expires timestamptz, gone boolean
)
"""
USERS = """
CREATE TABLE users (
    id bigint PRIMARY KEY, kind text, open_id text, profile text DEFAULT repeat('x', 500)
);
INSERT INTO users SELECT n, 'tiktok', 'account-' || n FROM generate_series(1, {accounts}) AS n;
INSERT INTO users SELECT -n, 'google', 'google-' || n FROM generate_series(1, {accounts}) AS n;
"""
COVER = {"cover": "cover", "expires": "expires"}
#: Tables; what an account of a clip is; the mapping.
SCHEMAS = {
    "direct": (
        CLIPS.format(account="account text", type="text")
        + "; CREATE UNIQUE INDEX ON clips (account, video)",
        "'account-' || n",
        VideoMapping("clips", "video", "account", **COVER),
    ),
    "of rows with an account": (
        CLIPS.format(account="account text", type="text")
        + "; CREATE UNIQUE INDEX ON clips (account, video) WHERE account IS NOT NULL",
        "'account-' || n",
        VideoMapping("clips", "video", "account", **COVER),
    ),
    "of living rows": (
        CLIPS.format(account="account varchar(99)", type="varchar(30)")
        + "; CREATE UNIQUE INDEX ON clips (video) WHERE gone IS NULL;"
        " CREATE INDEX ON clips (account) WHERE gone IS NULL",
        "'account-' || n",
        VideoMapping("clips", "video", "account", where="gone IS NULL", **COVER),
    ),
    "a join": (
        CLIPS.format(account="account bigint", type="text")
        + f"; {USERS}; CREATE UNIQUE INDEX ON clips (account, video);"
        " CREATE UNIQUE INDEX ON users (open_id)",
        "n",
        VideoMapping("clips", "video", "account", "users", open_id="open_id", **COVER),
    ),
    "a join of some rows": (
        CLIPS.format(account="account bigint", type="bigint")
        + f"; {USERS}; CREATE UNIQUE INDEX ON clips (video); CREATE INDEX ON clips (account);"
        " CREATE UNIQUE INDEX ON users (kind, open_id)",
        "n",
        VideoMapping(
            "clips",
            "video",
            "account",
            "users",
            open_id="open_id",
            account_where="kind = 'tiktok'",
            **COVER,
        ),
    ),
}
TOKENS = f"{USERS}; ALTER TABLE users ADD act text DEFAULT 'act.x', ADD rft text DEFAULT 'rft.x'"
OF_TOKENS = {
    "all rows": ("CREATE UNIQUE INDEX ON users (open_id)", None),
    "behind one value": ("CREATE UNIQUE INDEX ON users (kind, open_id)", "kind = 'tiktok'"),
    "of some rows": (
        "CREATE UNIQUE INDEX ON users (open_id) WHERE kind = 'tiktok'",
        "kind = 'tiktok'",
    ),
}


async def attached(pool, tables, mapping):
    """The tables, filled and attached, and what the refresher stores of them."""
    async with pool.acquire() as connection:
        await connection.execute(
            f"""
            INSERT INTO refresher.accounts (open_id, access_token)
            SELECT 'account-' || n, 'act.x' FROM generate_series(1, {ACCOUNTS}) AS n;
            {tables.format(accounts=ACCOUNTS)};
            """
        )
    planned = await plan(pool, mapping, "0")
    await attach(pool, planned)
    return planned.name


async def filled(connection, account):
    """Clips, scattered as badly as possible, with covers that are to be carried."""
    await connection.execute(
        f"""
        SET session_replication_role = replica;
        INSERT INTO clips (account, video)
        SELECT {account}, m * {ACCOUNTS} + n
        FROM generate_series(1, {VIDEOS_EACH}) AS m, generate_series(1, {ACCOUNTS}) AS n;
        INSERT INTO refresher.videos
            (open_id, video_id, attached_by, cover_image_url, cover_expires_at)
        SELECT 'account-' || n, m * {ACCOUNTS} + n, attachment, 'https://c', now() + interval '1 day'
        FROM generate_series(1, {VIDEOS_EACH}) AS m, generate_series(1, {ACCOUNTS}) AS n,
             refresher.attachments;
        SET session_replication_role = origin;
        ANALYZE
        """,
        timeout=SCAN_SECONDS,
    )


@asynccontextmanager
async def counted(connection, rows):
    """No table is read whole, and of all together only so many rows are read."""
    query = (
        "SELECT relname, seq_scan, coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('clips', 'users', 'videos', 'accounts', 'attached_tokens')"
    )
    async with connection.transaction():
        before = {row["relname"]: row for row in await connection.fetch(query)}
        yield
        after = {row["relname"]: row for row in await connection.fetch(query)}
    scanned = {name for name in after if after[name]["seq_scan"] > before[name]["seq_scan"]}
    read = {name: after[name]["rows"] - before[name]["rows"] for name in after}
    assert (scanned, sum(read.values()) <= rows) == (set(), True), json.dumps(read)


def told(account, accounts, videos):
    """Account values, open_ids and video IDs of the first accounts, so many videos of each."""
    of = [n for n in range(1, accounts + 1) for _ in range(videos)]
    ids = [str(m * ACCOUNTS + n) for n in range(1, accounts + 1) for m in range(1, videos + 1)]
    open_ids = [f"account-{n}" for n in of]
    return ([str(n) for n in of] if account == "n" else open_ids), open_ids, ids


@pytest.mark.long
@pytest.mark.parametrize("schema", SCHEMAS)
async def test_videos_are_found_by_the_indexes_that_attach_demands(pool, database, schema):
    """One or 200 told by either key, all of an account, a step of the walk, and covers.

    For a hundredth of a table the planner may well read it whole.
    """
    tables, account, mapping = SCHEMAS[schema]
    name = await attached(pool, tables, mapping)
    connection = await asyncpg.connect(database)
    await filled(connection, account)
    apply = f"SELECT added, removed FROM refresher.attached_{name}_apply($1, $2, $3)"
    look = f"SELECT added, removed FROM refresher.attached_{name}_look_at($1)"
    for accounts, videos in ((1, 1), (20, 1), (20, 10)):
        values, open_ids, ids = told(account, accounts, videos)
        whole = sorted(set(open_ids))
        for _ in range(TIMES):
            async with counted(connection, ROWS_EACH * len(ids)):
                assert tuple(await connection.fetchrow(apply, values, None, ids)) == (0, 0)
            async with counted(connection, ROWS_EACH * len(ids)):
                assert tuple(await connection.fetchrow(apply, None, open_ids, ids)) == (0, 0)
            async with counted(connection, ROWS_EACH * len(whole) * VIDEOS_EACH):
                assert tuple(await connection.fetchrow(look, whole)) == (0, 0)
        for _ in range(TIMES):
            await connection.execute(
                "UPDATE refresher.videos SET cover_image_url = 'https://c/' || random()"
                " || '?x-expires=' || extract(epoch FROM now() + interval '1 day')::int,"
                " cover_expires_at = now() + interval '1 day'"
                " WHERE open_id = ANY ($1)",
                whole,
            )
            async with counted(connection, ROWS_EACH * len(ids)):
                carried = await connection.fetchval(
                    f"SELECT carried FROM refresher.attached_{name}_carry($1, $2)", open_ids, ids
                )
                assert carried == len(ids)
    for _ in range(TIMES):
        async with counted(connection, 100):
            await connection.fetch(f"SELECT refresher.attached_{name}_next('account-3', 50)")
    await connection.close()


@pytest.mark.parametrize("index", OF_TOKENS)
async def test_tokens_are_found_by_the_index_that_attach_demands(pool, database, index):
    """Some that were told, and a step of the walk."""
    made, where = OF_TOKENS[index]
    mapping = TokenMapping("users", "open_id", "act", refresh_token="rft", where=where)
    name = await attached(pool, f"{TOKENS}; {made}; ANALYZE users", mapping)
    connection = await asyncpg.connect(database)
    await connection.execute("ANALYZE")
    look = f"SELECT added FROM refresher.attached_{name}_look_at($1)"
    every = [f"account-{n}" for n in range(1, ACCOUNTS + 1)]
    await connection.fetchval(look, every)
    await connection.execute("ANALYZE")
    for _ in range(TIMES):
        for some in (every[:1], every[:50]):
            async with counted(connection, ROWS_EACH * len(some)):
                assert await connection.fetchval(look, some) == 0
        async with counted(connection, 300):
            await connection.fetch(f"SELECT refresher.attached_{name}_next('account-3', 50)")
    await connection.close()


LARGE = 20_000


@pytest.mark.long
@pytest.mark.parametrize("schema", ["direct", "a join", "a join of some rows"])
async def test_one_video_of_a_very_large_account_costs_one_row(pool, database, schema):
    """The others have few: by what is usual, reading an account whole would do."""
    tables, account, mapping = SCHEMAS[schema]
    name = await attached(pool, tables, mapping)
    connection = await asyncpg.connect(database)
    await filled(connection, account)
    first = "1" if account == "n" else "'account-1'"
    await connection.execute(
        f"""
        SET session_replication_role = replica;
        INSERT INTO clips (account, video) SELECT {first}, 10000000 + m FROM generate_series(1, {LARGE}) AS m;
        INSERT INTO refresher.videos (open_id, video_id, attached_by, cover_image_url, cover_expires_at)
        SELECT 'account-1', 10000000 + m, attachment, 'https://c', now() + interval '1 day'
        FROM generate_series(1, {LARGE}) AS m, refresher.attachments;
        SET session_replication_role = origin;
        ANALYZE
        """
    )
    ids = [str(10_000_000 + m) for m in range(1, 201)]
    values, open_ids = [first.strip("'")] * len(ids), ["account-1"] * len(ids)
    for _ in range(TIMES):
        async with counted(connection, ROWS_EACH * len(ids)):
            await connection.fetch(
                f"SELECT refresher.attached_{name}_apply($1, $2, $3)", values, None, ids
            )
        async with counted(connection, ROWS_EACH * len(ids)):
            assert await connection.fetchval(
                f"SELECT carried FROM refresher.attached_{name}_carry($1, $2)", open_ids, ids
            ) in {0, len(ids)}
    await connection.close()
