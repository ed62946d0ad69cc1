"""What an answer of the revoke endpoint means: the authorization is over, or an error.

Pure: no session, no clock. The page "Revoke a User Access Token" of 2 November 2026 says that a
good answer is empty and shows `{}`. Errors are taken to look like those of the token endpoint,
which nobody documents, or like those of the other endpoints.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from refresher.domain.errors import AccessTokenRefused, GrantRefused, UpstreamError
from refresher.tiktok.failures import failure, is_ok, malformed, read_error
from refresher.tiktok.fields import anything, short
from refresher.tiktok.times import retry_after
from refresher.tiktok.token_answer import token_failure
from refresher.tiktok.wire import LOG_ID_HEADER


def read_revocation(status: int, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Returns if the access token is revoked.

    Raises `UpstreamError`. `AccessTokenRefused`: the token was dead before, so there is nothing to
    revoke. `UpstreamFailed` itself leaves open whether it was revoked. `now` is Unix time.
    """
    said = anything(msgspec.Raw(body))
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, str) and error and not is_ok(error):
        raise _told(error, said, status, headers, now)
    spoken = read_error(body)
    if spoken is not None and not is_ok(spoken.code):
        raise failure(status, headers, spoken, now)
    if not _is_success(status):
        raise failure(status, headers, None, now)
    if body.strip() and said != {} and spoken is None:
        raise malformed(status, headers)


def _is_success(status: int) -> bool:
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _told(
    code: str, said: object, status: int, headers: Mapping[str, str], now: float
) -> UpstreamError:
    """The error for a flat answer. Its `invalid_grant` is about the access token."""
    texts = said if isinstance(said, dict) else {}
    log_id = short(str(texts.get("log_id") or headers.get(LOG_ID_HEADER, "")))
    description = str(texts.get("error_description", ""))
    error = token_failure(short(code), description, status, log_id, retry_after(headers, now))
    if isinstance(error, GrantRefused):
        return AccessTokenRefused(error.code, status=status, log_id=log_id)
    return error
