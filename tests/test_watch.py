"""`status --watch`, and what a terminal shows."""

import asyncio
import os
import pty
import re
import signal
import sys

from tests.conftest import environment, eventually
from tests.terminal import ESCAPE, on_terminal, read_all


async def test_a_pipe_gets_one_text_after_the_other(start, pool):
    """Each with what is stored by then; Ctrl-C ends it with 0."""
    watching = await start(command="status --watch")
    await eventually(lambda: said(watching, "accounts active", 1), "a first text")
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    await eventually(lambda: said(watching, "accounts active                 1", 1), "another")
    assert await watching.stopped(signal.SIGINT) == 0
    assert "\x1b" not in watching.output.read_text()


async def said(watching, text, times):
    return watching.output.read_text().count(text) >= times


async def test_a_terminal_shows_in_colour_what_is_bad(database, pool):
    """Dead covers are red; NO_COLOR takes the colours away, not the numbers."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.x');"
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at)"
        " VALUES ('ana', '1', 'https://c', now() - interval '1 hour')"
    )
    coloured = await on_terminal("status", database)
    assert re.search(r"\x1b\[1;31m[^\x1b]*expired", coloured)
    plain = await on_terminal("status", database, NO_COLOR="1")
    assert "31m" not in plain
    for written in (coloured, plain):
        assert re.search(r"^expired +1 *\r?$", ESCAPE.sub("", written), re.MULTILINE)


async def test_a_replica_may_have_any_name(database, pool):
    """As JSON on a terminal, too, where a string could be read as markup."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, lease_owner, lease_expires_at)"
        " VALUES ('ana', 'host[/bold]', now() + interval '1 hour')"
    )
    ours, theirs = pty.openpty()
    settings = {**environment(database), "TERM": "xterm-256color", "LINES": "60"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "refresher", "status", "--json", "--watch"),
        stdout=theirs, stdin=theirs, stderr=theirs, env=settings,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while b'"host[/bold]": 1' not in written:
        written += await asyncio.to_thread(os.read, ours, 65536)
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(read_all, ours)
    assert await process.wait() == 0
