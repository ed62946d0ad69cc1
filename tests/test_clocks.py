"""The wall clock is set; what is due is decided by the monotonic one."""

import asyncio
import json
import os
import sys
from pathlib import Path
from time import monotonic

import aiohttp
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.clocks import LEAST_STEP_SECONDS, Beat, StepWatch
from tests.conftest import PATIENCE_SECONDS, free_port

#: What Debian's package faketime brings: it sets the wall clock of one process.
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
YEAR_SECONDS = 365 * 86_400
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="not installed: apt install faketime")


# --- Beats, by a clock that the test moves ---


def test_a_beat_comes_every_interval():
    """Not before it is due, and then once."""
    beat = Beat(10.0, now=100.0)
    assert (beat.left(104.0), beat.take(104.0)) == (6.0, False)
    assert (beat.left(110.0), beat.take(110.0), beat.take(110.0)) == (0.0, True, False)
    assert beat.left(110.0) == 10.0


def test_missed_beats_come_as_one():
    """A process that stood still for long owes one, and the next is an interval away."""
    beat = Beat(10.0, now=0.0)
    assert (beat.take(1_000_009.9), beat.take(1_000_009.9)) == (True, False)
    assert beat.left(1_000_009.9) == pytest.approx(10.0)


def test_a_beat_that_is_a_little_late_keeps_the_rhythm():
    """Lateness does not add up."""
    beat = Beat(10.0, now=0.0)
    assert beat.take(12.0)
    assert beat.left(12.0) == pytest.approx(8.0)


@given(st.floats(0.01, 1e6), st.lists(st.floats(0, 1e6), max_size=30))
def test_a_beat_is_never_far_away(seconds, waits):
    """However the looks fall: the next beat is at most an interval away, and never right behind."""
    now, beat = 0.0, Beat(seconds, now=0.0)
    for wait in waits:
        now += wait
        least = seconds / 2.000_001 if beat.take(now) else 0.0
        assert least <= beat.left(now) <= seconds * 1.000_001


# --- Steps ---


@pytest.mark.parametrize("step", [-600.0, YEAR_SECONDS, LEAST_STEP_SECONDS])
def test_a_step_is_noticed_once(step):
    """By its size and its sign, and not again."""
    watch = StepWatch(wall=1_000.0, monotonic=10.0)
    assert watch.step(1_001.0 + step, 11.0) == pytest.approx(step)
    assert watch.step(1_002.0 + step, 12.0) == 0.0


def test_a_slow_clock_is_no_step():
    """Slewing, even for days, is not said: each look compares with the last."""
    watch, wall = StepWatch(wall=0.0, monotonic=0.0), 0.0
    for second in range(1, 10_000):
        wall += 1.0005
        assert watch.step(wall, float(second)) == 0.0


# --- A process whose wall clock is really set ---


@pytest.fixture
def set_clock(monkeypatch, tmp_path):
    """Children's wall clocks: as the machine's until told otherwise, at any time."""
    told = tmp_path / "clock"

    def tell(seconds):
        # Written beside and moved: a reader never sees half of it.
        (tmp_path / "clock.new").write_text(f"{seconds:+d}")
        (tmp_path / "clock.new").rename(told)

    tell(0)
    monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(told))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return tell


TICKER = """
import asyncio, sys, uvloop
from refresher import logs
from refresher.schedule import Schedule

async def main():
    schedule = Schedule()
    tick = schedule.every(0.2, asyncio.Event())
    rare = schedule.every(3600, asyncio.Event())
    with schedule.running():
        while True:
            await tick.wait()
            tick.clear()
            print("rare" if rare.is_set() else "tick", flush=True)

logs.configure(log_format="json", level="debug")
uvloop.run(main())
"""


@needs_faketime
@pytest.mark.parametrize(
    "step", [-600, YEAR_SECONDS, -20 * YEAR_SECONDS], ids=["back", "ahead", "1970s"]
)
async def test_ticks_go_on_when_the_wall_clock_is_set(set_clock, step):
    """No gap beyond the second in which it is noticed, no tick too early, and one line about it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TICKER, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    lines, gaps, last = [], [], monotonic()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(lines) < 40:
                lines.append((await process.stdout.readline()).decode().strip())
                gaps.append(monotonic() - last)
                last = monotonic()
                if len(lines) == 10:
                    set_clock(step)
    finally:
        process.kill()
        await process.wait()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(line["event"], line["level"]) for line in said] == [("clock.stepped", "warning")]
    assert said[0]["seconds"] == pytest.approx(step, abs=2)
    assert "rare" not in lines
    assert max(gaps[1:]) < 5.0
    # 38 ticks at least five to the second: those at the wrong time would have come at once.
    assert sum(gaps[1:]) > 36 * 0.2 - 1


@needs_faketime
@pytest.mark.long
async def test_a_daemon_outlives_clock_steps(serve, start, set_clock):
    """Ahead by a year and back again: new videos, summary, /livez and stop are as always."""
    world, port = await serve(), free_port()
    await world.add_account("ana", videos=5)
    daemon = await start(world, http_listen=f"127.0.0.1:{port}")
    begun = monotonic()
    await world.until_valid(5)
    for count, step in enumerate((YEAR_SECONDS, 0, -600), 1):
        set_clock(step)
        await daemon.until_event("clock.stepped", count)
        await world.add_videos("ana", 5)
        await world.until_valid(5 + 5 * count, seconds=20)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://127.0.0.1:{port}/livez") as answer,
        ):
            assert answer.status == 200
    assert [event["seconds"] for event in daemon.events("clock.stepped")] == [
        pytest.approx(YEAR_SECONDS, abs=2),
        pytest.approx(-YEAR_SECONDS, abs=2),
        pytest.approx(-600, abs=2),
    ]
    assert psutil.Process(daemon.process.pid).memory_info().rss < 200 * 2**20
    await daemon.until_event("freshness.summarized")
    assert monotonic() - begun < 90
    set_clock(-1200)
    assert await daemon.stopped() == 0
    assert daemon.events("library.warned") == daemon.events("library.failed") == []
