"""The fixture `tiktok_emulator`, as it comes to other people's test suites."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from refresher.emulator.testing import TikTokEmulator, emulated, serving_thread

ROOT = Path(__file__).parents[1]
EXAMPLE = re.search(
    r"```python\n(.+?)^```", (ROOT / "docs/testing.md").read_text(), re.DOTALL | re.MULTILINE
)
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),  # pytest-asyncio warns without it
)
ISOLATED = """\
import pytest
from urllib.request import urlopen

@pytest.mark.parametrize("number", range(12))
def test_nothing_of_another_test_is_there(number, tiktok_emulator):
    assert tiktok_emulator.requests == []
    tiktok_emulator.add_account("ana", videos=[str(number)])
    tiktok_emulator.faults(throttled_share=1)
    with pytest.raises(OSError):
        urlopen(f"{tiktok_emulator.url}/v2/video/query/")
    assert len(tiktok_emulator.requests) == 1
"""
UNUSED = """\
import sys

def test_nothing_is_loaded_for_those_who_do_not_ask():
    ours = {name for name in sys.modules if name.split(".")[0] == "refresher"}
    assert ours == {"refresher", "refresher.emulator", "refresher.emulator.pytest_plugin"}
    assert not {"aiohttp", "msgspec", "asyncpg"} & sys.modules.keys()
"""


def suite_of_others(folder, text, *arguments):
    """Run a test file in a folder of its own, with warnings as errors; what pytest prints."""
    (folder / "test_it.py").write_text(text)
    run = subprocess.run(
        (*PYTEST, *arguments), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_example_of_the_docs_runs_as_it_is_written(tmp_path):
    """All of its tests, in a suite that knows nothing of ours."""
    assert "6 passed" in suite_of_others(tmp_path, EXAMPLE[1])


@pytest.mark.long
def test_the_example_is_typed(tmp_path):
    """A user's mypy sees the fixture's types."""
    (tmp_path / "test_it.py").write_text(EXAMPLE[1])
    run = subprocess.run(
        (sys.executable, "-m", "mypy", tmp_path / "test_it.py"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_test_has_a_world_of_its_own(tmp_path):
    """In one process, and in several side by side."""
    assert "12 passed" in suite_of_others(tmp_path, ISOLATED)
    assert "12 passed" in suite_of_others(tmp_path, ISOLATED, "-n", "3")


def test_who_does_not_use_it_loads_nothing(tmp_path):
    """A daemon's dependencies stay out of test runs beside it."""
    assert "1 passed" in suite_of_others(tmp_path, UNUSED, "-p", "no:randomly", "-p", "no:xdist")


# --- The calls ---


@pytest.fixture
def tiktok():
    """The fixture's object, without pytest."""
    with serving_thread() as loop, emulated(loop) as emulator:
        yield emulator


def ask(tiktok: TikTokEmulator, access_token: str):
    """The status of a query."""
    request = Request(
        f"{tiktok.url}/v2/video/query/?fields=id",
        b'{"filters":{"video_ids":["7"]}}',
        {"Authorization": f"Bearer {access_token}", "Content-Type": "application/json"},
    )
    try:
        with urlopen(request) as answer:
            return answer.status
    except HTTPError as error:
        error.close()
        return error.code


def test_every_call_has_its_effect(tiktok):
    """Tokens, scopes, refusals and faults, one after the other, and each is recorded."""
    ana = tiktok.add_account("ana")
    assert ask(tiktok, ana.access_token) == 200
    tiktok.refuse("ana", "user_account_restricted")
    assert ask(tiktok, ana.access_token) == 403
    tiktok.accept("ana")
    tiktok.set_scope("ana", "user.info.basic")
    assert ask(tiktok, ana.access_token) == 401
    tiktok.set_scope("ana", "video.list")
    tiktok.faults(throttled_share=1)
    assert ask(tiktok, ana.access_token) == 429
    tiktok.faults(throttled_share=0)
    tiktok.revoke_access_token("ana")
    assert ask(tiktok, ana.access_token) == 401
    assert [request.error_code for request in tiktok.requests] == [
        *("ok", "user_account_restricted", "scope_not_authorized"),
        *("rate_limit_exceeded", "access_token_invalid"),
    ]
    assert ana.access_token not in repr([ana, tiktok.requests])


def test_who_denies_is_sent_back_without_a_code(tiktok):
    """To the callback of the application, whatever host its address names."""
    asked = "client_key=key&response_type=code&scope=video.list&redirect_uri=https://app.test/back"
    back = tiktok.deny(f"https://www.tiktok.com/v2/auth/authorize/?{asked}")
    assert back.startswith("https://app.test/back?error=access_denied&")


def test_lifetimes_count_from_the_next_token_on(tiktok):
    """An access token of one second is dead after two."""
    tiktok.lifetimes(access_token_seconds=1, cover_seconds=5)
    ana = tiktok.add_account("ana")
    deadline = time.monotonic() + 30
    while ask(tiktok, ana.access_token) != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda tiktok: tiktok.faults(throttled_share=2), ValueError, "throttled_share"),
        (lambda tiktok: tiktok.faults(throtled_share=1), TypeError, "throtled_share"),
        (lambda tiktok: tiktok.limit(per_token=-1), ValueError, "rate_limit_per_token"),
        (lambda tiktok: tiktok.lifetimes(cover_seconds=0), ValueError, "cover_ttl"),
        (lambda tiktok: tiktok.revoke("zoe"), KeyError, "zoe"),
        (lambda tiktok: tiktok.add_video("zoe", "7"), KeyError, "zoe"),
        (lambda tiktok: tiktok.authorize("https://t.test/?", "ana"), ValueError, "client_key"),
    ],
)
def test_a_wrong_call_is_an_error_in_the_test_that_makes_it(tiktok, call, error, words):
    """And not one of the thread that serves."""
    with pytest.raises(error, match=words):
        call(tiktok)


def test_a_hanging_request_does_not_hold_up_the_end():
    """A test that has left one behind ends like any other."""
    closed = []
    with serving_thread() as loop:
        with emulated(loop) as tiktok:
            tiktok.faults(timeout_share=1)
            ana = tiktok.add_account("ana")
            asking = threading.Thread(target=lambda: closed.append(hang(tiktok, ana.access_token)))
            asking.start()
            deadline = time.monotonic() + 30
            while not tiktok.requests:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        asking.join(timeout=30)
    assert closed == [True]


def hang(tiktok: TikTokEmulator, access_token: str) -> bool:
    """Whether the connection was closed on a query without an answer."""
    try:
        ask(tiktok, access_token)
    except OSError:
        return True
    return False
