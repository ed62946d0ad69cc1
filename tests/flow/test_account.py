"""One account from its claim to its release: slots, refusals, outages, a lease that ends."""

import asyncio
from itertools import pairwise

from structlog.testing import capture_logs

from refresher.domain.errors import DatabaseUnavailable, QueryRefused, Throttled
from tests.flow.fakes import LEASE_SECONDS, Account, Api, fails, now, running, takes
from tests.flow.virtual import virtual


def ids(number):
    return [f"{one:02}" for one in range(number)]


def spoilt_by(bad):
    """An API that refuses each request that holds the bad video."""

    async def step(video_ids):
        if bad in video_ids:
            raise QueryRefused("invalid_params", status=400)

    return step


async def released(account):
    async with asyncio.timeout(600):
        await account.released.wait()
    return account.releases[0]


@virtual
async def test_what_is_due_is_asked_for_in_full_chunks_each_in_its_slot():
    """45 videos are three requests, a step apart; then the lease is released."""
    account = Account(ids(45), step_seconds=0.5)
    async with running({"ana": account}, Api()) as run:
        release = await released(account)
    assert [len(asked) for _, asked in run.api.requests] == [20, 20, 5]
    times = [at for at, _ in run.api.requests]
    assert [round(later - first, 3) for first, later in pairwise(times)] == [0.5, 0.5]
    assert release.requests == 3
    assert sorted(account.covers) == ids(45)


@virtual
async def test_the_hosts_of_covers_that_were_stored_are_learned():
    """From an answer of TikTok, not from what an application has stored."""
    account = Account(ids(45), step_seconds=0.5)
    async with running({"ana": account}, Api()) as run:
        await released(account)
    assert run.hosts.news() == ["p16.tiktokcdn.com"]


@virtual
async def test_a_slot_missed_by_too_much_is_given_up():
    """The loop was held up for seconds: sent now, the chunks would bunch up."""
    account = Account(ids(60), step_seconds=1.0)
    async with running({"ana": account}, Api()) as run:
        await run.api.asked.wait()
        asyncio.get_running_loop().selector.now += 10.0  # the process stood still
        release = await released(account)
    assert len(run.api.requests) == 1
    assert release.requests == 1
    assert len(account.covers) == 20


@virtual
async def test_one_bad_video_is_found_and_the_others_are_refreshed():
    """Halves are asked, each in a slot of its own."""
    account = Account(ids(20), step_seconds=0.1)
    api = Api(*[spoilt_by("07")] * 20)
    async with running({"ana": account}, api):
        await released(account)
    assert sorted(account.covers) == [video_id for video_id in ids(20) if video_id != "07"]


@virtual
async def test_a_throttle_in_mid_bisection_ends_it():
    """Nothing more is asked for; what was not answered stays due, and the account pauses."""
    account = Account(ids(20), step_seconds=0.1)
    throttled = Throttled("rate_limit_exceeded", status=429, log_id="l", retry_after_seconds=None)
    api = Api(spoilt_by("07"), fails(throttled))
    async with running({"ana": account}, api) as run:
        release = await released(account)
    assert len(run.api.requests) == 2
    assert release.pause_seconds > 0
    assert account.covers == {}


@virtual
async def test_a_lease_that_another_replica_has_taken_meanwhile_is_left_to_it():
    """The answer comes after the lease has run out: nothing is written, nothing released."""
    account = Account(ids(1))
    async with running({"ana": account}, Api(takes(8))) as run:
        await run.api.asked.wait()
        account.epoch += 1  # claimed by another one
        with capture_logs() as logs:
            await asyncio.sleep(LEASE_SECONDS + 10)
    assert account.covers == {}
    assert account.releases == []
    told = {entry["event"] for entry in logs}
    assert {"chunk.unsaved", "account.abandoned"} <= told


@virtual
async def test_a_lease_is_extended_while_its_work_lasts():
    """A request that takes longer than the lease: nobody else may claim the account meanwhile."""
    account = Account(ids(1))
    async with running({"ana": account}, Api(takes(3 * LEASE_SECONDS))) as run:
        await run.api.asked.wait()
        for _ in range(50):
            await asyncio.sleep(1)
            assert account.leased_until > now()
        await released(account)
    assert account.epoch == 1


@virtual
async def test_answers_in_hand_outlast_an_outage():
    """They are kept, written when the database is back, and nothing is claimed before."""
    account, other = Account(ids(1)), Account([])
    away_until = None

    async def away():
        if now() < away_until:
            raise DatabaseUnavailable("connection refused")

    async with running({"ana": account, "ben": other}, Api(takes(1))) as run:
        await run.api.asked.wait()
        away_until = now() + 60
        run.store.hooks = {"write": away, "claim": away, "extend": away, "release": away}
        other.due = ["99"]
        await asyncio.sleep(50)
        assert account.covers == {}
        assert len(run.api.requests) == 1, "no quota is spent on what could not be stored"
        await released(account)
        await released(other)
    assert list(account.covers) == ids(1)
    assert account.epoch == 1


@virtual
async def test_what_was_answered_is_written_before_anything_is_claimed_again():
    """After an outage: a claim moves the epoch, and the answers would be nobody's any more."""
    account, other = Account(ids(1)), Account([])
    away_until = None

    async def away():
        if now() < away_until:
            raise DatabaseUnavailable("connection refused")

    async def away_and_slow():
        await away()
        await asyncio.sleep(1)

    async with running({"ana": account, "ben": other}, Api(takes(1))) as run:
        await run.api.asked.wait()
        away_until = now() + 2.5
        run.store.hooks = {"write": away_and_slow, "claim": away, "release": away}
        await asyncio.sleep(1.2)  # the answer is there and cannot be written
        other.due = ["99"]
        run.store.done.clear()
        run.refresher.wake.set()
        await released(other)
    assert run.store.done[0] == "write"


@virtual
async def test_a_throttled_account_sends_nothing_more():
    """Its further chunks are not sent in their slots; another account goes on."""
    throttled = Throttled("rate_limit_exceeded", status=429, log_id="l", retry_after_seconds=None)
    account, other = Account(ids(60), step_seconds=2.0), Account(["99"])
    async with running({"ana": account, "ben": other}, Api(fails(throttled))) as run:
        release = await released(account)
        await released(other)
    assert release.requests == 1
    assert len(run.api.requests) == 2
    assert list(other.covers) == ["99"]


@virtual
async def test_an_account_whose_rows_are_refused_waits_longer_and_longer():
    """TikTok answers it, a trigger refuses the answers: each try costs a request and a traceback."""
    account = Account([], refuses=ValueError("under audit"))
    async with running({"ana": account}, Api()) as run:
        with capture_logs() as logs:
            for _ in range(6):
                account.released.clear()
                account.due = ids(1)
                run.refresher.wake.set()
                await released(account)
    waits = [release.retry_seconds for release in account.releases]
    assert all(later > 1.2 * wait for wait, later in pairwise(waits[:4]))
    assert waits[-1] >= 60
    assert [entry["event"] for entry in logs].count("account.failed") == 6
