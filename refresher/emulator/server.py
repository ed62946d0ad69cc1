"""TikTok as far as this project needs it, over real HTTP, with faults to order.

Built from the endpoint's documentation and from real answers. What neither shows is marked "Not
documented" where it is decided. The emulator and the client share only the constants of the wire
format, so that both cannot hide the same misreading.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

import msgspec
from aiohttp import hdrs, web

from refresher.emulator.answers import Answer, gateway_error, new_log_id, query_error
from refresher.emulator.covers import COVER_JPEG, CoverSigner
from refresher.emulator.faults import Chances
from refresher.emulator.grants import Grant
from refresher.emulator.options import EmulatorOptions, Silence
from refresher.emulator.query_endpoint import QueryEndpoint
from refresher.emulator.record import (
    RECORD_LENGTH,
    RECORD_PATH,
    Arrival,
    TokenArrival,
    token_digest,
)
from refresher.emulator.requests import Query, bearer, read_form, read_query
from refresher.emulator.token_endpoint import TokenEndpoint
from refresher.emulator.world import World
from refresher.tiktok.wire import QUERY_PATH, TOKEN_PATH


class Emulator(World):
    """The emulated world, the record of what was asked of it, and the server of both.

    `options` may be replaced while it serves. `clock` is Unix time and decides every expiry and
    the rate-limit windows. What is left to chance follows from the seed, except tokens and log IDs.
    """

    def __init__(
        self, options: EmulatorOptions | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(options or EmulatorOptions(), clock)
        self.answer_with: Callable[[Query], web.Response | Silence | None] | None = None
        """Asked first, before any check or limit: a new response, a silence, or None to go on."""
        self.answer_token_with: Callable[[Mapping[str, str]], web.Response | None] | None = None
        """The same for token requests; it gets the form."""
        self.down: Literal["failed"] | Silence | None = None
        """While set, every query and token request gets a 503 page, or no answer at all.

        This comes before anything else, the two above included: nothing counts or is renewed.
        """
        self.record: deque[Arrival] = deque(maxlen=RECORD_LENGTH)
        self.token_record: deque[TokenArrival] = deque(maxlen=RECORD_LENGTH)
        seed = self.options.seed
        self._chances = Chances(seed)
        self._covers = CoverSigner(hashlib.sha256(f"covers {seed}".encode()).digest())
        self.query_endpoint = QueryEndpoint(self, self._chances, self._covers)
        self.token_endpoint = TokenEndpoint(self, self._chances)

    def application(self) -> web.Application:
        """The whole emulator to be run in a server; see `serving` for one.

        Run it with `handler_cancellation=True`, or requests that are never answered outlive
        their client until the application shuts down.
        """
        app = web.Application()
        app[_STOPPING] = asyncio.Event()
        app.on_shutdown.append(_stop)
        for path in (QUERY_PATH, QUERY_PATH.rstrip("/")):
            app.router.add_route(hdrs.METH_ANY, path, self._serve_query)
        app.router.add_post(TOKEN_PATH, self._serve_token)
        app.router.add_route(hdrs.METH_ANY, "/v2/{rest:.*}", self._serve_no_path)
        app.router.add_get(RECORD_PATH, self._serve_record)
        app.router.add_get("/tos-{cover:.+}", self._serve_cover)
        return app

    @asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve and yield the base URL; port 0 takes a free one. Leaving waits for no client."""
        runner = web.AppRunner(
            self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            bound = runner.addresses[0][1]
            yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        finally:
            await runner.cleanup()

    async def _serve_query(self, request: web.Request) -> web.Response:
        body = await request.read()
        # Judged and recorded without an await in between: the record is in order of arrival.
        at = time.monotonic()
        grant = self.access_tokens.get(bearer(request))
        query = read_query(request, body, grant)
        answer = self._answer_query(request, query, grant)
        self.record.append(
            Arrival(at, query.open_id, query.video_ids, answer.status, answer.code, query.breach)
        )
        await _wait(request, self.options.latency_seconds + self._slowness())
        return await _send(request, answer)

    def _answer_query(self, request: web.Request, query: Query, grant: Grant | None) -> Answer:
        now = self.clock()
        log_id = new_log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_with(query) if self.answer_with else None
        if scripted is not None:
            return Answer("scripted", scripted)
        return self.query_endpoint.answer(request, query, grant, log_id, now)

    def _slowness(self) -> float:
        is_slow = self._chances.slow.random() < self.options.slow_share
        return self.options.slow_seconds if is_slow else 0

    async def _serve_token(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        digest = token_digest(form.get("refresh_token", ""))
        owner, used_before = self.origins.owner(digest), self.origins.used(digest)
        answer = self._answer_token(form)
        arrival = TokenArrival(
            time.monotonic(), owner, answer.status, answer.code, digest, used_before
        )
        self.token_record.append(arrival)
        await _wait(request, self.options.latency_seconds)
        arrival.answered = answer.is_whole and not _is_gone(request)
        return await _send(request, answer)

    def _answer_token(self, form: Mapping[str, str]) -> Answer:
        now = self.clock()
        log_id = new_log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_token_with(form) if self.answer_token_with else None
        if scripted is not None:
            return Answer("scripted", scripted)
        return self.token_endpoint.answer(form, log_id, now)

    async def _serve_no_path(self, request: web.Request) -> web.Response:
        """Any other path beside the endpoints, and the token endpoint for another method."""
        log_id = new_log_id(self.clock())
        answer = self._downtime(log_id) or query_error("unsupported_path", log_id)
        return await _send(request, answer)

    def _downtime(self, log_id: str) -> Answer | None:
        match self.down:
            case None:
                return None
            case "failed":
                return gateway_error("down", log_id, 503)
            case silence:
                return Answer("down", silence)

    async def _serve_cover(self, request: web.Request) -> web.Response:
        early_seconds = self.options.covers_die_early_seconds
        if not self._covers.serves(request.raw_path, self.clock(), early_seconds):
            return web.Response(status=403, text="Forbidden")
        return web.Response(body=COVER_JPEG, content_type="image/jpeg")

    async def _serve_record(self, _: web.Request) -> web.Response:
        body = msgspec.json.encode(list(self.record))
        return web.Response(body=body, content_type="application/json")


_STOPPING: Final = web.AppKey("stopping", asyncio.Event)


async def _stop(app: web.Application) -> None:
    app[_STOPPING].set()


async def _wait(request: web.Request, seconds: float) -> None:
    """Until then or until the server stops; cancelled where the client goes away."""
    if seconds:
        with suppress(TimeoutError):
            await asyncio.wait_for(request.app[_STOPPING].wait(), seconds)


async def _send(request: web.Request, answer: Answer) -> web.Response:
    if isinstance(answer.response, web.Response):
        return answer.response
    if answer.response == "hang":
        await request.app[_STOPPING].wait()
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
