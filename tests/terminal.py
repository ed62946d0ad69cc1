"""A terminal for commands."""

import asyncio
import os
import pty
import re
import sys
from contextlib import suppress

from tests.conftest import environment

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def read_all(terminal):
    """What is written to a terminal. Its writers wait, even to end, while nobody reads."""
    written = b""
    with suppress(OSError):  # this is how Linux says that the last writer has gone
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    return written


async def on_terminal(command, database, *, code=0, **more):
    """What a command writes to a terminal, as it ends with `code`."""
    ours, theirs = pty.openpty()
    settings = {**environment(database), "TERM": "xterm-256color", "COLUMNS": "100", **more}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "refresher", *command.split()),
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=settings,
    )
    os.close(theirs)
    written = await asyncio.to_thread(read_all, ours)
    assert await process.wait() == code
    return written.decode()
