"""The statements that run all the time, where a wrong plan shows: 500,000 videos."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import asyncpg
import pytest

from refresher import upkeep
from refresher.assembly import assembled
from refresher.domain.due import DuePolicy
from refresher.domain.model import (
    ChunkWrite,
    OpenId,
    RefreshToken,
    Release,
    Sample,
    TokenPair,
    VideoId,
    Write,
)
from refresher.domain.pacing import Pace
from refresher.postgres import partitioning, probes
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import AUDIT, AUDIT_SECONDS, WALK_STEPS, audit_step
from refresher.postgres.claims import CLAIM
from refresher.postgres.connector import Connector
from refresher.postgres.database import SCAN_SECONDS
from refresher.postgres.details import Wanted, list_troubled, read_details
from refresher.postgres.probes import (
    ACCOUNTS_SAMPLED,
    FORWARD_ACCOUNTS,
    next_forwarding,
    probe_candidates,
)
from refresher.postgres.sealing import Sealer
from refresher.postgres.status import ISOLATED, QUOTA, SUMMARY, read_summary
from refresher.postgres.tokens import TokenStore, consents_ending, ignored_tokens
from refresher.postgres.write_back import WRITE_BACK, _write, write_free_rows
from refresher.settings import read_settings
from tests.conftest import eventually

ROOT = Path(__file__).parents[1]
SQL = Path(partitioning.__file__).parent / "sql"

#: Of the accounts, the first ones are due, those after them are leased; they and some more have
#: videos.
ACCOUNTS, WITH_VIDEOS, VIDEOS_EACH = 100_000, 5_000, 100
DUE, LEASED, EPOCH = 20, 50, 7
PARTITIONS = 16
IDS_FROM = 7_000_000_000


@pytest.fixture(params=[None, PARTITIONS], ids=["plain", "partitioned"])
async def fleet(request, database):
    """A connection to the fleet's database, its videos scattered as badly as possible."""
    if request.param:
        await partitioning.partition_videos(database, request.param)
    connection = await asyncpg.connect(database, command_timeout=SCAN_SECONDS)
    await connection.execute(
        f"""
        SET synchronous_commit = off;
        SET session_replication_role = replica;
        ALTER TABLE refresher.videos DISABLE TRIGGER videos_replicated,
                                     DISABLE TRIGGER videos_given;
        INSERT INTO refresher.accounts (open_id, access_token, refresh_token, lease_epoch,
            lease_owner, lease_expires_at, wake_at, token_due_at, earliest_due_at, videos, valid,
            valid_until, tokens_generation)
        SELECT 'account-' || n, 'act.x', 'rft.x', {EPOCH},
               CASE WHEN leased THEN 'a' END,
               CASE WHEN leased THEN now() + interval '1 hour' END,
               now() + CASE WHEN n <= {DUE} THEN - n ELSE n END * interval '1 second',
               now() + interval '1 day', now() + interval '1 hour', {VIDEOS_EACH}, {VIDEOS_EACH},
               now() + interval '1 hour', 0
        FROM generate_series(1, {ACCOUNTS}) AS n,
             LATERAL (SELECT n > {DUE} AND n <= {DUE + LEASED} AS leased) AS state;
        INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at,
                                      due_at, reserve)
        SELECT 'account-' || n, ({IDS_FROM} + m)::text, 'https://c', now() + interval '1 hour',
               now(), NULL
        FROM generate_series(1, {VIDEOS_EACH}) AS m, generate_series(1, {WITH_VIDEOS}) AS n;
        ALTER TABLE refresher.videos ENABLE REPLICA TRIGGER videos_replicated,
                                     ENABLE ALWAYS TRIGGER videos_given;
        SET session_replication_role = origin;
        ANALYZE refresher.accounts, refresher.videos
        """
    )
    yield connection
    await connection.close()


@asynccontextmanager
async def undone(connection):
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@dataclass
class OneConnection:
    """What the functions of refresher.postgres take for a pool."""

    connection: asyncpg.Connection

    async def acquire(self, **_timeout):
        return self.connection

    async def release(self, connection, **_timeout):
        pass


async def sent(connection, act):
    """The statements that `act` sends, with their values; what they did is undone."""
    log = []
    async with undone(connection):
        with connection.query_logger(log.append):
            await act(OneConnection(connection))
    return [(record.query, record.args) for record in log if is_ours(record)]


def is_ours(record):
    """The driver asks for types, too."""
    return "refresher." in record.query


@dataclass
class Bound:
    """How much a statement may read: accounts, and videos by so many look-ups."""

    accounts: int
    looks_into_videos: int = 0


async def hot_path(connection):
    """All that the daemon sends at work and when idle, with the most each may read."""
    pace = Pace(600, 0, lease_seconds=60)
    claims = Accounts(OneConnection(connection), replica="a", pace=pace, managed=True)
    async with undone(connection):
        (first, *_) = await claims.claim(128)
    now = first.time.now
    leased = [
        replace(first, open_id=OpenId(f"account-{n}"), lease_epoch=EPOCH)
        for n in range(DUE + 1, DUE + LEASED + 1)
    ]
    ids = [VideoId(str(IDS_FROM + 5 * n + 1)) for n in range(20)]
    cover = Write(ids, now, now + timedelta(hours=2), ["https://d"] * len(ids))
    misses = [Write([video_id], now, misses=n) for n, video_id in enumerate(ids, 1)]
    ctids = {claim.open_id: await ctids_of(connection, claim.open_id) for claim in leased}
    chunks, missed = (
        [ChunkWrite(claim.open_id, EPOCH, writes, ctids[claim.open_id]) for claim in leased]
        for writes in ([cover], misses)
    )
    moved = [ChunkWrite(claim.open_id, EPOCH, [cover]) for claim in leased]
    releases = [Release(claim.open_id, EPOCH, requests=1) for claim in leased]
    samples = [Sample(video_id, VIDEOS_EACH // 5) for video_id in ids[:5]]
    sampled = [replace(release, samples=samples) for release in releases]
    tokens = TokenStore(OneConnection(connection), Sealer(()))
    claim = leased[0]
    pair = TokenPair("act.y", 86400.0, "rft.y", None, None)
    used = RefreshToken("rft.x", interrupted=False)
    step = ACCOUNTS // WALK_STEPS + 1
    await connection.execute(FORWARDED)
    work = await next_forwarding(OneConnection(connection))
    acts = [
        (lambda _: claims.claim(128), Bound(2 * DUE, DUE)),
        (partial(write, WRITE_BACK, chunks), Bound(LEASED, 20 * LEASED)),
        (partial(write, WRITE_BACK, moved), Bound(LEASED, 2 * 20 * LEASED)),
        (lambda pool: write_free_rows(pool, chunks), Bound(LEASED, 2 * 20 * LEASED)),
        (partial(write, WRITE_BACK, missed), Bound(20 * LEASED, 20 * LEASED)),
        (lambda pool: write_free_rows(pool, missed), Bound(20 * LEASED, 2 * 20 * LEASED)),
        (lambda _: claims.release(releases), Bound(3 * LEASED, LEASED)),
        (lambda _: claims.release(sampled), Bound(3 * LEASED, (1 + len(samples)) * LEASED)),
        (lambda _: claims.extend(leased), Bound(2 * LEASED)),
        (lambda _: claims.reserve(claim), Bound(2)),
        (lambda _: claims.tell_answers([100]), Bound(0)),
        (lambda _: claims.limit_app(0.0), Bound(ACCOUNTS)),
        (lambda _: tokens.begin(claim), Bound(2)),
        (lambda _: tokens.replace(claim, used, pair, 3600.0), Bound(2)),
        (lambda _: tokens.note_name(claim, "another"), Bound(2)),
        (lambda _: tokens.end(claim, unknown=False), Bound(1)),
        (read_summary, Bound(ACCOUNTS, DUE + LEASED)),
        (partial(audit_step, accounts=ACCOUNTS), Bound(4 * step, step)),
        (consents_ending, Bound(2 * ACCOUNTS)),
        (lambda pool: read_details(pool, pace, managed=True), Bound(ACCOUNTS)),
        (lambda pool: list_troubled(pool, Wanted(), 101, managed=True), Bound(ACCOUNTS)),
        (ignored_tokens, Bound(0)),
        (probe_candidates, Bound(2 * ACCOUNTS_SAMPLED, ACCOUNTS_SAMPLED + PARTITIONS)),
        (next_forwarding, Bound(FORWARD_ACCOUNTS)),
        (partial(bring_forward, work=work, policy=POLICY), Bound(0, 2 * len(work.open_ids))),
    ]
    return [
        (statement, values, bound)
        for act, bound in acts
        for statement, values in await sent(connection, act)
    ]


async def bring_forward(pool, work, policy):
    await probes.bring_forward(pool, work, "https://c", policy, pytest.fail)


async def ctids_of(connection, open_id):
    rows = await connection.fetch(
        "SELECT video_id, ctid::text FROM refresher.videos WHERE open_id = $1", open_id
    )
    return dict(rows)


async def write(statement, chunks, pool):
    """By a statement of a write-back."""
    await _write(pool, statement, chunks)


#: A host whose lead has grown.
FORWARDED = """
INSERT INTO refresher.cover_hosts (host, grown_seconds, grown_at, forward_to)
VALUES ('c', 900, now() - interval '1 minute', 'account-1')
ON CONFLICT DO NOTHING
"""
POLICY = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 5)

# Those of a table that was never analyzed; undone with the rest.
FORGET_STATISTICS = """
WITH tables AS (
    SELECT oid FROM pg_class
    WHERE relnamespace = 'refresher'::regnamespace AND relname ~ '^(videos|accounts)'
), forgotten AS (
    DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM tables)
)
UPDATE pg_class
SET reltuples = -1, relpages = 0
WHERE oid IN (SELECT oid FROM tables)
"""


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def explained(connection, statement, values, *, generic, analyzed):
    """The plan's nodes, with a generic plan as a prepared statement ends up with, or a custom one."""
    mode = "force_generic_plan" if generic else "force_custom_plan"
    async with undone(connection):
        await connection.execute(f"SET LOCAL plan_cache_mode = {mode}; SET LOCAL jit = off")
        if not analyzed:
            await connection.execute(FORGET_STATISTICS)
        rows = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
    return list(nodes(json.loads(rows)[0]["Plan"]))


def reads(plan, table):
    """The scans of a table or of its partitions that were carried out."""
    return [
        node
        for node in plan
        if node.get("Relation Name", "").startswith(table)
        and "Scan" in node["Node Type"]
        and node["Actual Loops"]
    ]


def rows_read(scans):
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )


async def test_no_statement_reads_what_it_is_not_about(fleet):
    """By no plan, whatever is known of the tables.

    Videos are looked up where they lay, or by their key and once an account, so in its partition
    only.
    """
    for statement, values, bound in await hot_path(fleet):
        for generic, analyzed in product((False, True), repeat=2):
            plan = await explained(fleet, statement, values, generic=generic, analyzed=analyzed)
            told = f"{generic=} {analyzed=} {statement}"
            videos, accounts = reads(plan, "videos"), reads(plan, "accounts")
            assert not [node for node in videos if node["Node Type"] == "Seq Scan"], told
            assert sum(node["Actual Loops"] for node in videos) <= bound.looks_into_videos, told
            assert rows_read(videos) <= bound.looks_into_videos * VIDEOS_EACH, told
            assert rows_read(accounts) <= bound.accounts, told
            if statement == WRITE_BACK.text and bound.looks_into_videos == 20 * LEASED:
                assert {node["Node Type"] for node in videos} == {"Tid Scan"}, told
                counts = [node for node in plan if node["Node Type"] == "Aggregate"]
                assert all(node["Actual Loops"] <= 1 for node in counts), told


@pytest.fixture
def asked(monkeypatch):
    """The statements of whatever connects from now on, without the driver's own."""
    asked = []
    connect = Connector.__call__

    def note(record):
        if is_ours(record):
            asked.append(record.query)

    async def noting(self, *arguments, **options):
        connection = await connect(self, *arguments, **options)
        connection.add_query_logger(note)
        return connection

    monkeypatch.setattr(Connector, "__call__", noting)
    return asked


async def test_an_idle_poll_costs_at_most_two_statements(database, asked):
    """A poll is a claim; audit and summary, one statement and three, come more rarely."""
    settings = read_settings(database_url=database, tiktok_base_url="http://127.0.0.1:9")
    async with assembled(settings, "replica") as app:
        running = asyncio.create_task(app.refresher.run())
        for polls in range(1, 7):
            await eventually(partial(_claimed, asked, polls), f"claim {polls}")
            app.refresher.wake.set()
        app.refresher.stop()
        await running
        await app.upkeep.summarize()
        await audit_step(app.pool)
    beside = [SUMMARY.text, QUOTA.text, ISOLATED.text, AUDIT.text]
    assert asked == [CLAIM.text] * (len(asked) - len(beside)) + beside
    audits = settings.poll_seconds / AUDIT_SECONDS
    summaries = settings.poll_seconds / upkeep.SUMMARY_SECONDS
    assert 1 + audits + 3 * summaries <= 2


async def _claimed(asked, times):
    return asked.count(CLAIM.text) >= times


def test_scaling_md_says_of_every_statement_whether_it_names_the_account():
    """Whoever adds one has thought of partitions and of several databases."""
    statements = {file.name for file in SQL.glob("*.sql")}
    told = set(re.findall(r"`(\w+\.sql)`", (ROOT / "docs/scaling.md").read_text()))
    assert told == statements
