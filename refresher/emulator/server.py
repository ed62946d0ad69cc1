"""TikTok as far as this project needs it, over real HTTP, with faults to order.

Built from the endpoint's documentation and from real answers. What neither backs is marked
"Not documented" where it is decided. Shares only the wire module's constants with the client,
so a misreading on one side cannot hide behind the same one on the other.
"""

import asyncio
import hashlib
import math
import random
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal, assert_never

import msgspec
from aiohttp import hdrs, web

from refresher.emulator.answers import (
    NO_HEADERS,
    Answer,
    envelope,
    gateway_error,
    new_log_id,
    page,
    query_error,
    reply,
    token_error,
)
from refresher.emulator.covers import COVER_JPEG, CoverSigner
from refresher.emulator.options import (
    DAY_SECONDS,
    DEFAULT_SCOPE,
    HOUR_SECONDS,
    REFRESH_TOKEN_TTL_SECONDS,
    AnyFault,
    EmulatorOptions,
    Silence,
)
from refresher.emulator.record import (
    RECORD_LENGTH,
    RECORD_PATH,
    Arrival,
    TokenArrival,
    token_digest,
)
from refresher.emulator.requests import TOKEN_FORM, Query, bearer, read_form, read_query
from refresher.emulator.videos import FACTS, Video, video_of
from refresher.emulator.world import Account, Grant, Origins, SlidingWindow, Tokens
from refresher.tiktok.wire import QUERY_PATH, TOKEN_PATH


class Emulator:
    """The emulated world, the record of what was asked of it, and the server of both.

    `options` may be replaced while it serves. `clock` is Unix time and decides every expiry and
    the rate-limit windows. What is left to chance follows from the seed, except tokens and log IDs.
    """

    def __init__(
        self, options: EmulatorOptions | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.options = options or EmulatorOptions()
        self.answer_with: Callable[[Query], web.Response | Silence | None] | None = None
        """Asked first, before any check or limit: a new response, a silence, or None to go on."""
        self.answer_token_with: Callable[[Mapping[str, str]], web.Response | None] | None = None
        """The same for token requests; it gets the form."""
        self.down: Literal["failed"] | Silence | None = None
        """While set, every query and token request gets a 503 page, or no answer at all.

        Before anything else is looked at, the two above included: nothing counts or is renewed.
        """
        self.record: deque[Arrival] = deque(maxlen=RECORD_LENGTH)
        self.token_record: deque[TokenArrival] = deque(maxlen=RECORD_LENGTH)
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._access_tokens = Tokens()
        self._refresh_tokens = Tokens()
        self._origins = Origins()
        self._refused: set[str] = set()
        self._app_window = SlidingWindow()
        seed = self.options.seed
        # Apart from each other, so that the number of IDs asked for does not move the faults.
        self._fault_chance = random.Random(f"faults {seed}")  # noqa: S311 - to be repeatable
        self._token_chance = random.Random(f"token faults {seed}")  # noqa: S311 - to be repeatable
        self._slow_chance = random.Random(f"slow {seed}")  # noqa: S311 - to be repeatable
        self._chance = random.Random(f"all else {seed}")  # noqa: S311 - to be repeatable
        self._covers = CoverSigner(hashlib.sha256(f"covers {seed}".encode()).digest())

    # --- The world ---

    def add_account(
        self,
        open_id: str,
        access_token: str,
        *,
        access_token_expires_at: float | None = None,
        refresh_token: str | None = None,
        refresh_token_expires_at: float | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> None:
        """Let a user authorize the app; times are Unix times.

        Again for a known open_id is a new authorization: its videos stay, its tokens so far die.
        An access token without expiry lives until revoked, a refresh token for 180 days.
        """
        account = self._accounts.setdefault(open_id, Account(open_id, scope, set()))
        account.scope = scope
        self._access_tokens.drop_all(open_id)
        self._refresh_tokens.drop_all(open_id)
        expires_at = math.inf if access_token_expires_at is None else access_token_expires_at
        self._access_tokens.add(access_token, account, expires_at)
        if refresh_token is not None:
            if refresh_token_expires_at is None:
                refresh_token_expires_at = self._clock() + REFRESH_TOKEN_TTL_SECONDS
            self._give(refresh_token, account, refresh_token_expires_at)

    def _give(self, refresh_token: str, account: Account, expires_at: float) -> None:
        self._refresh_tokens.add(refresh_token, account, expires_at)
        self._origins.add(refresh_token, account.open_id)

    def add_video(self, open_id: str, video_id: str) -> None:
        """Idempotent; KeyError for an account that was never added."""
        self._accounts[open_id].videos.add(sys.intern(video_id))

    def remove_video(self, open_id: str, video_id: str) -> None:
        """As if deleted or made private: left out from now on. Idempotent."""
        self._accounts[open_id].videos.discard(video_id)

    def revoke_access_token(self, open_id: str) -> None:
        """Every access token of the account dies at once; its refresh token goes on working."""
        self._access_tokens.drop_all(open_id)

    def revoke_refresh_token(self, open_id: str) -> None:
        """The user takes the consent back: every refresh token of the account dies at once.

        Not documented: that its access tokens go on working; `revoke_access_token` ends them.
        """
        self._refresh_tokens.drop_all(open_id)

    def holds_access_token(self, open_id: str, token: str) -> bool:
        """Whether the token is alive now and that account's."""
        return self._access_tokens.holds(open_id, token, self._clock())

    def holds_refresh_token(self, open_id: str, token: str) -> bool:
        """Whether the token is alive now and that account's."""
        return self._refresh_tokens.holds(open_id, token, self._clock())

    def set_scope(self, open_id: str, scope: str) -> None:
        """What the user agrees to from now on, with all tokens; KeyError for no account."""
        self._accounts[open_id].scope = scope

    def refuse_video(self, video_id: str) -> None:
        """Answer every query that contains this ID with invalid_params as a whole. Idempotent.

        Not documented: that any ID does so; TikTok says nothing about which it was, either.
        """
        self._refused.add(video_id)

    def accept_video(self, video_id: str) -> None:
        """The end of `refuse_video`. Idempotent."""
        self._refused.discard(video_id)

    # --- Serving ---

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
        grant = self._access_tokens.get(bearer(request))
        query = read_query(request, body, grant)
        answer = self._answer(request, query, grant)
        self.record.append(
            Arrival(at, query.open_id, query.video_ids, answer.status, answer.code, query.breach)
        )
        await _wait(request, self.options.latency_seconds + self._slowness())
        return await _send(request, answer)

    async def _serve_no_path(self, request: web.Request) -> web.Response:
        """Whatever else lies beside the endpoints, and the token endpoint for another method."""
        log_id = new_log_id(self._clock())
        answer = self._downtime(log_id) or query_error("unsupported_path", log_id)
        return await _send(request, answer)

    def _slowness(self) -> float:
        is_slow = self._slow_chance.random() < self.options.slow_share
        return self.options.slow_seconds if is_slow else 0

    def _downtime(self, log_id: str) -> Answer | None:
        match self.down:
            case None:
                return None
            case "failed":
                return gateway_error("down", log_id, 503)
            case silence:
                return Answer("down", silence)

    # --- Query ---

    def _answer(self, request: web.Request, query: Query, grant: Grant | None) -> Answer:
        now = self._clock()
        log_id = new_log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_with(query) if self.answer_with else None
        if scripted is not None:
            return Answer("scripted", scripted)
        return self._judged(request, query, grant, log_id, now)

    def _judged(
        self, request: web.Request, query: Query, grant: Grant | None, log_id: str, now: float
    ) -> Answer:
        if query.method != hdrs.METH_POST or request.path != QUERY_PATH:
            return query_error("unsupported_path", log_id)
        if grant is None or grant.expires_at <= now:
            return query_error("access_token_invalid", log_id)
        if refusal := self._refusal(query, grant, now):
            if refusal == "rate_limit_exceeded":
                return self._throttled(log_id)
            message = query.breach if refusal == "invalid_params" else None
            return query_error(refusal, log_id, message=message)
        videos = self._videos(request, query, grant.account, now)
        return self._disturbed(envelope(videos, log_id), log_id)

    def _refusal(self, query: Query, grant: Grant, now: float) -> str | None:
        """The error code for a good token, if any.

        Not documented: that the scope is looked at before the rate limit and both before the
        parameters.
        """
        if "video.list" not in grant.account.scope.split(","):
            return "scope_not_authorized"
        if not self._admit(grant, now):
            return "rate_limit_exceeded"
        is_refused = query.breach or not self._refused.isdisjoint(query.video_ids)
        return "invalid_params" if is_refused else None

    def _throttled(self, log_id: str) -> Answer:
        seconds = self.options.retry_after_seconds
        headers = NO_HEADERS if seconds is None else {"Retry-After": str(seconds)}
        return query_error("rate_limit_exceeded", log_id, headers=headers)

    def _admit(self, grant: Grant, now: float) -> bool:
        """Whether both windows have room for one more, which then counts in both.

        Not documented: that a refused request does not count, and that a new access token starts
        with an empty window.
        """
        limits = (
            (grant.window, self.options.rate_limit_per_token),
            (self._app_window, self.options.rate_limit_per_app),
        )
        if not all(window.has_room(now, limit) for window, limit in limits):
            return False
        for window, _ in limits:
            window.add(now)
        return True

    def _videos(
        self, request: web.Request, query: Query, account: Account, now: float
    ) -> list[dict[str, str | int]]:
        """The account's videos among those asked for; two or more never in that order."""
        base_url = self.options.public_url or f"{request.scheme}://{request.host}"
        expires_at = self._cover_expiry(now)
        found = self._present(query.video_ids, account)
        return [
            {
                name: self._covers.url(base_url, video, expires_at)
                if name == "cover_image_url"
                else FACTS[name](video)
                for name in query.fields
            }
            for video in self._shuffled(found)
        ]

    def _present(self, video_ids: Iterable[str], account: Account) -> list[Video]:
        videos = (video_of(video_id) for video_id in video_ids if video_id in account.videos)
        return [video for video in videos if video.missing_rank >= self.options.missing_share]

    def _shuffled(self, videos: list[Video]) -> list[Video]:
        shuffled = videos.copy()
        self._chance.shuffle(shuffled)
        return shuffled if shuffled != videos else videos[::-1]

    def _cover_expiry(self, now: float) -> int:
        ttl = self.options.cover_ttl
        if ttl == "hourly":
            return int(now) // HOUR_SECONDS * HOUR_SECONDS + DAY_SECONDS
        return int(now) + ttl

    # --- Faults ---

    def _disturbed(self, body: bytes, log_id: str) -> Answer:
        """The good answer, or what chance makes of it. By then it has counted in the windows."""
        fault = _drawn(self._fault_chance, self.options.faults)
        match fault:
            case None:
                return Answer("ok", reply(body, log_id))
            case "throttled":
                return self._throttled(log_id)
            case "failed":
                return self._failure(log_id)
            case "timeout":
                return Answer("no_answer", "hang")
            case "malformed":
                garbled = self._fault_chance.choice((body[: len(body) // 2], page(502)))
                return Answer("malformed", reply(garbled, log_id))
            case _:
                assert_never(fault)

    def _failure(self, log_id: str) -> Answer:
        if self._fault_chance.random() < 1 / 2:
            return query_error("internal_error", log_id)
        return gateway_error("internal_error", log_id, 502)

    # --- Covers and record ---

    async def _serve_cover(self, request: web.Request) -> web.Response:
        if not self._covers.serves(request.raw_path, self._clock()):
            return web.Response(status=403, text="Forbidden")
        return web.Response(body=COVER_JPEG, content_type="image/jpeg")

    async def _serve_record(self, _: web.Request) -> web.Response:
        body = msgspec.json.encode(list(self.record))
        return web.Response(body=body, content_type="application/json")

    # --- Tokens ---

    async def _serve_token(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        digest = token_digest(form.get("refresh_token", ""))
        owner, used_before = self._origins.owner(digest), self._origins.used(digest)
        answer = self._answer_token(form)
        arrival = TokenArrival(
            time.monotonic(), owner, answer.status, answer.code, digest, used_before
        )
        self.token_record.append(arrival)
        await _wait(request, self.options.latency_seconds)
        arrival.answered = answer.is_whole and not _is_gone(request)
        return await _send(request, answer)

    def _answer_token(self, form: Mapping[str, str]) -> Answer:
        now = self._clock()
        log_id = new_log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_token_with(form) if self.answer_token_with else None
        if scripted is not None:
            return Answer("scripted", scripted)
        token = form.get("refresh_token", "")
        grant = self._refresh_tokens.get(token)
        error_code = self._token_error(form, grant, now)
        if grant is None or error_code is not None:
            return self._token_refusal(error_code or "invalid_grant", log_id)
        return self._renewal(token, grant, log_id, now)

    def _renewal(self, token: str, grant: Grant, log_id: str, now: float) -> Answer:
        """The new pair, or what chance makes of it: only a failure leaves the old one as it is."""
        fault = _drawn(self._token_chance, self.options.token_faults)
        if fault == "failed":
            return self._token_failure(log_id)
        body = msgspec.json.encode(self._renewed(token, grant, now))
        match fault:
            case None:
                return Answer("ok", reply(body, log_id))
            case "timeout":
                return Answer("no_answer", "hang")
            case "cut":
                return Answer("cut", "cut")
            case "malformed":
                return Answer("malformed", reply(body[: len(body) // 2], log_id))
            case _:
                assert_never(fault)

    def _token_failure(self, log_id: str) -> Answer:
        """Not documented: the status that comes with either code."""
        code = self._token_chance.choice(("server_error", "temporarily_unavailable", None))
        if code is None:
            return gateway_error("server_error", log_id, self._token_chance.choice((502, 503)))
        return token_error(code, log_id, self._token_chance.choice((200, 500, 503)))

    def _token_error(self, form: Mapping[str, str], grant: Grant | None, now: float) -> str | None:
        """Not documented: which of several errors comes first."""
        if not all(form.get(name) for name in TOKEN_FORM):
            return "invalid_request"
        if form["grant_type"] != "refresh_token":
            return "unsupported_grant_type"
        if not self._knows_client(form):
            return "invalid_client"
        return "invalid_grant" if grant is None or grant.expires_at <= now else None

    def _knows_client(self, form: Mapping[str, str]) -> bool:
        return self.options.client_key in (
            None,
            form["client_key"],
        ) and self.options.client_secret in (None, form["client_secret"])

    def _token_refusal(self, code: str, log_id: str) -> Answer:
        """Not documented: the status. 200 has been seen, so half of the errors come with it."""
        return token_error(code, log_id, self._chance.choice((200, 400)))

    def _renewed(self, used: str, grant: Grant, now: float) -> dict[str, str | int]:
        """A new pair of tokens; the consent ends when it would have ended anyway."""
        account, lifetime = grant.account, self.options.access_token_ttl_seconds
        all_die = self.options.old_access_tokens == "die"
        self._access_tokens.drop_all(account.open_id, expired_by=math.inf if all_die else now)
        self._origins.use(used)
        if self.options.refresh_token_rotation == "strict":  # noqa: S105 - a mode
            self._refresh_tokens.drop(used)
        # Not from the seed: two emulators must not give the same token to different accounts.
        access, refresh = f"act.{secrets.token_hex(20)}", f"rft.{secrets.token_hex(20)}"
        self._access_tokens.add(access, account, now + lifetime)
        self._give(refresh, account, grant.expires_at)
        return {
            "access_token": access,
            "expires_in": lifetime,
            "open_id": account.open_id,
            "refresh_expires_in": int(grant.expires_at - now),
            "refresh_token": refresh,
            "scope": account.scope,
            "token_type": "Bearer",
        }


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


def _drawn(chance: random.Random, faults: Iterable[tuple[AnyFault, float]]) -> AnyFault | None:
    """One draw a request, so that the shares add up and never overlap."""
    draw = chance.random()
    for fault, share in faults:
        if draw < share:
            return fault
        draw -= share
    return None
