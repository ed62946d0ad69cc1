"""What a daemon says of itself at the start, and when one of its loops fails."""

import asyncio
import json
from contextlib import suppress
from functools import partial

from refresher import app, logs
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
    loop = asyncio.create_task(app._on_each("tend tokens", tick, partial(unit, settings)))
    await went_on.wait()
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    said = capfd.readouterr().out
    event = json.loads(said)
    assert (event["event"], event["loop"]) == ("loop.failed", "tend tokens")
    assert "ZeroDivisionError" in event["exception"]
    assert "database_url" not in said


async def test_names_that_no_setting_has_are_said(serve, start, tmp_path):
    """Those of `.env` in the folder where it runs, beside those of the environment."""
    (tmp_path / ".env").write_text("# mine\nREFRESHER_POLL=1\n")
    daemon = await start(await serve(), leed_seconds=5)
    event = await daemon.until_event("settings.ignored")
    assert event["variables"] == ["REFRESHER_LEED_SECONDS", "REFRESHER_POLL (.env:2)"]
    await daemon.until_event("daemon.started")
    assert await daemon.stopped() == 0
