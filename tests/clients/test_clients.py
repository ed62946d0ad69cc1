"""Clients that others have written for TikTok, as published, against the emulator.

They are what the emulator is held to beside the documentation: what works with them does so for
other applications, too. Each is a program of its own (.venv-clients), told only another base URL.
"""

import json
import subprocess
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conftest import PATIENCE_SECONDS, free_port

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-clients/bin/python"
VIDEOS = ["7077642457847994444", "7080217258529737986"]
PAIR = {
    *("access_token", "expires_in", "open_id", "refresh_expires_in"),
    *("refresh_token", "scope", "token_type"),
}


class Program:
    """A client at work: a line in, a line out."""

    def __init__(self, process):
        self._process = process

    def line(self):
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read()
        return line.strip()

    def page(self):
        """The address of the authorization page, once it is printed."""
        while not (line := self.line()).startswith("http://127.0.0.1"):
            pass
        return line

    def told(self):
        """The next line that is JSON."""
        while not (line := self.line()).startswith(("{", "[")):
            pass
        return json.loads(line)

    def tell(self, *words):
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def asked(self, *words):
        self.tell(*words)
        return self.told()


@contextmanager
def running(name, *arguments):
    command = (PYTHON, HERE / f"{name}.py", *arguments)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        too_late = threading.Timer(PATIENCE_SECONDS, process.kill)  # ends a read, too
        too_late.start()
        try:
            yield Program(process)
        finally:
            too_late.cancel()
            process.kill()


@pytest.fixture
def tiktok(tiktok_emulator):
    tiktok_emulator.add_account("ana", scope="video.list", videos=VIDEOS)
    return tiktok_emulator


def requests(tiktok):
    return [(each.kind, each.error_code) for each in tiktok.requests]


def test_tiktok_studio_mcp(tiktok, tmp_path):
    """Consent in a browser with PKCE, its code, a renewal, a query; a dead token is renewed."""
    port, stored = str(free_port()), tmp_path / "credentials.json"
    with running("studio", tiktok.url, port, stored) as client:
        browser_url = f"{client.page()}&{urlencode({'open_id': 'ana'})}"
        with urllib.request.urlopen(
            browser_url, timeout=PATIENCE_SECONDS
        ) as answer:  # follows the redirect to the client
            assert answer.read() == b"Authorization complete. You can close this tab."
        said = client.asked(*VIDEOS)["said"]
        assert all(video_id in said for video_id in VIDEOS)
        tiktok.revoke_access_token("ana")
        assert VIDEOS[0] in client.asked(VIDEOS[0])["said"]
        tiktok.limit(per_token=1)
        assert "rate limit" in client.asked(VIDEOS[0])["failed"]
        tiktok.limit(per_token=0)
        tiktok.revoke("ana")
        assert "failed" in client.asked(VIDEOS[0])
    assert requests(tiktok) == [
        *(("token", "ok"), ("token", "ok"), ("query", "ok")),
        *(("query", "access_token_invalid"), ("token", "ok"), ("query", "ok")),
        *(("query", "rate_limit_exceeded"), ("query", "access_token_invalid")),
        ("token", "invalid_grant"),
    ]
    assert [each.breach for each in tiktok.requests if each.kind == "query"] == [None] * 5


def test_authlib(tiktok):
    """Consent, its code, queries; a token that ends within a minute is renewed before a query."""
    with running("session", tiktok.url) as client:
        client.tell(tiktok.authorize(client.page(), "ana"))
        assert set(client.told()) >= PAIR
        status, answer = client.asked(*VIDEOS)
        assert (status, len(answer["data"]["videos"])) == (200, 2)
        tiktok.lifetimes(access_token_seconds=30)
        tiktok.revoke_access_token("ana")
        assert client.asked(*VIDEOS)[0] == 401  # it knows no reason to renew
    with running("session", tiktok.url) as client:
        client.tell(tiktok.authorize(client.page(), "ana"))
        client.told()
        assert client.asked(*VIDEOS)[0] == 200
        tiktok.revoke("ana")
        assert client.asked(*VIDEOS) == {"failed": "invalid_grant"}
    assert requests(tiktok) == [
        *(("token", "ok"), ("query", "ok"), ("query", "access_token_invalid")),
        *(("token", "ok"), ("token", "ok"), ("query", "ok"), ("token", "invalid_grant")),
    ]


def test_tiktok_api_client(tiktok):
    """Consent, its code, a renewal, a revocation, which it believes only if it is no empty answer."""
    with running("publisher", tiktok.url) as client:
        client.tell(tiktok.authorize(client.page(), "ana"))
        assert client.told().keys() == PAIR
        assert client.told().keys() == PAIR
        assert client.told().keys() <= {"said", "failed"}
    assert requests(tiktok) == [("token", "ok"), ("token", "ok"), ("revoke", "ok")]
