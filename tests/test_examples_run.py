"""The example in each command's help runs as written."""

import shlex

import pytest
import typer.main

from refresher.cli import app
from tests.unit.test_examples import example_of
from tests.unit.test_reference import commands

#: A key of the Fernet kind.
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
#: Those that cannot run here, and where they run instead.
ELSEWHERE = {
    "run": "for ever: tests/test_daemon.py",
    "demo": "longer than a test may: tests/test_cli.py",
    "emulator": "for ever: tests/test_emulator.py",
    "simulate": "longer than a test may: tests/test_simulation_command.py",
    "doctor": "beside a daemon: tests/test_doctor.py",
    "healthcheck": "beside a daemon: tests/test_healthcheck.py",
}
EXAMPLES = {
    name: example_of(command)
    for name, command in commands(typer.main.get_command(app))
    if name not in ELSEWHERE
}


@pytest.fixture
def files(tmp_path):
    """What the examples read, in the folder in which they run."""
    (tmp_path / "accounts.csv").write_text("open_id,access_token\n-000abc,act.one\n")
    (tmp_path / "videos.csv").write_text("open_id,video_id\n-000abc,7077642457847994444\n")


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_example_of_a_command_runs(refresher, serve, files, name):
    """Exit 0, against a database with the account and the video that it names."""
    world = await serve()
    world.emulator.add_account("-000abc", "act.one")
    world.emulator.add_video("-000abc", "7077642457847994444")
    settings = {"tiktok_base_url": world.base_url, "token_keys": KEY}
    for kind in ("accounts", "videos"):
        assert (await refresher(kind, "import", f"{kind}.csv", **settings))[0] == 0
    code, _, err = await refresher(*shlex.split(EXAMPLES[name][1])[1:], **settings)
    assert (code, err) == (0, "")
