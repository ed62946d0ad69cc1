"""What a daemon says of itself at the start and when one of its loops fails."""


async def test_a_loop_that_fails_is_named(serve, start, pool):
    """By its name and a traceback: the settings, with all that is in them, are no part of it."""
    daemon = await start(await serve())
    await daemon.until_event("daemon.started")
    await pool.execute("ALTER TABLE refresher.audit RENAME TO elsewhere")
    event = await daemon.until_event("loop.failed")
    assert event["loop"] == "audit"
    assert "Settings(" not in daemon.output.read_text()
    await pool.execute("ALTER TABLE refresher.elsewhere RENAME TO audit")
    assert await daemon.stopped() == 0


async def test_names_that_no_setting_has_are_said(serve, start, tmp_path):
    """Those of `.env` in the folder where it runs, beside those of the environment."""
    (tmp_path / ".env").write_text("# mine\nREFRESHER_POLL=1\n")
    daemon = await start(await serve(), leed_seconds=5)
    event = await daemon.until_event("settings.ignored")
    assert event["variables"] == ["REFRESHER_LEED_SECONDS", "REFRESHER_POLL (.env:2)"]
    await daemon.until_event("daemon.started")
    assert await daemon.stopped() == 0
