"""What an answer of the token endpoint means: a new pair of tokens, or an error.

Pure: no session, no clock. A pair is kept even if the rest of the answer is wrong: the old refresh
token may be dead, so a pair that we drop is lost for good.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Final

import msgspec

from refresher.domain.errors import (
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import TokenPair, usable_token
from refresher.tiktok.failures import MALFORMED_ANSWER, failure, is_of_a_day, is_ok, read_error
from refresher.tiktok.fields import UNDECODABLE, anything, short, text
from refresher.tiktok.times import retry_after, sent_at
from refresher.tiktok.wire import LOG_ID_HEADER

UTF8_MARK: Final = b"\xef\xbb\xbf"
#: How long an access token lives where the answer names no time: the documented two hours.
ASSUMED_TOKEN_LIFE_SECONDS: Final = 7200.0
LONGEST_LIFE_SECONDS: Final = 100 * 366 * 86_400.0
#: A number from here on is no lifetime but a Unix time, in seconds, then in milliseconds.
EARLIEST_UNIX_TIME: Final = 1e9
EARLIEST_UNIX_MILLISECONDS: Final = 1e12


class _Grant(msgspec.Struct):
    """The flat answer of the token endpoint, good or bad, or what it holds under `data`.

    Fields are decoded one by one, so that an odd one spoils no other.
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


_decode_grant = msgspec.json.Decoder(_Grant).decode


def read_token_answer(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> TokenPair:
    """The new pair, also under `data`, and, where both tokens are usable, also beside an error.

    Raises `UpstreamError`; `UpstreamFailed` itself leaves open whether the refresh token has been
    used up. `now` is Unix time, for answers that do not tell theirs.
    """
    # Errors are known by the body: 200 has been seen as their HTTP status.
    try:
        answer = _decode_grant(body.removeprefix(UTF8_MARK))
    except UNDECODABLE:
        raise _unknown_outcome(failure(status, headers, read_error(body), now)) from None
    inner = _nested(answer)
    error = next(filter(_is_error, (anything(answer.error), anything(inner.error))), None)
    pair = _read_pair(answer, headers, now) or _read_pair(inner, headers, now)
    if pair and (pair.refresh_token or error is None):
        return pair
    log_id = short(text(answer.log_id) or headers.get(LOG_ID_HEADER, ""))
    if error is None:
        raise UpstreamFailed(MALFORMED_ANSWER, status=status, log_id=log_id)
    if isinstance(error, str):
        wish = retry_after(headers, now)
        raise token_failure(short(error), text(answer.error_description), status, log_id, wish)
    raise _unknown_outcome(failure(status, headers, read_error(body), now))


def _nested(answer: _Grant) -> _Grant:
    """What lies under `data`, as an older page of the documentation shows it."""
    try:
        return _decode_grant(answer.data)
    except UNDECODABLE:
        return _Grant()


def _is_error(value: object) -> bool:
    """Whether an `error` is one: text, or an object as in answers of the query endpoint."""
    if isinstance(value, dict):
        value = value.get("code")
    return bool(value) and not (isinstance(value, str) and is_ok(value))


def _read_pair(grant: _Grant, headers: Mapping[str, str], now: float) -> TokenPair | None:
    access_token, refresh_token = text(grant.access_token), text(grant.refresh_token)
    if not usable_token(access_token):
        return None
    answered_at = sent_at(headers, now)
    return TokenPair(
        access_token=access_token,
        access_token_lives_seconds=_lifetime(grant.expires_in, answered_at)
        or ASSUMED_TOKEN_LIFE_SECONDS,
        refresh_token=refresh_token if usable_token(refresh_token) else None,
        refresh_token_lives_seconds=_lifetime(grant.refresh_expires_in, answered_at),
        scope=short(text(grant.scope)) or None,
        open_id=short(text(grant.open_id)) or None,
    )


def _unknown_outcome(error: UpstreamError) -> UpstreamError:
    """The error for an answer in the form of other endpoints: it says nothing of the account."""
    if isinstance(error, (Throttled, DailyQuotaSpent)):
        return error
    return UpstreamFailed(error.code, status=error.status, log_id=error.log_id)


def token_failure(
    code: str, description: str, status: int, log_id: str, wish: float | None
) -> UpstreamError:
    """The error for a flat answer; `wish` is its `Retry-After` in seconds."""
    match code:
        case "invalid_grant" | "access_denied":
            return GrantRefused(code, status=status, log_id=log_id)
        case "invalid_scope":
            return ScopeRefused(code, status=status, log_id=log_id)
        case "invalid_client" | "unauthorized_client":
            return ClientRefused(code, status=status, log_id=log_id)
        case _ if is_of_a_day(f"{code} {description}", limited=False):
            return DailyQuotaSpent(code, status=status, log_id=log_id, retry_after_seconds=wish)
        case _:
            return TokenRequestFailed(code, status=status, log_id=log_id)


def _lifetime(raw: msgspec.Raw, answered_at: float) -> float | None:
    """Seconds above 0 and below a century, read from a number, a text or a Unix time."""
    value = anything(raw)
    if not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    if seconds >= EARLIEST_UNIX_MILLISECONDS:
        seconds = seconds / 1000 - answered_at
    elif seconds >= EARLIEST_UNIX_TIME:
        seconds -= answered_at
    return seconds if isfinite(seconds) and 0 < seconds < LONGEST_LIFE_SECONDS else None
