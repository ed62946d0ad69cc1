"""What the bytes of the API mean: requests built, answers turned into values.

Pure: no session, no clock. Facts are from the endpoint's official page unless said otherwise.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from math import isfinite
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
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
FOREIGN_TOKEN: Final = "token_of_another_account"  # noqa: S105 - a code, no token
LONGEST_RETRY_AFTER_DIGITS: Final = 5
LONGEST_TEXT: Final = 200
#: What an access token is taken to live where the answer names no time: the documented two hours. A
#: pair that is thrown away cannot be had again.
ASSUMED_TOKEN_LIFE_SECONDS: Final = 7200.0
LONGEST_LIFE_SECONDS: Final = 100 * 366 * 86_400.0


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
    videos: list[Any]


class _LooseAnswer(msgspec.Struct):
    data: _LooseVideos
    error: _Error


class _Failure(msgspec.Struct):
    error: _Error


class _Grant(msgspec.Struct):
    """The flat answer of the token endpoint, good or bad.

    Only what matters has a type: a pair that is thrown away cannot be had again.
    """

    error: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: Any = None
    refresh_expires_in: Any = None
    open_id: Any = None
    scope: Any = None
    log_id: Any = None


UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_loose_answer = msgspec.json.Decoder(_LooseAnswer).decode
_decode_failure = msgspec.json.Decoder(_Failure).decode
_decode_bare_error = msgspec.json.Decoder(_Error).decode
_decode_grant = msgspec.json.Decoder(_Grant).decode


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


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    """The covers of an answer: video ID to `cover_image_url`, whatever that holds.

    An ID that was asked for and is not here was silently left out by the API. `cursor` and
    `has_more` mean nothing for this endpoint. Raises `UpstreamError` for anything but an `ok`;
    status and `error.code` are judged together, as either alone has been seen to mislead.
    """
    if status == HTTPStatus.OK:
        return _read_videos(headers, body)
    raise _failure(status, headers, _read_error(body))


def _read_videos(headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    try:
        answer = _decode_answer(body)
    except msgspec.ValidationError:
        return _read_loose_videos(headers, body)
    except UNDECODABLE:
        raise _malformed(headers) from None
    if answer.error.code != OK:
        raise _failure(HTTPStatus.OK, headers, answer.error)
    return {video.id: video.cover_image_url for video in answer.data.videos}


def _read_loose_videos(headers: Mapping[str, str], body: bytes) -> dict[str, object]:
    """One video of another shape must not cost the other nineteen their covers."""
    try:
        answer = _decode_loose_answer(body)
    except UNDECODABLE:
        error = _read_error(body)
        if error is None or error.code == OK:
            raise _malformed(headers) from None
        raise _failure(HTTPStatus.OK, headers, error) from None
    if answer.error.code != OK:
        raise _failure(HTTPStatus.OK, headers, answer.error)
    return {
        video["id"]: video.get("cover_image_url")
        for video in answer.data.videos
        if isinstance(video, dict) and isinstance(video.get("id"), str)
    }


def _read_error(body: bytes) -> _Error | None:
    """The error object, in its envelope or, as one documented example has it, bare."""
    with suppress(*UNDECODABLE):
        return _decode_failure(body).error
    with suppress(*UNDECODABLE):
        return _decode_bare_error(body)
    return None


def _failure(status: int, headers: Mapping[str, str], error: _Error | None) -> UpstreamError:
    code = error.code if error and error.code != OK else NO_ERROR_OBJECT
    log_id = error.log_id if error and isinstance(error.log_id, str) else ""
    code, log_id = _short(code), _short(log_id or headers.get(LOG_ID_HEADER, ""))
    match status, code:
        # The status decides where it is clear, so that a code nobody has seen still does its part.
        case _, "access_token_invalid":
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "scope_not_authorized" | "scope_permission_missed":
            return ScopeRefused(code, status=status, log_id=log_id)
        case (429, _) | (_, "rate_limit_exceeded"):
            retry_after = _retry_after(headers)
            return Throttled(code, status=status, log_id=log_id, retry_after_seconds=retry_after)
        case 401, _ if error:  # without an error object it is a gateway's, not TikTok's
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "invalid_params":
            return QueryRefused(code, status=status, log_id=log_id)
        case _:
            spoken = code != NO_ERROR_OBJECT
            return UpstreamFailed(code, status=status, log_id=log_id, spoken=spoken)


def _short(text: str) -> str:
    """Foreign text that is to be logged and stored: of a bounded length, and no NUL."""
    return text[:LONGEST_TEXT].replace("\0", "")


def _malformed(headers: Mapping[str, str]) -> UpstreamError:
    return UpstreamFailed(
        MALFORMED_ANSWER, status=HTTPStatus.OK, log_id=headers.get(LOG_ID_HEADER, "")
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds only: no Retry-After has been seen from this API, so no date either."""
    value = headers.get("Retry-After", "").strip()
    return float(value) if value.isdecimal() and len(value) <= LONGEST_RETRY_AFTER_DIGITS else None


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
    status: int, headers: Mapping[str, str], body: bytes, open_id: str
) -> TokenPair:
    """The new pair for the account asked for. Raises `UpstreamError`.

    Errors are known by the body: their HTTP status is unreliable, 200 has been seen. A body that is
    neither leaves open whether the refresh token has been used up.
    """
    try:
        grant = _decode_grant(body)
    except UNDECODABLE:
        raise _unknown_outcome(_failure(status, headers, _read_error(body))) from None
    log_id = grant.log_id if isinstance(grant.log_id, str) else ""
    log_id = log_id or headers.get(LOG_ID_HEADER, "")
    if grant.error:
        raise _token_failure(_short(grant.error), status, _short(log_id))
    if not usable_token(grant.access_token):
        raise UpstreamFailed(MALFORMED_ANSWER, status=status, log_id=log_id)
    if isinstance(grant.open_id, str) and grant.open_id != open_id:
        raise GrantRefused(FOREIGN_TOKEN, status=status, log_id=log_id)
    return TokenPair(
        access_token=grant.access_token or "",
        access_token_lives_seconds=_seconds(grant.expires_in) or ASSUMED_TOKEN_LIFE_SECONDS,
        refresh_token=grant.refresh_token if usable_token(grant.refresh_token) else None,
        refresh_token_lives_seconds=_seconds(grant.refresh_expires_in),
        scope=_short(grant.scope) if isinstance(grant.scope, str) else None,
    )


def _unknown_outcome(error: UpstreamError) -> UpstreamError:
    """The token endpoint does not speak like the others: this says nothing of the account."""
    if isinstance(error, Throttled):
        return error
    return UpstreamFailed(error.code, status=error.status, log_id=error.log_id)


def _token_failure(code: str, status: int, log_id: str) -> UpstreamError:
    match code:
        case "invalid_grant" | "access_denied":
            return GrantRefused(code, status=status, log_id=log_id)
        case "invalid_scope":
            return ScopeRefused(code, status=status, log_id=log_id)
        case "invalid_client" | "unauthorized_client":
            return ClientRefused(code, status=status, log_id=log_id)
        case _:
            return TokenRequestFailed(code, status=status, log_id=log_id)


def _seconds(value: object) -> float | None:
    """A lifetime: a number above 0 and below a century, also where it comes as text."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) and 0 < seconds < LONGEST_LIFE_SECONDS else None
