"""What a daemon says of itself at the start, and when one of its loops fails."""

import asyncio
import json
from contextlib import suppress
from functools import partial
from time import monotonic

import pytest

from refresher import logs, upkeep
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed
from refresher.flow.outage import Outage
from refresher.postgres.failures import RightMissingError
from refresher.settings import read_settings


async def test_a_loop_that_fails_is_named(capfd):
    """By its name and a traceback; the settings that its unit holds are no part of it."""
    logs.configure(log_format="json", level="info")
    tick, went_on, runs = asyncio.Event(), asyncio.Event(), []

    async def unit(_settings):
        runs.append(1)
        if len(runs) == 1:
            tick.set()
            raise ZeroDivisionError
        went_on.set()

    tick.set()
    settings = read_settings(database_url="postgresql://db/refresher")
    loop = asyncio.create_task(
        upkeep.on_each(Outage(lambda: 0.5, monotonic), "tend tokens", tick, partial(unit, settings))
    )
    await went_on.wait()
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    said = capfd.readouterr().out
    event = json.loads(said)
    assert (event["event"], event["loop"]) == ("loop.failed", "tend tokens")
    assert "ZeroDivisionError" in event["exception"]
    assert "database_url" not in said


@pytest.mark.parametrize(
    ("outcomes", "answers", "said"),
    [
        pytest.param([StatementFailed("statement timeout")] * 5, True, 1, id="fails-for-good"),
        pytest.param([StatementFailed("no answer in time")] * 5, False, 0, id="nobody-is-answered"),
        pytest.param([RightMissingError("permission denied")] * 5, True, 1, id="may-not"),
        pytest.param(
            [DatabaseBusy("lock"), None, DatabaseBusy("lock"), None], True, 0, id="passes"
        ),
        pytest.param([StatementFailed("a"), StatementFailed("b"), None] * 2, True, 2, id="twice"),
        pytest.param([DatabaseUnavailable("connection refused")] * 5, True, 0, id="away"),
    ],
)
async def test_a_loop_that_the_database_refuses_is_named(capfd, outcomes, answers, said):
    """Once, while the database answers others; an outage the flow tells of."""
    logs.configure(log_format="json", level="info")
    tick, done, coming = asyncio.Event(), asyncio.Event(), iter(outcomes)
    outage = Outage(lambda: 0.5, monotonic)

    async def unit():
        tick.set()
        if answers:
            await outage.attempt(partial(asyncio.sleep, 0))
        if (outcome := next(coming, done)) is done:
            done.set()
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome

    tick.set()
    loop = asyncio.create_task(upkeep.on_each(outage, "summary", tick, unit))
    await done.wait()
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(event["event"], event["loop"]) for event in events] == [
        ("loop.failed", "summary")
    ] * said


async def test_names_that_no_setting_has_are_said(serve, start, tmp_path):
    """Those of `.env` in the folder where it runs, beside those of the environment."""
    (tmp_path / ".env").write_text("# mine\nREFRESHER_POLL=1\n")
    daemon = await start(await serve(), leed_seconds=5)
    event = await daemon.until_event("settings.ignored")
    assert event["variables"] == ["REFRESHER_LEED_SECONDS", "REFRESHER_POLL (.env:2)"]
    await daemon.until_event("daemon.started")
    assert await daemon.stopped() == 0
