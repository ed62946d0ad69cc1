"""How the flow stops: what is in flight ends, within the grace time, and nothing new begins."""

import asyncio

from tests.flow.fakes import Account, Api, cover, now, running, takes
from tests.flow.virtual import virtual


@virtual
async def test_a_claim_under_way_gets_a_quarter_of_the_grace_time():
    """A statement that hangs is left alone; the stop takes no longer for it."""
    account = Account(["1"])
    async with running({"ana": account}, Api(), grace_seconds=20) as run:
        run.store.hooks["claim"] = takes_for_ever
        await asyncio.sleep(1)
        run.stop()
    assert run.abandoned == 0
    assert run.ended_at - run.stopped_at <= 20 / 4 + 1
    assert run.api.requests == []


async def takes_for_ever():
    await asyncio.Event().wait()


@virtual
async def test_what_is_in_flight_is_written_back_and_released():
    """An answer that comes after the stop is stored, and the lease is released."""
    account = Account(["1"])
    async with running({"ana": account}, Api(takes(3))) as run:
        await run.api.asked.wait()
        run.stop()
    assert account.covers == {"1": cover("1")}
    assert len(account.releases) == 1
    assert run.abandoned == 0
    assert 2 < run.ended_at - run.stopped_at < 5


@virtual
async def test_chunks_whose_slot_is_to_come_are_not_sent_any_more():
    """They stay due: the next replica asks for them."""
    account = Account([str(number) for number in range(60)], step_seconds=2.0)
    async with running({"ana": account}, Api()) as run:
        await run.api.asked.wait()
        run.stop()
    assert len(run.api.requests) == 1
    assert len(account.covers) == 20


@virtual
async def test_a_request_without_an_answer_is_given_up_in_time_to_write_back():
    """Three quarters of the grace time are for requests."""
    account = Account(["1"])
    async with running({"ana": account}, Api(takes(1000)), grace_seconds=20) as run:
        await run.api.asked.wait()
        run.stop()
    assert 15 <= run.ended_at - run.stopped_at <= 16
    assert account.covers == {}
    assert len(account.releases) == 1
    assert run.abandoned == 0


@virtual
async def test_a_write_back_that_hangs_is_given_up_at_the_deadline():
    """Its account is counted as abandoned: its lease runs out."""
    account = Account(["1"])
    async with running({"ana": account}, Api(), grace_seconds=20) as run:
        run.store.hooks["write"] = takes_for_ever
        await run.api.asked.wait()
        run.stop()
    assert run.abandoned == 1
    assert 20 <= run.ended_at - run.stopped_at <= 22
    assert account.releases == []


@virtual
async def test_a_second_stop_moves_no_deadline():
    """It counts from the first."""
    account = Account(["1"])
    async with running({"ana": account}, Api(), grace_seconds=20) as run:
        run.store.hooks["write"] = takes_for_ever
        await run.api.asked.wait()
        run.stop()
        first = now()
        await asyncio.sleep(10)
        run.refresher.stop()
    assert run.ended_at - first <= 22
