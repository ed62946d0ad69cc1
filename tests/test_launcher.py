"""A forked command does what the same command does in an interpreter of its own."""

import asyncio
import os
import signal

import psutil
import pytest

from tests.conftest import PATIENCE_SECONDS, environment, eventually
from tests.launcher import Forked, into

NOWHERE = "postgresql://u:pass-word-of-the-tests@127.0.0.1:9/d"
ACCOUNTS = b"open_id,access_token\nana,act.one\n"
#: It changes nothing, but only an interpreter's start could tell.
OWN_INTERPRETER = {"PYTHONNODEBUGRANGES": "1"}
BOTH = pytest.mark.parametrize("own", [{}, OWN_INTERPRETER], ids=["forked", "own interpreter"])


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("", 2),
        ("--help", 0),
        ("frolic", 2),
        ("status", 2),
        ("accounts import --dry-run -", 2),
        ("simulate --videos 50 --accounts 2 --days 1 --json", 0),
    ],
)
async def test_exit_code_and_output_are_the_same(launcher, tmp_path, command, code):
    """With the same environment, folder and standard input."""
    (tmp_path / ".env").write_text("REFRESHER_POLL=1\nREFRESHER_LEAD_SECONDS=5400\n")
    forked, own = [
        await launcher.run(
            *command.split(),
            environment={**environment(NOWHERE), **more},
            folder=tmp_path,
            given=ACCOUNTS,
        )
        for more in ({}, OWN_INTERPRETER)
    ]
    assert forked == own
    assert forked[0] == code


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
async def test_a_signal_ends_it(launcher, tmp_path, own, number):
    """A process of our group, in its folder; how it ended is the exit code."""
    output = tmp_path / "output"
    with into(output) as streams:
        process = await launcher.start(
            *("emulator", "--port", "0"),
            environment={**environment(NOWHERE), **own},
            folder=tmp_path,
            streams=streams,
        )

    async def serves():
        return "http://" in output.read_text()

    try:
        await eventually(serves, "an emulator that serves")
        assert isinstance(process, Forked) is (not own)
        assert os.getpgid(process.pid) == os.getpgid(0)
        assert psutil.Process(process.pid).cwd() == str(tmp_path)
        assert process.returncode is None
    finally:
        process.send_signal(number)
        code = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    assert code == process.returncode
    assert code == (0 if number in {signal.SIGTERM, signal.SIGINT} else -number)
    with pytest.raises(ProcessLookupError):
        process.send_signal(number)
