"""What the flow counts of its own work."""

import asyncio

import pytest

from refresher.domain.answers import MEANINGS
from refresher.domain.errors import DailyQuotaSpent, Throttled, UpstreamFailed
from refresher.domain.meter import OK, OUTCOMES, UNKNOWN_CODE
from tests.flow.fakes import Account, Api, fails, now, running, takes
from tests.flow.virtual import virtual


def test_each_kind_of_failure_has_its_outcome():
    """So the label has few values, whatever TikTok answers."""
    assert OUTCOMES.keys() == MEANINGS.keys()
    assert len({*OUTCOMES.values(), UNKNOWN_CODE, OK}) == len(OUTCOMES) + 2


def happened(counts):
    return {name: count for name, count in counts.items() if count}


@virtual
async def test_requests_are_counted_with_their_times():
    """Three chunks, a second apart, of 0.3 s each: when they were sent after the claim, how long they took."""
    account = Account([f"{one:02}" for one in range(60)], step_seconds=1.0)
    async with running({"ana": account}, Api(*[takes(0.3)] * 3)) as run:
        await account.released.wait()
    meter = run.meter
    assert happened(meter.requests["video_query"]) == {"ok": 3}
    assert happened(meter.requests["token"]) == {}
    assert meter.request_seconds["video_query"].total == pytest.approx(0.9)
    assert meter.slot_wait_seconds.total == pytest.approx(0.0 + 1.0 + 2.0)
    assert run.refresher.stats().results["refreshed"] == 60
    assert run.refresher.stats().asked == 60


@pytest.mark.parametrize(
    ("error", "outcome", "scopes"),
    [
        pytest.param(
            Throttled("rate_limit_exceeded", status=429),
            "throttled",
            {"account_minute": 1},
            id="429",
        ),
        pytest.param(
            DailyQuotaSpent("daily_quota", status=429), "quota_spent", {"account_day": 1}, id="day"
        ),
        pytest.param(UpstreamFailed("internal_error", status=500), "failed", {}, id="500"),
        pytest.param(
            UpstreamFailed("of_tomorrow", status=403, spoken=True), "unknown_code", {}, id="403"
        ),
        pytest.param(
            UpstreamFailed("of_tomorrow", status=503, spoken=True), "failed", {}, id="503"
        ),
    ],
)
@virtual
async def test_failures_are_counted_by_outcome(error, outcome, scopes):
    """Limits by their scope, too. Whatever TikTok itself says is an answer, also a code of tomorrow."""
    account = Account(["1"])
    async with running({"ana": account}, Api(fails(error))) as run:
        await account.released.wait()
    assert happened(run.meter.requests["video_query"]) == {outcome: 1}
    assert happened(run.meter.throttles) == scopes
    assert run.meter.answers() == (outcome != "failed")


@virtual
async def test_429s_of_the_whole_app_are_counted_as_such():
    """The first one may be the account's own. Then a limit of the app is in force."""
    throttled = fails(Throttled("rate_limit_exceeded", status=429))
    ana, bob = Account(["1"]), Account(["1"])

    async def told(_):
        return True

    async with running({"ana": ana}, Api(throttled, throttled)) as run:
        run.store.tell_answers = told
        await ana.released.wait()
        await asyncio.sleep(10)
        run.store.accounts["bob"] = bob
        run.refresher.wake.set()
        await bob.released.wait()
    assert happened(run.meter.throttles) == {"account_minute": 1, "app": 1}


@virtual
async def test_a_request_on_its_way_is_seen():
    """In flight, beside its limit; the claim loop goes on turning."""
    account = Account(["1"])
    async with running({"ana": account}, Api(takes(2.0))) as run:
        await run.api.asked.wait()
        stats = run.refresher.stats()
        assert (stats.in_flight, stats.in_flight_limit) == (1, 8)
        assert stats.upstream_up
        assert stats.database_up
        await asyncio.sleep(60)
        assert run.refresher.stats().in_flight == 0
        assert now() - run.meter.turned_at["claim"] <= 10


@virtual
async def test_an_answer_that_waits_for_the_database_is_seen():
    """Until it is stored."""
    account, may = Account(["1"]), asyncio.Event()
    async with running({"ana": account}, Api()) as run:
        run.store.hooks["write"] = may.wait
        await run.api.asked.wait()
        await asyncio.sleep(1)
        assert run.refresher.stats().unsaved == 1
        may.set()
        await account.released.wait()
        assert run.refresher.stats().unsaved == 0
