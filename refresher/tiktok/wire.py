"""What the bytes of the API mean: requests built, answers turned into values.

Pure: no session, no clock. Facts are from the endpoint's official page unless said otherwise.
"""

import re
from calendar import timegm
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_tz
from http import HTTPStatus
from math import isfinite
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
    QueryRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import UNUSABLE_TOKEN, TokenPair, usable_token

QUERY_PATH: Final = "/v2/video/query/"
TOKEN_PATH: Final = "/v2/oauth/token/"  # noqa: S105 - a path, not a password
MAX_VIDEO_IDS: Final = 20
LOG_ID_HEADER: Final = "x-tt-logid"
VIDEO_FIELDS: Final = (
    "id",
    "create_time",
    "cover_image_url",
    "share_url",
    "video_description",
    "duration",
    "height",
    "width",
    "title",
    "embed_html",
    "embed_link",
    "like_count",
    "comment_count",
    "share_count",
    "view_count",
)

ASKED_FIELDS: Final = "id,cover_image_url"
OK: Final = "ok"
#: Our words for answers in which TikTok gave no code.
NO_ERROR_OBJECT: Final = "no_error_object"
MALFORMED_ANSWER: Final = "malformed_answer"
LONGEST_RETRY_AFTER_SECONDS: Final = 100_000
LONGEST_TEXT: Final = 200
UTF8_MARK: Final = b"\xef\xbb\xbf"
#: What an access token is taken to live where the answer names no time: the documented two hours. A
#: pair that is thrown away cannot be had again.
ASSUMED_TOKEN_LIFE_SECONDS: Final = 7200.0
LONGEST_LIFE_SECONDS: Final = 100 * 366 * 86_400.0
#: A number from here on is no lifetime but a Unix time, in seconds, then in milliseconds.
EARLIEST_UNIX_TIME: Final = 1e9
EARLIEST_UNIX_MILLISECONDS: Final = 1e12
#: A quota of a day, by code or message; the two words together where neither is a 429.
A_DAY: Final = re.compile(r"(?<![a-z])(?:daily|day|today|24[ _-]?hours?)(?![a-z])", re.IGNORECASE)
A_LIMIT: Final = re.compile(r"quota|limit|exceed|too[ _]many|(?<![a-z])cap(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """One POST, ready to send: everything but the host."""

    path_and_query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class _Video(msgspec.Struct, gc=False):
    id: str
    cover_image_url: str


class _Error(msgspec.Struct):
    code: str
    log_id: Any = None  # known as text; another type must not cost an answer its covers


class _Videos(msgspec.Struct):
    videos: list[_Video]


class _Answer(msgspec.Struct):
    data: _Videos
    error: _Error


class _LooseVideos(msgspec.Struct):
    videos: list[msgspec.Raw] | None = None


class _LooseAnswer(msgspec.Struct):
    """A list that is empty may be null or left out, and so may be what holds it."""

    error: _Error
    data: _LooseVideos | None = None


class _LooseVideo(msgspec.Struct, gc=False):
    """Not decoded: what is odd costs only itself, and a number keeps all its digits."""

    id: msgspec.Raw = msgspec.Raw()
    cover_image_url: msgspec.Raw = msgspec.Raw()


class _ToldError(_Error):
    """`message` is only looked into; what cannot be decoded in it costs nothing."""

    message: msgspec.Raw = msgspec.Raw()


class _Failure(msgspec.Struct):
    error: _ToldError


class _Grant(msgspec.Struct):
    """The flat answer of the token endpoint, good or bad, or what it holds under `data`.

    Each field is decoded by itself: a pair that is thrown away cannot be had again.
    """

    error: msgspec.Raw = msgspec.Raw()
    access_token: msgspec.Raw = msgspec.Raw()
    refresh_token: msgspec.Raw = msgspec.Raw()
    expires_in: msgspec.Raw = msgspec.Raw()
    refresh_expires_in: msgspec.Raw = msgspec.Raw()
    open_id: msgspec.Raw = msgspec.Raw()
    scope: msgspec.Raw = msgspec.Raw()
    error_description: msgspec.Raw = msgspec.Raw()
    log_id: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_loose_answer = msgspec.json.Decoder(_LooseAnswer).decode
_decode_loose_video = msgspec.json.Decoder(_LooseVideo).decode
_decode_failure = msgspec.json.Decoder(_Failure).decode
_decode_bare_error = msgspec.json.Decoder(_ToldError).decode
_decode_grant = msgspec.json.Decoder(_Grant).decode
_decode_anything = msgspec.json.Decoder().decode


def build_query(access_token: str, video_ids: Sequence[str]) -> Request:
    """The request for at most 20 video IDs of the token's user, in any order.

    Raises `AccessTokenRefused` for a token that no header can carry.
    """
    if not usable_token(access_token):
        raise AccessTokenRefused(UNUSABLE_TOKEN)
    return Request(
        path_and_query=f"{QUERY_PATH}?fields={ASKED_FIELDS}",
        headers={
            "Authorization": f"Bearer {access_token}",
            "Content-Type": "application/json",
        },
        body=msgspec.json.encode({"filters": {"video_ids": video_ids}}),
    )


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, asked: Collection[str], now: float
) -> dict[str, object]:
    """The covers of an answer: video ID to `cover_image_url`, whatever that holds.

    An ID that was asked for and is not here was silently left out by the API; all of them, where
    the list is null or left out. `cursor` and `has_more` mean nothing for this endpoint. Raises
    `UpstreamError` for anything but an `ok`; status and `error.code` are judged together, as either
    alone has been seen to mislead. `now` is Unix time, for replies that do not say theirs.
    """
    if status // 100 != 2:  # noqa: PLR2004 - any 2xx leaves it to the body
        raise _failure(status, headers, _read_error(body), now)
    try:
        answer = _decode_answer(body)
    except msgspec.ValidationError:
        covers = _read_loose_covers(status, headers, body, now)
    except UNDECODABLE:
        raise _malformed(status, headers) from None
    else:
        if answer.error.code != OK and not _is_ok(answer.error.code):
            raise _failure(status, headers, _read_error(body), now)
        covers = {video.id: video.cover_image_url for video in answer.data.videos}
    if covers and covers.keys().isdisjoint(asked):
        # Taken for missing, all that were asked for would be gone in the end.
        raise _malformed(status, headers, detail="none of the videos was asked for")
    return covers


def _read_loose_covers(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> dict[str, object]:
    """One video of another shape must not cost the other nineteen their covers."""
    try:
        answer = _decode_loose_answer(body)
    except UNDECODABLE:
        error = _read_error(body)
        if error is None or _is_ok(error.code):
            raise _malformed(status, headers) from None
        raise _failure(status, headers, error, now) from None
    if not _is_ok(answer.error.code):
        raise _failure(status, headers, _read_error(body), now)
    videos = (answer.data and answer.data.videos) or ()
    covers = dict(filter(None, map(_read_loose_video, videos)))
    if videos and not covers:
        raise _malformed(status, headers, detail="no video has a usable id")
    return covers


def _read_loose_video(raw: msgspec.Raw) -> tuple[str, object] | None:
    """ID and cover; None without an ID."""
    try:
        video = _decode_loose_video(raw)
    except UNDECODABLE:
        return None
    digits = bytes(video.id)
    video_id = digits.decode() if digits.isdigit() else _text(video.id)
    return (video_id, _anything(video.cover_image_url)) if video_id else None


def _anything(raw: msgspec.Raw) -> object:
    """What a field holds; None also where it is left out or cannot be decoded."""
    try:
        return _decode_anything(raw)
    except UNDECODABLE:
        return None


def _is_ok(code: str) -> bool:
    return code.lower() == OK


def _read_error(body: bytes) -> _ToldError | None:
    """The error object, in its envelope or, as one documented example has it, bare."""
    with suppress(*UNDECODABLE):
        return _decode_failure(body).error
    with suppress(*UNDECODABLE):
        return _decode_bare_error(body)
    return None


def _failure(
    status: int, headers: Mapping[str, str], error: _ToldError | None, now: float
) -> UpstreamError:
    code = error.code if error and not _is_ok(error.code) else NO_ERROR_OBJECT
    log_id = error.log_id if error and isinstance(error.log_id, str) else ""
    code, log_id = _short(code), _short(log_id or headers.get(LOG_ID_HEADER, ""))
    match status, code.lower():
        # The status decides where it is clear, so that a code nobody has seen still does its part.
        case _, "access_token_invalid":
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "scope_not_authorized" | "scope_permission_missed":
            return ScopeRefused(code, status=status, log_id=log_id)
        case _ if limit := _limit(status, code.lower(), error):
            wish = _retry_after(headers, now)
            return limit(code, status=status, log_id=log_id, retry_after_seconds=wish)
        case 401, _ if error:  # without an error object it is a gateway's, not TikTok's
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "invalid_params" | "invalid_param" | "invalid_request":
            return QueryRefused(code, status=status, log_id=log_id)
        case _:
            spoken = code != NO_ERROR_OBJECT
            return UpstreamFailed(code, status=status, log_id=log_id, spoken=spoken)


def _limit(
    status: int, code: str, error: _ToldError | None
) -> type[Throttled] | type[DailyQuotaSpent] | None:
    """The kind of limit that was met, if any."""
    is_429 = status == HTTPStatus.TOO_MANY_REQUESTS or code == "rate_limit_exceeded"
    if error and _is_of_a_day(f"{code} {_text(error.message)}", limited=is_429):
        return DailyQuotaSpent
    return Throttled if is_429 else None


def _is_of_a_day(text: str, *, limited: bool) -> bool:
    """Whether code and message speak of a day; of a limit, too, where that is not known."""
    return bool(A_DAY.search(text) and (limited or A_LIMIT.search(text)))


def _short(text: str) -> str:
    """Foreign text that is to be logged and stored: of a bounded length, and no NUL."""
    return text[:LONGEST_TEXT].replace("\0", "")


def _malformed(status: int, headers: Mapping[str, str], *, detail: str = "") -> UpstreamError:
    log_id = _short(headers.get(LOG_ID_HEADER, ""))
    return UpstreamFailed(MALFORMED_ANSWER, status=status, log_id=log_id, detail=detail)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The wish of a reply in seconds; one that nobody can mean is none.

    Not documented and never seen from this API. A date counts from the reply's own.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,5}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    moment = _http_date(value)
    if moment is None:
        return None
    seconds = max(0.0, moment - _sent_at(headers, now))
    return seconds if seconds < LONGEST_RETRY_AFTER_SECONDS else None


def _sent_at(headers: Mapping[str, str], now: float) -> float:
    """When the reply was sent, by its own clock: ours may be wrong."""
    told = _http_date(headers.get("Date", ""))
    return now if told is None else told


def _http_date(text: str) -> float | None:
    """Unix time of an HTTP date, of the obsolete forms, too."""
    try:
        parsed = parsedate_tz(text)
        return timegm(parsed[:9]) - (parsed[9] or 0) if parsed else None
    except (ValueError, OverflowError, IndexError, TypeError):  # the parser's own on odd texts
        return None


def build_token_request(client_key: str, client_secret: str, refresh_token: str) -> Request:
    """The request for a new pair of tokens."""
    form = {
        "client_key": client_key,
        "client_secret": client_secret,
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
    }
    return Request(
        path_and_query=TOKEN_PATH,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
    )


def read_token_answer(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> TokenPair:
    """The new pair, whatever lies around it. Raises `UpstreamError`.

    It may lie under `data`. Two tokens that can be used are a pair also beside an error. Errors are
    known by the body: their HTTP status is unreliable, 200 has been seen. A body that is neither
    leaves open whether the refresh token has been used up. `now` is Unix time, for replies that do
    not say theirs.
    """
    try:
        answer = _decode_grant(body.removeprefix(UTF8_MARK))
    except UNDECODABLE:
        raise _unknown_outcome(_failure(status, headers, _read_error(body), now)) from None
    inner = _nested(answer)
    error = next(filter(_is_error, (_anything(answer.error), _anything(inner.error))), None)
    pair = _read_pair(answer, headers, now) or _read_pair(inner, headers, now)
    if pair and (pair.refresh_token or error is None):
        return pair
    log_id = _short(_text(answer.log_id) or headers.get(LOG_ID_HEADER, ""))
    if error is None:
        raise UpstreamFailed(MALFORMED_ANSWER, status=status, log_id=log_id)
    if isinstance(error, str):
        wish = _retry_after(headers, now)
        raise _token_failure(_short(error), _text(answer.error_description), status, log_id, wish)
    raise _unknown_outcome(_failure(status, headers, _read_error(body), now))


def _nested(answer: _Grant) -> _Grant:
    """What an older page of the documentation shows under `data`."""
    try:
        return _decode_grant(answer.data)
    except UNDECODABLE:
        return _Grant()


def _is_error(value: object) -> bool:
    """Whether an `error` says that something went wrong: text, or an object as of the query."""
    if isinstance(value, dict):
        value = value.get("code")
    return bool(value) and not (isinstance(value, str) and _is_ok(value))


def _read_pair(grant: _Grant, headers: Mapping[str, str], now: float) -> TokenPair | None:
    access_token, refresh_token = _text(grant.access_token), _text(grant.refresh_token)
    if not usable_token(access_token):
        return None
    sent_at = _sent_at(headers, now)
    return TokenPair(
        access_token=access_token,
        access_token_lives_seconds=_lifetime(grant.expires_in, sent_at)
        or ASSUMED_TOKEN_LIFE_SECONDS,
        refresh_token=refresh_token if usable_token(refresh_token) else None,
        refresh_token_lives_seconds=_lifetime(grant.refresh_expires_in, sent_at),
        scope=_short(_text(grant.scope)) or None,
        open_id=_short(_text(grant.open_id)) or None,
    )


def _text(raw: msgspec.Raw) -> str:
    """A field's text; empty for anything else."""
    value = _anything(raw)
    return value if isinstance(value, str) else ""


def _unknown_outcome(error: UpstreamError) -> UpstreamError:
    """The token endpoint does not speak like the others: this says nothing of the account."""
    if isinstance(error, (Throttled, DailyQuotaSpent)):
        return error
    return UpstreamFailed(error.code, status=error.status, log_id=error.log_id)


def _token_failure(
    code: str, description: str, status: int, log_id: str, wish: float | None
) -> UpstreamError:
    match code:
        case "invalid_grant" | "access_denied":
            return GrantRefused(code, status=status, log_id=log_id)
        case "invalid_scope":
            return ScopeRefused(code, status=status, log_id=log_id)
        case "invalid_client" | "unauthorized_client":
            return ClientRefused(code, status=status, log_id=log_id)
        case _ if _is_of_a_day(f"{code} {description}", limited=False):
            return DailyQuotaSpent(code, status=status, log_id=log_id, retry_after_seconds=wish)
        case _:
            return TokenRequestFailed(code, status=status, log_id=log_id)


def _lifetime(raw: msgspec.Raw, sent_at: float) -> float | None:
    """Seconds above 0 and below a century, also where they come as text or as a Unix time."""
    value = _anything(raw)
    if not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    if seconds >= EARLIEST_UNIX_MILLISECONDS:
        seconds = seconds / 1000 - sent_at
    elif seconds >= EARLIEST_UNIX_TIME:
        seconds -= sent_at
    return seconds if isfinite(seconds) and 0 < seconds < LONGEST_LIFE_SECONDS else None
