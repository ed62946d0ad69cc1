"""Events that are set again and again."""

import asyncio

from refresher.schedule import Schedule

SHORT = 0.01
PATIENCE_SECONDS = 30


async def ticked(tick, times):
    for _ in range(times):
        await tick.wait()
        tick.clear()


async def test_ticks_come_again_and_again():
    """Each event is set at its own interval for as long as the schedule runs."""
    schedule = Schedule()
    often, never = schedule.every(SHORT, asyncio.Event()), schedule.every(3600, asyncio.Event())
    with schedule.running():
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ticked(often, 3)
    assert not never.is_set()


async def test_a_tick_sets_the_event_it_was_given():
    """An event that others set as well can be a tick, too."""
    schedule, mine = Schedule(), asyncio.Event()
    assert schedule.every(SHORT, mine) is mine


async def test_no_tick_comes_after_the_end():
    """While another schedule still ticks, the one that has ended does not."""
    ended, other = Schedule(), Schedule()
    silent = ended.every(SHORT, asyncio.Event())
    tick = other.every(SHORT, asyncio.Event())
    async with asyncio.timeout(PATIENCE_SECONDS):
        with ended.running():
            await silent.wait()
        with other.running():
            await ticked(tick, 1)  # by now the end has been seen to
            silent.clear()
            await ticked(tick, 5)
    assert not silent.is_set()


async def test_the_end_does_not_cancel_work():
    """What a tick set off goes on when the schedule has ended."""
    schedule, may_end = Schedule(), asyncio.Event()
    tick = schedule.every(SHORT, asyncio.Event())

    async def work():
        await tick.wait()
        begun.set()
        await may_end.wait()
        return "done"

    begun = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with schedule.running():
            working = asyncio.create_task(work())
            await begun.wait()
        may_end.set()
        assert await working == "done"
