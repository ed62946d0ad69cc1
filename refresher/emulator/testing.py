"""The emulator for the tests of others: served by a thread, used by plain calls.

The calls work in synchronous and in asynchronous tests alike: each is carried out by the thread
that serves, and waits for it. docs/testing.md shows the pytest fixture.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypedDict, TypeVar, Unpack
from urllib.parse import parse_qsl, urlsplit

from refresher.emulator.authorization import denied, read_authorization
from refresher.emulator.options import DEFAULT_SCOPE, EmulatorOptions
from refresher.emulator.record import AnyArrival
from refresher.emulator.server import Emulator
from refresher.emulator.world import new_pair

Result = TypeVar("Result")


class Tokens(NamedTuple):
    """What an application stores of a user."""

    open_id: str
    access_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return f"Tokens(open_id={self.open_id!r})"


class Faults(TypedDict, total=False):
    """Parts of 1 of the otherwise good requests, and delays; see `EmulatorOptions`."""

    throttled_share: float
    failed_share: float
    timeout_share: float
    malformed_share: float
    slow_share: float
    slow_seconds: float
    latency_seconds: float
    missing_share: float
    token_failed_share: float
    token_timeout_share: float
    token_cut_share: float
    token_malformed_share: float


class TikTokEmulator:
    """One emulated TikTok with nothing in it: no account, no fault, no request."""

    def __init__(self, emulator: Emulator, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop
        #: What an application takes for https://open.tiktokapis.com and https://www.tiktok.com.
        self.url = url

    def add_account(
        self, open_id: str, *, scope: str = DEFAULT_SCOPE, videos: Iterable[str] = ()
    ) -> Tokens:
        """A user who has authorized the app. Again for a known one: authorized anew."""
        return self._in_thread(lambda: self._add_account(open_id, scope, videos))

    def add_video(self, open_id: str, video_id: str) -> None:
        """Publish a video, or publish it again. Idempotent; KeyError for an unknown account."""
        self._in_thread(lambda: self._emulator.add_video(open_id, video_id))

    def remove_video(self, open_id: str, video_id: str) -> None:
        """Delete it or make it private: answers leave it out. Idempotent."""
        self._in_thread(lambda: self._emulator.remove_video(open_id, video_id))

    def authorize(self, authorization_url: str, open_id: str) -> str:
        """Where the browser of a user who agrees is sent: the callback with its code.

        `authorization_url` is what the application sends the user to, on whatever host. ValueError
        for one that TikTok would refuse, and for an unknown account.
        """
        return self._in_thread(lambda: self._callback(authorization_url, open_id))

    def deny(self, authorization_url: str) -> str:
        """Where the browser of a user who does not agree is sent. ValueError as above."""
        return self._in_thread(lambda: self._callback(authorization_url, None))

    def revoke(self, open_id: str) -> None:
        """The user disconnects the app: its tokens die. KeyError for an unknown account."""
        self._in_thread(lambda: self._emulator.end_consent(open_id))

    def revoke_access_token(self, open_id: str) -> None:
        """Access tokens die, refresh tokens go on working."""
        self._in_thread(lambda: self._emulator.revoke_access_token(open_id))

    def set_scope(self, open_id: str, scope: str) -> None:
        """What the user agrees to from now on, separated by commas."""
        self._in_thread(lambda: self._emulator.set_scope(open_id, scope))

    def refuse(self, open_id: str, code: str, http_status: int = 403) -> None:
        """Refuse all queries of one user with an error code, until `accept`."""
        self._in_thread(lambda: self._emulator.refuse_account(open_id, code, http_status))

    def accept(self, open_id: str) -> None:
        """The end of `refuse`."""
        self._in_thread(lambda: self._emulator.accept_account(open_id))

    def faults(self, **changes: Unpack[Faults]) -> None:
        """From now on; others stay as they are. ValueError for an impossible share."""
        self._change(**changes)

    def limit(self, *, per_token: int | None = None, per_app: int | None = None) -> None:
        """Queries in any 60 s; 0: no limit, None: as it was. At first 600 and none."""
        asked = {"rate_limit_per_token": per_token, "rate_limit_per_app": per_app}
        self._change(**{name: limit for name, limit in asked.items() if limit is not None})

    def lifetimes(
        self, *, cover_seconds: int | None = None, access_token_seconds: int | None = None
    ) -> None:
        """Of covers and access tokens that are given out from now on. At first 6 h and 2 h."""
        asked = {"cover_ttl": cover_seconds, "access_token_ttl_seconds": access_token_seconds}
        self._change(**{name: seconds for name, seconds in asked.items() if seconds is not None})

    @property
    def requests(self) -> list[AnyArrival]:
        """What was asked so far, in order: `kind` is query, token or revoke. No token is in it."""
        return self._in_thread(self._emulator.arrivals)

    def _add_account(self, open_id: str, scope: str, videos: Iterable[str]) -> Tokens:
        access_token, refresh_token = new_pair()
        self._emulator.add_account(
            open_id,
            access_token,
            access_token_expires_at=self._emulator.clock()
            + self._emulator.options.access_token_ttl_seconds,
            refresh_token=refresh_token,
            scope=scope,
        )
        for video_id in videos:
            self._emulator.add_video(open_id, video_id)
        return Tokens(open_id, access_token, refresh_token)

    def _callback(self, authorization_url: str, open_id: str | None) -> str:
        query = dict(parse_qsl(urlsplit(authorization_url).query))
        request = read_authorization(query, self._emulator.options.client_key)
        if open_id is None:
            return denied(request)
        return self._emulator.authorization_page.agreed(request, open_id)

    def _change(self, **changes: object) -> None:
        self._in_thread(lambda: self._set_options(changes))

    def _set_options(self, changes: dict[str, object]) -> None:
        self._emulator.options = dataclasses.replace(self._emulator.options, **changes)  # type: ignore[arg-type]

    def _in_thread(self, act: Callable[[], Result]) -> Result:
        async def acted() -> Result:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result()


@contextmanager
def serving_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """A thread whose event loop runs until the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="emulated TikTok", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def emulated(
    loop: asyncio.AbstractEventLoop, options: EmulatorOptions | None = None
) -> Iterator[TikTokEmulator]:
    """An emulator of its own, served at a free port by the thread of that loop."""
    emulator = Emulator(options)
    serving = emulator.serving()
    url = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result()
    try:
        yield TikTokEmulator(emulator, url, loop)
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result()
