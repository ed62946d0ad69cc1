"""TikTok as far as this project needs it, over real HTTP, with faults to order.

Built from the endpoint's documentation and from real answers. What neither shows is marked "Not
documented" where it is decided. The emulator and the client share only the constants of the wire
format, so that both cannot hide the same misreading.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

from aiohttp import hdrs, web

from refresher.emulator.answers import Answer, gateway_error, new_log_id, query_error
from refresher.emulator.authorization import AUTHORIZE_PATH, AuthorizationPage
from refresher.emulator.covers import COVER_JPEG, CoverSigner
from refresher.emulator.faults import Chances
from refresher.emulator.grants import Grant
from refresher.emulator.oauth import OAuth
from refresher.emulator.options import EmulatorOptions, Silence
from refresher.emulator.query_endpoint import QueryEndpoint
from refresher.emulator.record import (
    AnyArrival,
    Arrival,
    Arrivals,
    RevokeArrival,
    TokenArrival,
    token_digest,
)
from refresher.emulator.requests import Query, bearer, read_form, read_query
from refresher.emulator.revoke_endpoint import RevokeEndpoint
from refresher.emulator.token_endpoint import TokenEndpoint
from refresher.emulator.world import World
from refresher.tiktok.wire import QUERY_PATH, REVOKE_PATH, TOKEN_PATH


class Emulator(World):
    """The emulated world, the record of what was asked of it, and the server of both.

    `options` may be replaced while it serves. `clock` is Unix time and decides every expiry and
    the rate-limit windows. What is left to chance follows from the seed, except tokens and log IDs.
    """

    def __init__(
        self, options: EmulatorOptions | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._first_options = options or EmulatorOptions()
        super().__init__(self._first_options, clock)
        self.answer_with: Callable[[Query], web.Response | Silence | None] | None = None
        """Asked first, before any check or limit: a new response, a silence, or None to go on."""
        self.answer_token_with: Callable[[Mapping[str, str]], web.Response | None] | None = None
        """The same for token requests; it gets the form."""
        self.down: Literal["failed"] | Silence | None = None
        """While set, every query and token request gets a 503 page, or no answer at all.

        This comes before anything else, the two above included: nothing counts or is renewed.
        """
        self._covers = CoverSigner(
            hashlib.sha256(f"covers {self._first_options.seed}".encode()).digest()
        )
        self._begin_serving()

    def _begin_serving(self) -> None:
        """Nothing has been asked, and chance starts from the seed."""
        self.record: Arrivals[Arrival] = Arrivals()
        self.token_record: Arrivals[TokenArrival] = Arrivals()
        self.revoke_record: Arrivals[RevokeArrival] = Arrivals()
        self._chances = Chances(self._first_options.seed)
        oauth = OAuth(self, self._chances)
        self.query_endpoint = QueryEndpoint(self, self._chances, self._covers)
        self.token_endpoint = TokenEndpoint(self, oauth)
        self.revoke_endpoint = RevokeEndpoint(self, oauth)
        self.authorization_page = AuthorizationPage(self)

    def begin_again(self) -> None:
        """Forget accounts, tokens, record and changed options. Covers given out stay valid."""
        self.options = self._first_options
        self._begin()
        self._begin_serving()

    def arrivals(self) -> list[AnyArrival]:
        """All that is in the three records, in order of arrival."""
        every: list[AnyArrival] = [*self.record, *self.token_record, *self.revoke_record]
        return sorted(every, key=lambda arrival: arrival.at)

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
        app.router.add_post(REVOKE_PATH, self._serve_revoke)
        app.router.add_get(AUTHORIZE_PATH, self._serve_authorization)
        app.router.add_route(hdrs.METH_ANY, "/v2/{rest:.*}", self._serve_no_path)
        app.router.add_get("/tos-{cover:.+}", self._serve_cover)
        return app

    @asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", port: int = 0, routes: Iterable[web.RouteDef] = ()
    ) -> AsyncIterator[str]:
        """Serve and yield the base URL; port 0 takes a free one. Leaving waits for no client.

        `routes` are served beside TikTok's.
        """
        app = self.application()
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
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
        owner, used_before = self._asker(form, digest), self.origins.used(digest)
        answer = self._answer_token(form)
        arrival = TokenArrival(
            time.monotonic(), owner, answer.status, answer.code, digest, used_before
        )
        self.token_record.append(arrival)
        await _wait(request, self.options.latency_seconds)
        arrival.answered = answer.is_whole and not _is_gone(request)
        return await _send(request, answer)

    def _asker(self, form: Mapping[str, str], digest: str) -> str | None:
        consent = self.consents.get(form.get("code", ""))
        return consent.open_id if consent else self.origins.owner(digest)

    def _answer_token(self, form: Mapping[str, str]) -> Answer:
        now = self.clock()
        log_id = new_log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_token_with(form) if self.answer_token_with else None
        if scripted is not None:
            return Answer("scripted", scripted)
        return self.token_endpoint.answer(form, log_id, now)

    async def _serve_revoke(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        at, now = time.monotonic(), self.clock()
        grant = self.access_tokens.get(form.get("token", ""))
        log_id = new_log_id(now)
        answer = self._downtime(log_id) or self.revoke_endpoint.answer(form, log_id, now)
        open_id = grant.account.open_id if grant else None
        self.revoke_record.append(RevokeArrival(at, open_id, answer.status, answer.code))
        await _wait(request, self.options.latency_seconds)
        return await _send(request, answer)

    async def _serve_authorization(self, request: web.Request) -> web.Response:
        if down := self._downtime(new_log_id(self.clock())):
            return await _send(request, down)
        return self.authorization_page.answer(request.query)

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
