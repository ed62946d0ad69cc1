"""A few covers are fetched, to see whether they live; where they die early, the lead grows."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs
from yarl import URL

from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.due import DuePolicy
from refresher.domain.meter import Meter
from refresher.domain.probing import Outcome
from refresher.fetching import Unreached, opened
from refresher.postgres.probes import grow_lead, name_hosts, read_hosts, tell_probes
from refresher.probing import Probing
from tests.conftest import eventually

#: A cover becomes due 10 to 15 minutes before its expiry.
POLICY = DuePolicy(timedelta(minutes=10), timedelta(minutes=5), timedelta(hours=6), 5)
LEAD = {"lead_seconds": 600, "spread_seconds": 300}
LIFE_SECONDS = 10_800
HOST = "p16-sign-va.tiktokcdn.com"


@pytest.fixture
def replica(pool):
    """Make a replica that fetches 6 covers an hour by this `fetch`, of a host that is known."""

    async def make(fetch, *, per_hour=6, local=None, chance=lambda: 0.9):
        await name_hosts(pool, [HOST])
        hosts = CoverHosts(local)
        hosts.hear(await read_hosts(pool))
        fetcher = Fetcher(fetch) if callable(fetch) else fetch
        return Probing(pool, hosts, POLICY, fetcher, per_hour, Meter(), chance, monotonic)

    return make


class Fetcher:
    """Answers by a function of the URL, and remembers what was asked for."""

    def __init__(self, answer):
        self.answer = answer
        self.urls = []

    async def fetch(self, url, *, is_local):
        assert not is_local
        self.urls.append(url)
        return self.answer(url)


def serve_all(_):
    return Outcome.SERVED


async def store(pool, *lefts, prefix=f"https://{HOST}/", account="account"):
    """An account for each cover, with so many seconds left."""
    await pool.execute(
        "WITH covers AS ("
        "    SELECT $3 || n AS open_id, left_seconds, n"
        "    FROM unnest($1::float8[]) WITH ORDINALITY AS c (left_seconds, n)"
        "), accounts AS ("
        "    INSERT INTO refresher.accounts (open_id, access_token, wake_at)"
        "    SELECT open_id, 'act.x', now() + interval '1 hour' FROM covers"
        ") "
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at,"
        "                              refreshed_at, due_at)"
        " SELECT open_id, n, $2 || left_seconds, now() + make_interval(secs => left_seconds),"
        "        now() + make_interval(secs => left_seconds) - $4::interval,"
        "        now() + make_interval(secs => left_seconds) - interval '12 minutes'"
        " FROM covers",
        list(map(float, lefts)),
        prefix,
        account,
        timedelta(seconds=LIFE_SECONDS),
    )
    # A new video that brings a cover is due at once.
    await pool.execute(
        "UPDATE refresher.videos SET due_at = cover_expires_at - interval '12 minutes'"
    )
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() + interval '1 hour'")


async def its_turn(pool):
    """Let the next probe come now."""
    await pool.execute("UPDATE refresher.probing SET next_at = now()")


async def dead(world):
    """How many covers that count as valid are refused."""
    rows = await world.pool.fetch(
        "SELECT cover_image_url FROM refresher.videos WHERE cover_expires_at > now()"
    )
    async with aiohttp.ClientSession() as session:
        answers = [await session.get(URL(row[0], encoded=True)) for row in rows]
    return sum(answer.status != 200 for answer in answers)


async def age(world):
    """Every stored cover has lived for as long as those of `LIFE_SECONDS` with as much left."""
    await world.pool.execute(
        "UPDATE refresher.videos SET refreshed_at = cover_expires_at - $1::interval",
        timedelta(seconds=LIFE_SECONDS),
    )


@pytest.mark.long
async def test_the_lead_grows_until_no_cover_is_dead(serve, start):
    """Covers that die 40 minutes early are found, said, brought forward and asked for in time."""
    world = await serve(cover_ttl=2_000, covers_die_early_seconds=2_400)
    options = world.emulator.options
    for n in range(4):
        await world.add_account(f"old-{n}", 5)
    daemon = await start(world, probes_per_hour=0, **LEAD)
    await world.until_valid(20)
    world.emulator.options = replace(options, cover_ttl=LIFE_SECONDS)
    for n in range(4):
        await world.add_account(f"young-{n}", 5)
    await world.until_valid(40)
    await world.until_no_leases()
    await daemon.stopped()
    await age(world)
    assert await dead(world) == 20
    daemon = await start(world, probes_per_hour=3600, **LEAD)
    grown = await daemon.until_event("lead.grown")
    assert 1_900 < grown["early_seconds"] <= 2_000
    assert grown["is_enough"]
    assert grown["lead_seconds"] == pytest.approx(600 + 1.25 * grown["early_seconds"], abs=1)
    # Nobody answers meanwhile by the old lead.
    await world.pool.execute("UPDATE refresher.cover_hosts SET grown_at = now() - interval '1 min'")
    await eventually(lambda: none_is_dead(world), "no dead cover")
    probed = daemon.events("freshness.probed")
    assert sum(one["refused"] for one in probed) >= 3
    assert await daemon.stopped() == 0


async def none_is_dead(world):
    return not await dead(world)


async def test_replicas_share_the_turns(pool, replica):
    """Six an hour are six for all of them: whoever comes first fetches one cover."""
    await store(pool, 3000, 4000, 5000)
    replicas = [await replica(serve_all) for _ in range(3)]
    with capture_logs() as logs:
        await asyncio.gather(*(one.probe() for one in replicas))
        await asyncio.gather(*(one.probe() for one in replicas))
    assert sum(len(one.fetcher.urls) for one in replicas) == 1
    left = await pool.fetchval("SELECT next_at - now() FROM refresher.probing")
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)
    assert [log["event"] for log in logs] == ["freshness.probed"]
    assert logs[0]["served_by_host"] == {HOST: 1}
    assert logs[0]["served_by_life_left"] in ({"under 1 h": 1}, {"under 3 h": 1})


async def test_more_probes_an_hour_begin_at_once(pool, replica):
    """The next one does not wait for the turn of the rarer ones."""
    await store(pool, 3000, 4000, 5000)
    probing = await replica(serve_all)
    probing.per_hour = 1
    await probing.probe()
    probing.per_hour = 3600
    await probing.probe()
    assert len(probing.fetcher.urls) == 2
    left = await pool.fetchval("SELECT next_at - now() FROM refresher.probing")
    assert left <= timedelta(seconds=1)


async def test_each_probe_is_told_of_once(pool, replica):
    """Together after an hour, by one replica; a refusal at once."""
    await store(pool, *range(3000, 10_000, 500))
    one, other = await replica(serve_all), await replica(serve_all)
    with capture_logs() as logs:
        for probing in (one, other, one, other):
            await its_turn(pool)
            await probing.probe()
    assert [log["served"] for log in logs] == [1]
    told = [await tell_probes(pool, timedelta(0), at_once=False) for _ in range(2)]
    assert [len(probes) for probes in told] == [3, 0]


async def test_yesterdays_probes_go_where_all_tables_are_published(pool, replica):
    """The server deletes no published row that nothing identifies."""
    await store(pool, *range(3000, 10_000, 500))
    probing = await replica(serve_all)
    await pool.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for _ in range(2):
        await its_turn(pool)
        await probing.probe()
        await pool.execute("UPDATE refresher.probes SET probed_at = now() - interval '25 hours'")
    assert await pool.fetchval("SELECT count(*) FROM refresher.probes") == 1


async def test_a_refusal_is_checked_and_paid_for(pool, replica):
    """Four more covers of the host at once; then nothing until their turns would have come."""
    await store(pool, *range(3000, 10_000, 500))
    probing = await replica(
        lambda url: Outcome.REFUSED if url.endswith("/3000") else serve_all(url)
    )
    probing.chance = lambda: 0.0  # the cover that has least left
    with capture_logs() as logs:
        await probing.probe()
    assert [url.rpartition("/")[2] for url in probing.fetcher.urls] == [
        *("3000", "3500", "4000", "4500", "9500")
    ]
    left = await pool.fetchval("SELECT next_at - now() FROM refresher.probing")
    assert timedelta(minutes=49) < left <= timedelta(minutes=50)
    assert [(log["event"], log["refused"], log["served"]) for log in logs] == [
        ("freshness.probed", 1, 4)
    ]
    assert probing.hosts.grown == {}


async def test_one_video_that_is_refused_moves_no_lead(pool, replica):
    """However often it is fetched: it may have been deleted."""
    await store(pool, *range(3000, 10_000, 500))
    probing = await replica(
        lambda url: Outcome.REFUSED if url.endswith("/3000") else serve_all(url)
    )
    probing.chance = lambda: 0.0
    for _ in range(5):
        await its_turn(pool)
        await probing.probe()
    assert await read_hosts(pool) == {HOST: 0.0}


async def test_a_host_that_refuses_everything_moves_no_lead(pool, replica):
    """It is said once: perhaps the daemon's address is blocked."""
    await store(pool, *range(3000, 10_000, 500))
    probing = await replica(lambda _: Outcome.REFUSED)
    with capture_logs() as logs:
        for _ in range(3):
            await its_turn(pool)
            await probing.probe()
    said = [log for log in logs if log["event"] != "freshness.probed"]
    assert [(log["event"], log["host"]) for log in said] == [("host.refused", HOST)]
    assert await read_hosts(pool) == {HOST: 0.0}


async def test_no_answer_says_nothing(pool, replica):
    """Time-outs and a host that nobody reaches: said once, until one is reached again."""
    await store(pool, *range(3000, 10_000, 500))

    def refuse(_):
        raise Unreached("gaierror")

    probing = await replica(refuse)
    with capture_logs() as logs:
        for _ in range(7):
            await its_turn(pool)
            await probing.probe()
    said = [log for log in logs if log["event"] != "freshness.probed"]
    assert [(log["event"], log["host"], log["reason"]) for log in said] == [
        ("probes.failed", HOST, "gaierror")
    ]
    assert logs[0]["unknown"] == 1


async def test_what_an_application_stored_is_not_asked_for(pool, replica):
    """A private address, another owner's host: skipped, and one of TikTok's is fetched instead."""
    async with opened() as fetcher:
        await store(pool, 3000, 4000, prefix="https://169.254.169.254/latest/", account="a")
        await store(pool, 3000, 4000, prefix="https://evil.example/", account="b")
        probing = await replica(fetcher)
        with capture_logs() as logs:
            await probing.probe()
    assert [(log["event"], log["skipped"], log["unknown"]) for log in logs] == [
        ("freshness.probed", 1, 0)
    ]
    await store(pool, 9000, account="c")
    probing = await replica(serve_all)
    await its_turn(pool)
    probing.chance = lambda: 0.0
    await probing.probe()
    assert probing.fetcher.urls == [f"https://{HOST}/9000"]


async def test_covers_of_accounts_in_trouble_are_not_fetched(pool, replica):
    """They may be refused for their own reason; so may those of videos that are missing."""
    await store(pool, 3000, 4000, 5000, 6000)
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'paused' WHERE open_id = 'account1';"
        "UPDATE refresher.accounts SET isolated_since = now() WHERE open_id = 'account2';"
        "UPDATE refresher.videos SET missing_since = now() WHERE open_id = 'account3'"
    )
    probing = await replica(serve_all)
    for _ in range(8):
        await its_turn(pool)
        await probing.probe()
    assert set(probing.fetcher.urls) == {f"https://{HOST}/6000"}


async def test_stored_covers_are_brought_forward(pool, replica):
    """Of the host whose lead has grown, and no more than needed; their accounts wake for them."""
    await store(pool, 2000, 9000, account="a")
    await store(pool, 2000, prefix="https://other.example/", account="b")
    before = dict(await pool.fetch("SELECT open_id, due_at FROM refresher.videos"))
    await grow_lead(pool, HOST, 2400.0)
    probing = await replica(serve_all)
    await probing.bring_forward(no_refusal)
    assert dict(await pool.fetch("SELECT open_id, due_at FROM refresher.videos")) == before, (
        "answers on their way are stored by the old lead"
    )
    await pool.execute("UPDATE refresher.cover_hosts SET grown_at = now() - interval '1 min'")
    await probing.bring_forward(no_refusal)
    due = await pool.fetch(
        "SELECT v.open_id, extract(epoch FROM cover_expires_at - due_at)::float8 AS ahead,"
        "       due_at <= now() AS is_due, wake_at <= due_at AS wakes"
        " FROM refresher.videos AS v JOIN refresher.accounts USING (open_id) ORDER BY 1"
    )
    assert [(row["open_id"], row["is_due"]) for row in due] == [
        *[("a1", True), ("a2", False), ("b1", False)]
    ]
    assert all(row["wakes"] for row in due[:2])
    # Lead and spread: 3,000 and up to 300 seconds.
    assert 3000 <= due[1]["ahead"] <= 3300
    assert due[2]["ahead"] == 720
    assert await pool.fetchval("SELECT bool_and(forward_to IS NULL) FROM refresher.cover_hosts")
    after = await pool.fetch("SELECT open_id, due_at FROM refresher.videos ORDER BY 1")
    await pool.execute("UPDATE refresher.cover_hosts SET forward_to = '' WHERE host = $1", HOST)
    await probing.bring_forward(no_refusal)
    assert await pool.fetch("SELECT open_id, due_at FROM refresher.videos ORDER BY 1") == after


async def test_one_locked_row_holds_up_no_other(pool, replica, database):
    """Covers of accounts that somebody has locked are left; the others are brought forward."""
    await store(pool, 9000, 9000, 9000)
    await grow_lead(pool, HOST, 2400.0)
    await pool.execute("UPDATE refresher.cover_hosts SET grown_at = now() - interval '1 min'")
    probing = await replica(serve_all)
    refused = []
    holder = await asyncpg.connect(database)
    async with holder.transaction():
        await holder.execute("SELECT FROM refresher.videos WHERE open_id = 'account1' FOR UPDATE")
        await holder.execute("SELECT FROM refresher.accounts WHERE open_id = 'account2' FOR UPDATE")
        await probing.bring_forward(lambda open_id, _: refused.append(open_id))
    await holder.close()
    late = await pool.fetch(
        "SELECT open_id FROM refresher.videos"
        " WHERE due_at > cover_expires_at - interval '50 minutes' ORDER BY 1"
    )
    assert [row["open_id"] for row in late] == ["account1", "account2"]
    assert refused == ["account2"]


async def test_a_lead_shrinks_after_a_quiet_week(pool, replica):
    """To the half, so that a host which mends its ways costs no quota for ever."""
    await store(pool, 9000)
    await grow_lead(pool, HOST, 200.0)
    probing = await replica(serve_all)
    with capture_logs() as logs:
        for _ in range(3):
            await pool.execute("UPDATE refresher.cover_hosts SET grown_at = now() - interval '8 d'")
            await its_turn(pool)
            await probing.probe()
    assert [log["lead_seconds"] for log in logs if log["event"] == "lead.lowered"] == [700.0, 600.0]


async def test_hosts_of_answers_are_shared(pool, replica):
    """One replica hears of them by an answer, the others by the database."""
    one, other = await replica(serve_all), await replica(serve_all)
    one.hosts.note(["https://p16.tiktokcdn-us.com/a?x-expires=1"])
    await one.share_hosts()
    assert other.hosts.of("https://p77.tiktokcdn-us.com/a") is None
    await other.share_hosts()
    assert other.hosts.of("https://p77.tiktokcdn-us.com/a") == "p77.tiktokcdn-us.com"


async def test_hosts_do_not_fill_the_table(pool):
    """A mistake may name any number of them."""
    for start in range(0, 2000, 200):
        await name_hosts(pool, [f"h{start + n}.example" for n in range(200)])
    assert await pool.fetchval("SELECT count(*) FROM refresher.cover_hosts") <= 700


async def test_nothing_is_fetched_where_nothing_is_wished(serve, start):
    """With 0 a daemon fetches no cover, and `once` never does."""
    world = await serve()
    await world.add_account("ana", 3)
    daemon = await start(world, probes_per_hour=0)
    await world.until_valid(3)
    await daemon.stopped()
    await world.add_videos("ana", 3)
    once = await start(world, command="once", probes_per_hour=3600)
    assert await once.ended() == 0
    assert not await world.pool.fetchval("SELECT count(*) FROM refresher.probes")
    assert not await world.pool.fetchval("SELECT count(*) FROM refresher.probing")


def no_refusal(open_id, error):
    pytest.fail(f"{open_id}: {error}")
