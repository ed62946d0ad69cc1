"""The statements that run all the time, at a million videos."""

import json
from datetime import timedelta

import pytest

from refresher.postgres.claims import SQL_CLAIM
from refresher.postgres.database import SCAN_SECONDS
from refresher.postgres.status import SQL_SUMMARY
from refresher.postgres.write_back import SQL_WRITE_BACK

ACCOUNTS, VIDEOS_EACH = 10_000, 100


@pytest.fixture
async def million(pool):
    """10,000 accounts of 100 videos, scattered as badly as possible; 20 accounts are due."""
    async with pool.acquire() as connection:
        await connection.execute(
            f"""
            SET synchronous_commit = off;
            INSERT INTO refresher.accounts (open_id, access_token, lease_epoch, wake_at,
                                            earliest_due_at, videos, valid, valid_until)
            SELECT 'account-' || n, 'act.x', 0, now() + n * interval '1 second' - interval '20 seconds',
                   now() + interval '1 hour', {VIDEOS_EACH}, {VIDEOS_EACH}, now() + interval '1 hour'
            FROM generate_series(1, {ACCOUNTS}) AS n;
            ALTER TABLE refresher.videos DISABLE TRIGGER USER;
            INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at,
                                          due_at, reserve)
            SELECT 'account-' || n, (7000000000 + m)::text, 'https://c',
                   now() + interval '1 hour', now(), NULL
            FROM generate_series(1, {VIDEOS_EACH}) AS m, generate_series(1, {ACCOUNTS}) AS n;
            ALTER TABLE refresher.videos ENABLE TRIGGER USER;
            """,
            timeout=SCAN_SECONDS,
        )
        await connection.execute(
            "ANALYZE refresher.accounts, refresher.videos", timeout=SCAN_SECONDS
        )
        yield connection


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def explained(connection, statement, *values, generic):
    """The plan's nodes, with a generic plan as a prepared statement ends up with, or a custom one."""
    mode = "force_generic_plan" if generic else "force_custom_plan"
    await connection.execute(f"SET plan_cache_mode = {mode}")
    transaction = connection.transaction()
    await transaction.start()
    try:
        rows = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
    finally:
        await transaction.rollback()
    return list(nodes(json.loads(rows)[0]["Plan"]))


def scans(plan, relation):
    return [
        node
        for node in plan
        if node.get("Relation Name") == relation and "Scan" in node["Node Type"]
    ]


async def test_the_statements_of_every_second_use_their_indexes(million):
    """The claim lives on the small index; nothing that runs all the time reads all videos."""
    for generic in (False, True):
        claim = await explained(
            million,
            SQL_CLAIM,
            128,
            "a",
            timedelta(seconds=5),
            timedelta(seconds=0.75),
            timedelta(seconds=0.1),
            timedelta(0),
            timedelta(seconds=60),
            20_000,
            True,
            generic=generic,
        )
        assert any(node.get("Index Name") == "accounts_wake_at" for node in claim)
        (videos,) = scans(claim, "videos")
        assert videos["Node Type"] != "Seq Scan"
        assert videos["Actual Rows"] == VIDEOS_EACH

        rows = 1000
        write = await explained(
            million,
            SQL_WRITE_BACK,
            [f"account-{n % ACCOUNTS + 1}" for n in range(rows)],
            [0] * rows,
            list(range(1, rows + 1)),
            [str(7_000_000_001 + n // ACCOUNTS) for n in range(rows)],
            ["https://d"] * rows,
            [await million.fetchval("SELECT now() + interval '2 hours'")] * rows,
            [await million.fetchval("SELECT now()")] * rows,
            [0] * rows,
            [False] * rows,
            [False] * rows,
            [None] * rows,
            generic=generic,
        )
        assert {node["Node Type"] for node in scans(write, "videos")} == {"Index Scan"}

        summary = await explained(million, SQL_SUMMARY, generic=generic)
        read = sum(node["Actual Rows"] * node["Actual Loops"] for node in scans(summary, "videos"))
        assert read <= ACCOUNTS * VIDEOS_EACH / 100
