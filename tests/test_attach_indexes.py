"""`attach` and indexes: which ones serve, and what is to be created where none does."""

import pytest

from refresher.domain.attachment import TokenMapping, VideoMapping
from refresher.postgres.attaching.attach import AttachRefusedError, plan

VIDEOS = "CREATE TABLE videos (open_id text, video_id text, kind varchar(9), gone boolean, at date)"
PARTED = f"{VIDEOS} PARTITION BY LIST (kind)"
OF_VIDEOS = VideoMapping("videos", "video_id", "open_id")
#: Tables and indexes; a condition; what is said.
LACKING = {
    "a partial unique one": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id) WHERE NOT gone",
        None,
        (
            "a unique index over open_id, video_id of all rows (is --where missing?"
            " videos_open_id_video_id_idx has those WHERE (NOT gone)), not none: CREATE UNIQUE INDEX"
            " CONCURRENTLY ON public.videos (open_id, video_id)"
        ),
    ),
    "a partial one of other rows": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id) WHERE NOT gone",
        "kind = 'tiktok'",
        (
            "a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX CONCURRENTLY ON"
            " public.videos (open_id, video_id) WHERE ((kind)::text = 'tiktok'::text)"
        ),
    ),
    "one over an expression": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (lower(open_id), video_id)",
        None,
        (
            "a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX CONCURRENTLY ON"
            " public.videos (open_id, video_id)"
        ),
    ),
    "one of more columns": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id, kind)",
        None,
        (
            "a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX CONCURRENTLY ON"
            " public.videos (open_id, video_id)"
        ),
    ),
    "of each video only": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (video_id)",
        None,
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.videos"
            " (open_id)"
        ),
    ),
    "the account behind the video": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (video_id, open_id)",
        None,
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.videos"
            " (open_id)"
        ),
    ),
    "one that finds no single row": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (video_id); CREATE INDEX ON videos USING brin (open_id)",
        None,
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.videos"
            " (open_id)"
        ),
    ),
    "of a partitioned table": (
        f"{PARTED}; CREATE UNIQUE INDEX ON videos (open_id, kind)",
        None,
        (
            "a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX ON public.videos"
            " (open_id, video_id, kind)"
        ),
    ),
    "of a partitioned table, more columns": (
        f"{PARTED}; CREATE UNIQUE INDEX ON videos (open_id, video_id, kind, at)",
        None,
        (
            "a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX ON public.videos"
            " (open_id, video_id, kind)"
        ),
    ),
}
SERVING = {
    "the other way round": (f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id)", None),
    "of the same condition": (
        (
            f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id)"
            " WHERE kind = 'tiktok' AND CASE WHEN gone THEN false ELSE true END"
        ),
        "kind='tiktok' and case when gone then FALSE else TRUE end",
    ),
    "of a part of the condition": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id) WHERE NOT gone",
        "kind <> 'a (''\" AND ' AND NOT gone AND at IS NULL",
    ),
    "of rows with an account": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id) WHERE open_id IS NOT NULL",
        None,
    ),
    "a column with one value": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (kind, open_id, video_id)",
        "kind = 'tiktok' AND NOT gone",
    ),
    "more columns beside": (
        f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id) INCLUDE (at)",
        None,
    ),
    "of a partitioned table": (
        (
            f"{PARTED}; CREATE UNIQUE INDEX ON videos (kind, open_id, video_id);"
            " CREATE INDEX ON videos USING hash (open_id)"
        ),
        None,
    ),
}
ACCOUNTS = "CREATE TABLE users (id text PRIMARY KEY, name text, kind text, open_id text)"
JOINED = VideoMapping("videos", "video_id", "open_id", account_table="users", open_id="open_id")
OF_ACCOUNTS = {
    "anywhere in an index": (
        "CREATE INDEX ON users (kind, open_id)",
        None,
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.users"
            " (open_id)"
        ),
    ),
    "of some rows": (
        "CREATE INDEX ON users (open_id) WHERE kind = 'x'",
        "kind = 'tiktok'",
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.users"
            " (open_id)"
        ),
    ),
    "several values": (
        "CREATE INDEX ON users (kind, open_id)",
        "kind = 'tiktok' OR kind = 'x'",
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.users"
            " (open_id)"
        ),
    ),
    "no value": (
        "CREATE INDEX ON users (kind, open_id)",
        "NOT (kind = 'tiktok')",
        (
            "an index that begins with open_id, not none: CREATE INDEX CONCURRENTLY ON public.users"
            " (open_id)"
        ),
    ),
    "of these rows": (
        "CREATE INDEX ON users (open_id) WHERE kind = 'tiktok'",
        "kind = 'tiktok'",
        None,
    ),
    "behind one value": ("CREATE INDEX ON users (kind, open_id)", "kind = 'tiktok'", None),
    "of rows with one": ("CREATE INDEX ON users (open_id) WHERE open_id IS NOT NULL", None, None),
}
TOKENS = "CREATE TABLE tokens (uid text, who text, kind text, act text, rft text)"
OF_TOKENS = {
    "a column that is not pinned": (
        "CREATE UNIQUE INDEX ON tokens (kind, who, uid)",
        "kind = 'tiktok'",
        (
            "a unique index over uid, not none: CREATE UNIQUE INDEX CONCURRENTLY ON public.tokens"
            " (uid) WHERE (kind = 'tiktok'::text)"
        ),
    ),
    "of other rows": (
        "CREATE UNIQUE INDEX ON tokens (uid) WHERE kind = 'google'",
        "kind = 'tiktok'",
        (
            "a unique index over uid, not none: CREATE UNIQUE INDEX CONCURRENTLY ON public.tokens"
            " (uid) WHERE (kind = 'tiktok'::text)"
        ),
    ),
    "pinned": ("CREATE UNIQUE INDEX ON tokens (kind, uid)", "kind = 'tiktok'", None),
    "of these rows": (
        "CREATE UNIQUE INDEX ON tokens (uid) WHERE kind = 'tiktok'",
        "kind = 'tiktok'",
        None,
    ),
}


async def refusal(pool, mapping):
    """What is lacking; None: nothing is."""
    try:
        await plan(pool, mapping, "0")
    except AttachRefusedError as error:
        return str(error).partition(": expected ")[2]
    return None


def changed(mapping, **values):
    return type(mapping)(**(mapping.told() | values))


@pytest.mark.parametrize("case", LACKING)
async def test_an_index_that_serves_not_all_rows_counts_as_none(pool, case):
    """The statement that it asks for makes one that does."""
    tables, where, expected = LACKING[case]
    await pool.execute(tables)
    mapping = changed(OF_VIDEOS, where=where)
    assert await refusal(pool, mapping) == expected
    await pool.execute(expected.partition("none: ")[2])
    if "begins with" in expected or "kind" not in tables.partition(" PARTITION BY ")[2]:
        assert await refusal(pool, mapping) is None


@pytest.mark.parametrize("case", SERVING)
async def test_an_index_that_serves_is_enough(pool, case):
    tables, where = SERVING[case]
    await pool.execute(tables)
    assert await refusal(pool, changed(OF_VIDEOS, where=where)) is None


@pytest.mark.parametrize("case", OF_ACCOUNTS)
async def test_accounts_are_found_by_their_open_id(pool, case):
    """So an index of the account table begins with it, or with what has one value there."""
    index, where, expected = OF_ACCOUNTS[case]
    await pool.execute(f"{VIDEOS}; CREATE UNIQUE INDEX ON videos (open_id, video_id); {ACCOUNTS}")
    await pool.execute(index)
    assert await refusal(pool, changed(JOINED, account_where=where)) == expected


@pytest.mark.parametrize("case", OF_TOKENS)
async def test_tokens_are_told_apart_by_their_open_id(pool, case):
    """In the rows of the condition."""
    index, where, expected = OF_TOKENS[case]
    await pool.execute(f"{TOKENS}; {index}")
    mapping = TokenMapping("tokens", "uid", "act", refresh_token="rft", where=where)
    assert await refusal(pool, mapping) == expected
