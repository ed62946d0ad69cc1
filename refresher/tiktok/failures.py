"""What went wrong, as an answer tells it: its error object, and the error that follows.

Pure: no session, no clock.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import msgspec

from refresher.domain.errors import (
    AccessTokenRefused,
    DailyQuotaSpent,
    QueryRefused,
    ScopeRefused,
    Throttled,
    UpstreamError,
    UpstreamFailed,
)
from refresher.tiktok.fields import UNDECODABLE, short, text
from refresher.tiktok.times import retry_after
from refresher.tiktok.wire import LOG_ID_HEADER

OK: Final = "ok"
#: Our words for answers in which TikTok gave no code.
NO_ERROR_OBJECT: Final = "no_error_object"
MALFORMED_ANSWER: Final = "malformed_answer"
#: Words of a code or message for a quota of a day. Where it is no 429, both must be there.
A_DAY: Final = re.compile(r"(?<![a-z])(?:daily|day|today|24[ _-]?hours?)(?![a-z])", re.IGNORECASE)
A_LIMIT: Final = re.compile(r"quota|limit|exceed|too[ _]many|(?<![a-z])cap(?![a-z])", re.IGNORECASE)


class ErrorObject(msgspec.Struct):
    """The `error` of an answer; its code is `ok` in a good one."""

    code: str
    #: Known as text. Another type must not make the covers beside it unreadable.
    log_id: Any = None


class ToldError(ErrorObject):
    """The `error` of a bad answer."""

    #: We only search it for words, so it may be undecodable.
    message: msgspec.Raw = msgspec.Raw()


class _Failure(msgspec.Struct):
    error: ToldError


_decode_failure = msgspec.json.Decoder(_Failure).decode
_decode_bare_error = msgspec.json.Decoder(ToldError).decode


def is_ok(code: str) -> bool:
    return code.lower() == OK


def read_error(body: bytes) -> ToldError | None:
    """The error object, under `error` or, as in one documented example, by itself."""
    with suppress(*UNDECODABLE):
        return _decode_failure(body).error
    with suppress(*UNDECODABLE):
        return _decode_bare_error(body)
    return None


def failure(
    status: int, headers: Mapping[str, str], error: ToldError | None, now: float
) -> UpstreamError:
    """The error that an answer of the query endpoint means; `now` is Unix time."""
    code = short(error.code) if error and not is_ok(error.code) else ""
    code = code or NO_ERROR_OBJECT  # also where TikTok gives an empty one
    log_id = error.log_id if error and isinstance(error.log_id, str) else ""
    log_id = short(log_id or headers.get(LOG_ID_HEADER, ""))
    match status, code.lower():
        # The status decides where it is clear, so that a code that nobody has seen works, too.
        case _, "access_token_invalid":
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "scope_not_authorized" | "scope_permission_missed":
            return ScopeRefused(code, status=status, log_id=log_id)
        case _ if limit := _limit(status, code.lower(), error):
            wish = retry_after(headers, now)
            return limit(code, status=status, log_id=log_id, retry_after_seconds=wish)
        case 401, _ if error:  # without an error object it comes from a gateway, not from TikTok
            return AccessTokenRefused(code, status=status, log_id=log_id)
        case _, "invalid_params" | "invalid_param" | "invalid_request":
            return QueryRefused(code, status=status, log_id=log_id)
        case _:
            spoken = code != NO_ERROR_OBJECT
            return UpstreamFailed(code, status=status, log_id=log_id, spoken=spoken)


def _limit(
    status: int, code: str, error: ToldError | None
) -> type[Throttled] | type[DailyQuotaSpent] | None:
    """The kind of limit that was met, if any."""
    is_429 = status == HTTPStatus.TOO_MANY_REQUESTS or code == "rate_limit_exceeded"
    if error and is_of_a_day(f"{code} {text(error.message)}", limited=is_429):
        return DailyQuotaSpent
    return Throttled if is_429 else None


def is_of_a_day(words: str, *, limited: bool) -> bool:
    """Whether code and message speak of a day, and, unless it was `limited`, of a limit."""
    return bool(A_DAY.search(words) and (limited or A_LIMIT.search(words)))


def malformed(status: int, headers: Mapping[str, str], *, detail: str = "") -> UpstreamError:
    """The error for an answer that is not what is documented; `detail` holds no foreign text."""
    log_id = short(headers.get(LOG_ID_HEADER, ""))
    return UpstreamFailed(MALFORMED_ANSWER, status=status, log_id=log_id, detail=detail)
