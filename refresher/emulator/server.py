"""TikTok as far as this project needs it, over real HTTP, with faults to order.

Built from the endpoint's documentation and from real answers. What neither backs is marked
"Not documented" where it is decided. Shares only the wire module's constants with the client,
so a misreading on one side cannot hide behind the same one on the other.
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import math
import random
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal, NamedTuple, TypeVar, assert_never
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from refresher.tiktok.wire import (
    LOG_ID_HEADER,
    MAX_VIDEO_IDS,
    QUERY_PATH,
    TOKEN_PATH,
    VIDEO_FIELDS,
)

RECORD_PATH: Final = "/emulator/record"

# A run of days must not fill the memory; it is five hours of one token's limit.
RECORD_LENGTH: Final = 200_000

WINDOW_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 24 * HOUR_SECONDS
REFRESH_TOKEN_TTL_SECONDS: Final = 180 * DAY_SECONDS
DEFAULT_SCOPE: Final = "user.info.basic,video.list"

Fault = Literal["throttled", "failed", "timeout", "malformed"]
TokenFault = Literal["failed", "timeout", "cut", "malformed"]
AnyFault = TypeVar("AnyFault", Fault, TokenFault)

Silence = Literal["hang", "cut"]
"""No answer: nothing at all until the client goes away, or the connection is closed at once."""

# Every cover is this one: 3 by 4 pixels of grey.
COVER_JPEG: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4"
    "UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAAEAAMBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAA"
    "AAAAAAAAAAD/2gAIAQEAAD8AN//Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """How the emulated TikTok behaves.

    Shares are parts of 1 of the otherwise good queries, or token requests where they say so.
    """

    cover_ttl: int | Literal["hourly"] = 21600
    """Seconds, or `hourly`: the time of the answer rounded down to the hour, plus a day."""
    access_token_ttl_seconds: int = 2 * HOUR_SECONDS
    refresh_token_rotation: Literal["strict", "lenient"] = "strict"  # noqa: S105 - a mode
    """What becomes of a refresh token once used: strict, it dies; lenient, it goes on working."""
    old_access_tokens: Literal["live", "die"] = "live"
    """What becomes of the account's earlier access tokens when a pair is renewed.

    Not documented. Those that live expire by themselves.
    """
    rate_limit_per_token: int = 600
    """Requests in any 60 s; 0 = no such limit."""
    rate_limit_per_app: int = 0
    retry_after_seconds: int | None = None
    """Told with every 429; None: not told. Not documented and never seen."""
    latency_seconds: float = 0
    """Before each answer, and before each cut."""
    slow_share: float = 0
    """Of all queries, whatever they are answered with: they wait `slow_seconds` longer."""
    slow_seconds: float = 5
    throttled_share: float = 0
    failed_share: float = 0
    timeout_share: float = 0
    malformed_share: float = 0
    token_failed_share: float = 0
    """Nothing is renewed and the refresh token goes on working."""
    token_timeout_share: float = 0
    """Renewed, but the answer never comes. Likewise below: the new pair reaches nobody."""
    token_cut_share: float = 0
    token_malformed_share: float = 0
    missing_share: float = 0
    """Of the IDs, always the same ones: they are left out of every answer."""
    seed: int = 0
    client_key: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    public_url: str | None = None
    """Where the covers are said to be; None: where the query was sent to."""

    def __post_init__(self) -> None:
        if self.cover_ttl != "hourly" and self.cover_ttl < 1:
            raise ValueError(f"expected cover_ttl >= 1 or 'hourly', not {self.cover_ttl}")
        for name in ("latency_seconds", "slow_seconds", "retry_after_seconds"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"expected {name} >= 0, not {getattr(self, name)}")
        _check_shares(self.missing_share)
        _check_shares(self.slow_share)
        _check_shares(*(share for _, share in self.faults))
        _check_shares(*(share for _, share in self.token_faults))

    @property
    def faults(self) -> tuple[tuple[Fault, float], ...]:
        return (
            ("throttled", self.throttled_share),
            ("failed", self.failed_share),
            ("timeout", self.timeout_share),
            ("malformed", self.malformed_share),
        )

    @property
    def token_faults(self) -> tuple[tuple[TokenFault, float], ...]:
        return (
            ("failed", self.token_failed_share),
            ("timeout", self.token_timeout_share),
            ("cut", self.token_cut_share),
            ("malformed", self.token_malformed_share),
        )


def _check_shares(*shares: float) -> None:
    """Raise `ValueError` unless each is a share and all of them together are one, too."""
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share between 0 and 1, not {share}")
    if math.fsum(shares) > 1:
        raise ValueError(f"expected the faults to share at most 1, not {math.fsum(shares)}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One query request: when it came, what it asked for, and what it got.

    `at` is monotonic. `status` is 0 where no answer was ever given. `error_code` is what the
    answer says, or `no_answer`, `malformed`, `scripted` or `down`. `breach` says what in the
    request broke the endpoint's contract.
    """

    at: float
    open_id: str | None
    video_ids: tuple[str, ...]
    status: int
    error_code: str
    breach: str | None


@dataclass(slots=True)
class TokenArrival:
    """One token request; `open_id` is None where the refresh token was never given to anybody.

    `error_code` and `status` as for `Arrival`, and `cut`. `refresh_token_digest` is what
    `token_digest` makes of the token sent. `used_before`: it had been renewed before.

    `answered` is the one field that changes: to True as the answer goes out whole. It stays
    False where it was withheld, cut or malformed, or the client had gone; that a client has read
    it is not known.
    """

    at: float
    open_id: str | None
    status: int
    error_code: str
    refresh_token_digest: str
    used_before: bool
    answered: bool = False


def token_digest(token: str) -> str:
    """Tells tokens apart in the record without showing them; empty for no token."""
    # A form may hold any character, a lone surrogate too.
    encoded = token.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:16] if token else ""


@dataclass(frozen=True, slots=True)
class Query:
    """One query request, as far as it could be read; `breach` is what was wrong with it."""

    open_id: str | None
    method: str
    fields: tuple[str, ...]
    video_ids: tuple[str, ...]
    breach: str | None


class SlidingWindow:
    """Arrivals of the last 60 s, counted one by one: true at the edges."""

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()

    def has_room(self, now: float, limit: int) -> bool:
        """An arrival exactly 60 s ago has left the window. A limit of 0 is none."""
        while self._arrivals and self._arrivals[0] <= now - WINDOW_SECONDS:
            self._arrivals.popleft()
        return not limit or len(self._arrivals) < limit

    def add(self, now: float) -> None:
        self._arrivals.append(now)


# --- The made-up videos ---


class Video(NamedTuple):
    """A video without a store: all its facts follow from its ID."""

    video_id: str
    key: str
    number: int

    @property
    def missing_rank(self) -> float:
        """Between 0 and 1; the share of missing videos takes the lowest ranks."""
        return self.number / 2**64


def video_of(video_id: str) -> Video:
    digest = hashlib.blake2b(video_id.encode(), digest_size=16).digest()
    return Video(video_id, digest.hex(), int.from_bytes(digest[:8], "big"))


def _embed_link(video: Video) -> str:
    return (
        f"https://www.tiktok.com/static/profile-video?id={video.video_id}"
        "&hide_author=1&utm_campaign=tt4d_open_api&utm_source=sample"
    )


def _embed_html(video: Video) -> str:
    return (
        f'<blockquote class="tiktok-embed" data-video-id="{video.video_id}">'
        f'<iframe src="{_embed_link(video)}"></iframe></blockquote>'
    )


# Only the fields that are asked for are made. The cover is no fact of the video alone.
_FACTS: Final[Mapping[str, Callable[[Video], str | int]]] = {
    "id": lambda video: video.video_id,
    "create_time": lambda video: 1_700_000_000 + video.number % 50_000_000,
    "share_url": lambda video: f"https://www.tiktok.com/@sample/video/{video.video_id}",
    "video_description": lambda video: f"Sample video {video.key[:6]} #sample",
    "duration": lambda video: 5 + video.number % 175,
    "height": lambda _: 1024,
    "width": lambda _: 576,
    "title": lambda video: f"Sample video {video.key[:6]}",
    "embed_html": _embed_html,
    "embed_link": _embed_link,
    "like_count": lambda video: video.number % 90_000,
    "comment_count": lambda video: video.number % 4_000,
    "share_count": lambda video: video.number % 2_000,
    "view_count": lambda video: 90_000 + video.number % 9_000_000_000,
}

_COVER_PATH: Final = "/tos-maliva-p-0068/{}~tplv-tiktokx-cropcenter-q:300:400:q72.jpeg"
# Real URLs vary in the order of their parameters, too.
_COVER_SIGNED: Final = "refresh_token={token}&x-expires={expires}&x-signature={signature}"
_COVER_QUERIES: Final = (
    f"dr=14782&{_COVER_SIGNED}&t=bacd0480&ps=933b5bde&idc=maliva&sc=cover&biz_tag=tt_video",
    f"dr=8596&{_COVER_SIGNED}&t=bacd0480&ps=933b5bde&idc=useast5&s=TIKTOK_FOR_DEVELOPER&sc=cover",
    "x-expires={expires}&x-signature={signature}&refresh_token={token}&idc=my2&t=5897f7ec&ps=d5b8",
)


class CoverSigner:
    """Makes cover URLs and tells its own from any other, byte for byte."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def url(self, base_url: str, video: Video, expires_at: int) -> str:
        path = _COVER_PATH.format(video.key)
        query = _COVER_QUERIES[video.number % len(_COVER_QUERIES)].format(
            token=video.key[-8:],
            expires=expires_at,
            signature=self._signature(path, str(expires_at)),
        )
        return f"{base_url}{path}?{query}"

    def serves(self, raw_target: str, now: float) -> bool:
        """Whether this request target, exactly as sent, is signed and not yet expired.

        Not documented: real URLs are known to break when `%2F` is re-encoded, hence the
        comparison without any decoding. Parameters other than these two are not looked at.
        """
        path, _, query = raw_target.partition("?")
        values = {key: value for key, _, value in (p.partition("=") for p in query.split("&"))}
        expires = values.get("x-expires", "")
        return values.get("x-signature") == self._signature(path, expires) and now < int(expires)

    def _signature(self, path: str, expires: str) -> str:
        """Always contains a %2F, so that no URL survives re-encoding by luck."""
        signatures = (self._attempt(f"{path}\n{expires}\n{n}") for n in itertools.count())
        return quote(next(text for text in signatures if "/" in text), safe="")

    def _attempt(self, text: str) -> str:
        signed = text.encode(errors="surrogateescape")
        return base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()


# --- Reading a request ---


class _Filters(msgspec.Struct, forbid_unknown_fields=True):
    video_ids: list[str]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    filters: _Filters


_BODY_DECODER: Final = msgspec.json.Decoder(_Body)


def read_fields(values: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """The asked fields and the breach, if any, from every `fields` in the query string.

    Not documented: what an unknown field or a second `fields` is answered with.
    """
    if len(values) != 1 or not values[0]:
        return (), f"expected one non-empty fields parameter, not {len(values)}"
    fields = tuple(values[0].split(","))
    unknown = next((name for name in fields if name not in VIDEO_FIELDS), None)
    return fields, None if unknown is None else f"there is no field {unknown!r}"


def read_body(body: bytes) -> tuple[tuple[str, ...], str | None]:
    """The asked video IDs and the breach, if any.

    Not documented: that a wrong number of IDs, a duplicate or a foreign key is refused.
    """
    try:
        # Interned, because the record would otherwise hold a copy of an ID for every request.
        ids = tuple(map(sys.intern, _BODY_DECODER.decode(body).filters.video_ids))
    except (msgspec.DecodeError, UnicodeError) as error:
        return (), f"the body is not what is documented: {error}"
    if not 1 <= len(ids) <= MAX_VIDEO_IDS:
        return ids, f"expected 1 to {MAX_VIDEO_IDS} video_ids, not {len(ids)}"
    if len(set(ids)) < len(ids):
        return ids, "video_ids holds duplicates"
    return ids, None


def _head_breach(request: web.Request) -> str | None:
    if request.path != QUERY_PATH:
        return f"the path is {request.path}, not {QUERY_PATH}"
    if request.method != hdrs.METH_POST:
        return f"the method is {request.method}, not POST"
    if not _bearer(request):
        return "there is no Authorization header with a Bearer token"
    if request.content_type != "application/json":
        return f"the Content-Type is {request.content_type}, not application/json"
    return None


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token if scheme == "Bearer" else ""


# --- Answers ---

_ERRORS: Final = {
    "access_token_invalid": (401, "The access token is invalid or not found in the request."),
    "scope_not_authorized": (
        401,
        "The user did not authorize the scope required for completing this request.",
    ),
    "invalid_params": (400, "The parameters are invalid."),
    "unsupported_path": (404, "Unsupported path(Janus)"),
    "rate_limit_exceeded": (429, "The API rate limit was exceeded. Please try again later."),
    "internal_error": (500, "The server had an internal error. Please try again later."),
}

_TOKEN_ERRORS: Final = {
    "invalid_request": "The request parameters are malformed.",
    "invalid_client": "Client key or secret is incorrect.",
    "invalid_grant": "Refresh token is invalid or expired.",
    "unsupported_grant_type": "The grant type is not supported.",
    "server_error": "The server had an internal error.",
    "temporarily_unavailable": "The server is temporarily unavailable.",
}

_TOKEN_FORM: Final = ("client_key", "client_secret", "grant_type", "refresh_token")


def _page(status: int) -> bytes:
    title = f"{status} {HTTPStatus(status).phrase}"
    return f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode()


class _Answer(NamedTuple):
    """What a request is answered with."""

    code: str
    response: web.Response | Silence

    @property
    def status(self) -> int:
        return self.response.status if isinstance(self.response, web.Response) else 0

    @property
    def is_whole(self) -> bool:
        return self.status != 0 and self.code != "malformed"


_NO_HEADERS: Final[Mapping[str, str]] = {}


def _response(
    body: bytes,
    log_id: str,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] = _NO_HEADERS,
) -> web.Response:
    all_headers = {hdrs.CONTENT_TYPE: content_type, LOG_ID_HEADER: log_id, **headers}
    return web.Response(body=body, status=status, headers=all_headers)


def _gateway(code: str, log_id: str, status: int) -> _Answer:
    """Not documented: the HTML body, which is what a gateway in between would answer."""
    response = _response(_page(status), log_id, status=status, content_type="text/html")
    return _Answer(code, response)


def _error(
    code: str,
    log_id: str,
    *,
    message: str | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> _Answer:
    status, usual_message = _ERRORS[code]
    error = {"code": code, "message": message or usual_message, "log_id": log_id}
    body = msgspec.json.encode({"data": {}, "error": error})
    return _Answer(code, _response(body, log_id, status=status, headers=headers))


def _token_error_answer(code: str, log_id: str, status: int) -> _Answer:
    error = {"error": code, "error_description": _TOKEN_ERRORS[code], "log_id": log_id}
    return _Answer(code, _response(msgspec.json.encode(error), log_id, status=status))


def _envelope(videos: list[dict[str, str | int]], log_id: str) -> bytes:
    return msgspec.json.encode(
        {
            "data": {"videos": videos, "cursor": 0, "has_more": False},
            "error": {"code": "ok", "message": "", "log_id": log_id},
        }
    )


# --- Accounts and their tokens ---


@dataclass(slots=True)
class _Account:
    open_id: str
    scope: str
    videos: set[str]


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a token stands for. The token itself is only ever a key, so no repr shows it."""

    account: _Account
    expires_at: float
    window: SlidingWindow


class _Tokens:
    """The tokens of one kind, by token and by account."""

    def __init__(self) -> None:
        self._grants: dict[str, _Grant] = {}
        self._held: dict[str, set[str]] = {}

    def add(self, token: str, account: _Account, expires_at: float) -> None:
        """A token already given to another account changes hands."""
        if token in self._grants:
            self.drop(token)
        self._grants[token] = _Grant(account, expires_at, SlidingWindow())
        self._held.setdefault(account.open_id, set()).add(token)

    def get(self, token: str) -> _Grant | None:
        return self._grants.get(token)

    def holds(self, open_id: str, token: str, now: float) -> bool:
        grant = self.get(token)
        return grant is not None and grant.account.open_id == open_id and grant.expires_at > now

    def drop(self, token: str) -> None:
        grant = self._grants.pop(token)
        self._held[grant.account.open_id].discard(token)

    def drop_all(self, open_id: str, *, expired_by: float = math.inf) -> None:
        """Forget the account's tokens; with a time, only those expired by then."""
        for token in tuple(self._held.get(open_id, ())):
            if self._grants[token].expires_at <= expired_by:
                self.drop(token)


class _Origins:
    """Whose every refresh token was and whether it was used, dead ones too: by digest."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._used: set[str] = set()

    def add(self, token: str, open_id: str) -> None:
        """Given again, a token is as new."""
        digest = token_digest(token)
        self._owners[digest] = open_id
        self._used.discard(digest)

    def use(self, token: str) -> None:
        self._used.add(token_digest(token))

    def owner(self, digest: str) -> str | None:
        return self._owners.get(digest)

    def used(self, digest: str) -> bool:
        return digest in self._used


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
        self._accounts: dict[str, _Account] = {}
        self._access_tokens = _Tokens()
        self._refresh_tokens = _Tokens()
        self._origins = _Origins()
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
        account = self._accounts.setdefault(open_id, _Account(open_id, scope, set()))
        account.scope = scope
        self._access_tokens.drop_all(open_id)
        self._refresh_tokens.drop_all(open_id)
        expires_at = math.inf if access_token_expires_at is None else access_token_expires_at
        self._access_tokens.add(access_token, account, expires_at)
        if refresh_token is not None:
            if refresh_token_expires_at is None:
                refresh_token_expires_at = self._clock() + REFRESH_TOKEN_TTL_SECONDS
            self._give(refresh_token, account, refresh_token_expires_at)

    def _give(self, refresh_token: str, account: _Account, expires_at: float) -> None:
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
        grant = self._access_tokens.get(_bearer(request))
        query = _read_query(request, body, grant)
        answer = self._answer(request, query, grant)
        self.record.append(
            Arrival(at, query.open_id, query.video_ids, answer.status, answer.code, query.breach)
        )
        await _wait(request, self.options.latency_seconds + self._slowness())
        return await _send(request, answer)

    async def _serve_no_path(self, request: web.Request) -> web.Response:
        """Whatever else lies beside the endpoints, and the token endpoint for another method."""
        log_id = _log_id(self._clock())
        answer = self._downtime(log_id) or _error("unsupported_path", log_id)
        return await _send(request, answer)

    def _slowness(self) -> float:
        is_slow = self._slow_chance.random() < self.options.slow_share
        return self.options.slow_seconds if is_slow else 0

    def _downtime(self, log_id: str) -> _Answer | None:
        match self.down:
            case None:
                return None
            case "failed":
                return _gateway("down", log_id, 503)
            case silence:
                return _Answer("down", silence)

    # --- Query ---

    def _answer(self, request: web.Request, query: Query, grant: _Grant | None) -> _Answer:
        now = self._clock()
        log_id = _log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_with(query) if self.answer_with else None
        if scripted is not None:
            return _Answer("scripted", scripted)
        return self._judged(request, query, grant, log_id, now)

    def _judged(
        self, request: web.Request, query: Query, grant: _Grant | None, log_id: str, now: float
    ) -> _Answer:
        if query.method != hdrs.METH_POST or request.path != QUERY_PATH:
            return _error("unsupported_path", log_id)
        if grant is None or grant.expires_at <= now:
            return _error("access_token_invalid", log_id)
        if refusal := self._refusal(query, grant, now):
            if refusal == "rate_limit_exceeded":
                return self._throttled(log_id)
            message = query.breach if refusal == "invalid_params" else None
            return _error(refusal, log_id, message=message)
        videos = self._videos(request, query, grant.account, now)
        return self._disturbed(_envelope(videos, log_id), log_id)

    def _refusal(self, query: Query, grant: _Grant, now: float) -> str | None:
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

    def _throttled(self, log_id: str) -> _Answer:
        seconds = self.options.retry_after_seconds
        headers = _NO_HEADERS if seconds is None else {"Retry-After": str(seconds)}
        return _error("rate_limit_exceeded", log_id, headers=headers)

    def _admit(self, grant: _Grant, now: float) -> bool:
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
        self, request: web.Request, query: Query, account: _Account, now: float
    ) -> list[dict[str, str | int]]:
        """The account's videos among those asked for; two or more never in that order."""
        base_url = self.options.public_url or f"{request.scheme}://{request.host}"
        expires_at = self._cover_expiry(now)
        found = self._present(query.video_ids, account)
        return [
            {
                name: self._covers.url(base_url, video, expires_at)
                if name == "cover_image_url"
                else _FACTS[name](video)
                for name in query.fields
            }
            for video in self._shuffled(found)
        ]

    def _present(self, video_ids: Iterable[str], account: _Account) -> list[Video]:
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

    def _disturbed(self, body: bytes, log_id: str) -> _Answer:
        """The good answer, or what chance makes of it. By then it has counted in the windows."""
        fault = _drawn(self._fault_chance, self.options.faults)
        match fault:
            case None:
                return _Answer("ok", _response(body, log_id))
            case "throttled":
                return self._throttled(log_id)
            case "failed":
                return self._failure(log_id)
            case "timeout":
                return _Answer("no_answer", "hang")
            case "malformed":
                garbled = self._fault_chance.choice((body[: len(body) // 2], _page(502)))
                return _Answer("malformed", _response(garbled, log_id))
            case _:
                assert_never(fault)

    def _failure(self, log_id: str) -> _Answer:
        if self._fault_chance.random() < 1 / 2:
            return _error("internal_error", log_id)
        return _gateway("internal_error", log_id, 502)

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
        form = await _read_form(request)
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

    def _answer_token(self, form: Mapping[str, str]) -> _Answer:
        now = self._clock()
        log_id = _log_id(now)
        if down := self._downtime(log_id):
            return down
        scripted = self.answer_token_with(form) if self.answer_token_with else None
        if scripted is not None:
            return _Answer("scripted", scripted)
        token = form.get("refresh_token", "")
        grant = self._refresh_tokens.get(token)
        error_code = self._token_error(form, grant, now)
        if grant is None or error_code is not None:
            return self._token_refusal(error_code or "invalid_grant", log_id)
        return self._renewal(token, grant, log_id, now)

    def _renewal(self, token: str, grant: _Grant, log_id: str, now: float) -> _Answer:
        """The new pair, or what chance makes of it: only a failure leaves the old one as it is."""
        fault = _drawn(self._token_chance, self.options.token_faults)
        if fault == "failed":
            return self._token_failure(log_id)
        body = msgspec.json.encode(self._renewed(token, grant, now))
        match fault:
            case None:
                return _Answer("ok", _response(body, log_id))
            case "timeout":
                return _Answer("no_answer", "hang")
            case "cut":
                return _Answer("cut", "cut")
            case "malformed":
                return _Answer("malformed", _response(body[: len(body) // 2], log_id))
            case _:
                assert_never(fault)

    def _token_failure(self, log_id: str) -> _Answer:
        """Not documented: the status that comes with either code."""
        code = self._token_chance.choice(("server_error", "temporarily_unavailable", None))
        if code is None:
            return _gateway("server_error", log_id, self._token_chance.choice((502, 503)))
        return _token_error_answer(code, log_id, self._token_chance.choice((200, 500, 503)))

    def _token_error(self, form: Mapping[str, str], grant: _Grant | None, now: float) -> str | None:
        """Not documented: which of several errors comes first."""
        if not all(form.get(name) for name in _TOKEN_FORM):
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

    def _token_refusal(self, code: str, log_id: str) -> _Answer:
        """Not documented: the status. 200 has been seen, so half of the errors come with it."""
        return _token_error_answer(code, log_id, self._chance.choice((200, 400)))

    def _renewed(self, used: str, grant: _Grant, now: float) -> dict[str, str | int]:
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


# --- Helpers of the server ---

_STOPPING: Final = web.AppKey("stopping", asyncio.Event)


async def _stop(app: web.Application) -> None:
    app[_STOPPING].set()


async def _wait(request: web.Request, seconds: float) -> None:
    """Until then or until the server stops; cancelled where the client goes away."""
    if seconds:
        with suppress(TimeoutError):
            await asyncio.wait_for(request.app[_STOPPING].wait(), seconds)


async def _send(request: web.Request, answer: _Answer) -> web.Response:
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


def _read_query(request: web.Request, body: bytes, grant: _Grant | None) -> Query:
    fields, fields_breach = read_fields(request.query.getall("fields", ()))
    video_ids, body_breach = read_body(body)
    return Query(
        open_id=grant.account.open_id if grant else None,
        method=request.method,
        fields=fields,
        video_ids=video_ids,
        breach=_head_breach(request) or fields_breach or body_breach,
    )


async def _read_form(request: web.Request) -> dict[str, str]:
    """Empty where the request is no form."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    return {name: str(value) for name, value in (await request.post()).items()}


def _log_id(now: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + secrets.token_hex(10).upper()
