"""No time that PostgreSQL can hold, in any column, breaks a list, a loop or the work of others."""

from datetime import UTC, datetime, timedelta

import pytest

from refresher.domain.conclude import conclude
from refresher.domain.model import ChunkWrite, Write
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.details import Wanted, list_troubled, read_details
from refresher.postgres.fleet import read_fleet
from refresher.postgres.listing import list_accounts, list_videos
from refresher.postgres.sealing import Sealer
from refresher.postgres.snapshot import read_snapshot
from refresher.postgres.status import (
    any_due,
    any_left,
    count_due,
    read_leases,
    read_now,
    read_quota,
    read_summary,
)
from refresher.postgres.stored import read_stored
from refresher.postgres.times import FIRST, LAST, as_read, as_stored
from refresher.postgres.tokens import TokenStore, consents_ending
from refresher.postgres.write_back import write_back

EXTREMES = (
    "9999-12-31 23:59:59-05",
    "10000-01-01 00:00:00+00",
    "294276-12-31 23:59:59.999999+00",
    "4714-11-24 00:00:00+00 BC",
    "0001-01-01 00:00:00+00",
    "0001-12-31 23:59:59+00 BC",
    "infinity",
    "-infinity",
)
COLUMNS = """
SELECT c.relname, a.attname
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'refresher'::regnamespace AND c.relkind = 'r'
  AND a.atttypid = 'timestamptz'::regtype AND a.attnum > 0 AND NOT a.attisdropped
  -- Of no account: the daemons that run, what is probed and attached, a pause of everything, at
  -- whatever time it began, and until when webhooks are written.
  AND c.relname IN ('accounts', 'videos', 'app', 'audit')
  AND a.attname NOT IN ('paused_since', 'webhooks_until')
ORDER BY 1, 2
"""
HOUR = timedelta(hours=1)


def test_times_are_read_and_written_to_the_microsecond():
    """Both ways the same, and the ends of the calendar are infinity."""
    moment = datetime(2026, 11, 28, 12, 34, 56, 789_012, tzinfo=UTC)
    assert as_read(as_stored(moment)) == moment
    assert as_read(as_stored(FIRST)) == FIRST
    assert as_read(as_stored(LAST)) == LAST


@pytest.mark.parametrize("stored", [*EXTREMES, "2026-11-28 12:34:56.789012+00"])
async def test_whatever_is_stored_can_be_read(pool, stored):
    """Alone and in arrays: as it is, or as the end of the calendar that it lies beyond."""
    (alone, several) = await pool.fetchrow(
        "SELECT $1::text::timestamptz, ARRAY[$1::text::timestamptz, NULL]", stored
    )
    assert FIRST <= alone <= LAST
    assert several == [alone, None]
    if FIRST < alone < LAST:
        assert await pool.fetchval("SELECT $1 = $2::text::timestamptz", alone, stored)


async def refreshed(pool):
    """One round of all that the daemon and the commands do; the accounts that were claimed."""
    claims = Accounts(
        pool,
        replica="a",
        pace=Pace(600, 6000, lease_seconds=60),
        managed=True,
    )
    store = TokenStore(pool, Sealer(()))
    claimed = await claims.claim(100)
    for claim in claimed:
        assert await claims.reserve(claim) is not None
        if claim.token.due and (used := await store.begin(claim)):
            await store.end(claim, unknown=used.interrupted)
        ids = [video.video_id for video in claim.videos]
        dies = claim.time.now + 2 * HOUR
        write = Write(ids, dies - HOUR, dies, ["https://x"] * len(ids))
        await write_back(pool, [ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)])
    assert None not in await claims.extend(claimed)
    if claimed:
        assert None not in await claims.release([conclude(claim, [], 0.5) for claim in claimed])
    for managed in (True, False):
        await pool.execute("UPDATE refresher.audit SET audited_to = ''")
        await audit_step(pool, managed=managed)
    assert len([row async for page in list_accounts(pool) for row in page]) == 2
    assert [page async for page in list_videos(pool)]
    await read_summary(pool)
    await read_quota(pool)
    await read_leases(pool)
    await consents_ending(pool)
    await read_fleet(pool)
    assert await read_snapshot(pool)
    assert await read_details(pool, Pace(600, 6000, lease_seconds=60), managed=True)
    await list_troubled(pool, Wanted(), 10, managed=True)
    await read_stored(pool, managed=True, fingerprint=None)
    now = await read_now(pool)
    await count_due(pool, now)
    await any_due(pool, now)
    await any_left(pool, now, 3)
    return {claim.open_id for claim in claimed}


async def fill(pool):
    for open_id in ("ana", "ben"):
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
            " refresh_token, refresh_token_expires_at)"
            " VALUES ($1, 'act.x', now() + interval '1 day', 'rft.x', now() + interval '1 day')",
            open_id,
        )
        await pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id)"
            " SELECT $1, $1 || n FROM generate_series(1, 3) AS n",
            open_id,
        )


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("before", ["new", "worked"])
async def test_one_accounts_time_is_nobody_elses_trouble(pool, extreme, before):
    """In each column in turn, before the first claim and after it: the other account is worked."""
    columns = await pool.fetch(COLUMNS)
    assert len(columns) >= 20
    for table, column in columns:
        await pool.execute("DELETE FROM refresher.accounts")
        await pool.execute(
            "UPDATE refresher.app SET next_slot_at = '-infinity', rate_lowered_at = '-infinity',"
            " rate = NULL"
        )
        await fill(pool)
        if before == "worked":
            assert await refreshed(pool) == {"ana", "ben"}
        if table == "app":
            await pool.execute("UPDATE refresher.app SET rate = 100")
        where = "" if table == "app" else " WHERE open_id = 'ana'"
        await pool.execute(
            f"UPDATE refresher.{table} SET {column} = $1::text::timestamptz{where}", extreme
        )
        await pool.execute(
            "UPDATE refresher.accounts SET wake_at = now(), next_slot_at = now()"
            " WHERE open_id = 'ben'"
        )
        await pool.execute("UPDATE refresher.videos SET due_at = now() WHERE open_id = 'ben'")
        claimed = await refreshed(pool)
        if table != "app":
            assert "ben" in claimed, (table, column)


@pytest.mark.parametrize("extreme", EXTREMES)
async def test_the_commands_go_on(pool, start, extreme):
    """`accounts list`, `status` and `simulate --from-database` say what there is, exit code 0."""
    await fill(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET access_token_expires_at = $1::text::timestamptz,"
        " refresh_token_expires_at = $1::text::timestamptz, state_since = $1::text::timestamptz,"
        " wake_at = $1::text::timestamptz WHERE open_id = 'ana'",
        extreme,
    )
    await pool.execute(
        "UPDATE refresher.videos SET cover_image_url = 'https://x', refreshed_at = now(),"
        " cover_expires_at = $1::text::timestamptz, due_at = $1::text::timestamptz"
        " WHERE video_id = 'ana1'",
        extreme,
    )
    for command in ("accounts list", "status --json", "simulate --from-database"):
        done = await start(command=command)
        assert await done.ended() == 0, (command, done.output.read_text())


@pytest.mark.parametrize("extreme", EXTREMES)
async def test_covers_that_never_die_have_no_first_death(pool, extreme):
    """A forecast names the first death among the covers that nobody asks for."""
    await fill(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'paused', videos = 1, valid = 1, valid_until ="
        " CASE open_id WHEN 'ben' THEN $1::text::timestamptz ELSE now() + interval '1 hour' END",
        extreme,
    )
    stored = await read_stored(pool, managed=True, fingerprint=None)
    assert 0 < stored.unasked["paused"].first_death_at - stored.fleet.now <= HOUR.total_seconds()
    await pool.execute("DELETE FROM refresher.accounts WHERE open_id = 'ana'")
    assert (await read_stored(pool, managed=True, fingerprint=None)).unasked[
        "paused"
    ].first_death_at is None
