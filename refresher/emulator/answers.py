"""What a request is answered with."""

import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from aiohttp import hdrs, web

from refresher.emulator.grants import Refusal
from refresher.emulator.options import Silence
from refresher.tiktok.wire import LOG_ID_HEADER

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


def page(status: int) -> bytes:
    title = f"{status} {HTTPStatus(status).phrase}"
    return f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode()


class Answer(NamedTuple):
    """What a request is answered with."""

    #: As in the record.
    code: str
    response: web.Response | Silence

    @property
    def status(self) -> int:
        return self.response.status if isinstance(self.response, web.Response) else 0

    @property
    def is_whole(self) -> bool:
        return self.status != 0 and self.code != "malformed"


NO_HEADERS: Final[Mapping[str, str]] = {}


def reply(
    body: bytes,
    log_id: str,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] = NO_HEADERS,
) -> web.Response:
    all_headers = {hdrs.CONTENT_TYPE: content_type, LOG_ID_HEADER: log_id, **headers}
    return web.Response(body=body, status=status, headers=all_headers)


def gateway_error(code: str, log_id: str, status: int) -> Answer:
    """Not documented: the HTML body, which is what a gateway in between would answer."""
    response = reply(page(status), log_id, status=status, content_type="text/html")
    return Answer(code, response)


def query_error(
    code: str,
    log_id: str,
    *,
    message: str | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Answer:
    status, usual_message = _ERRORS[code]
    error = {"code": code, "message": message or usual_message, "log_id": log_id}
    body = msgspec.json.encode({"data": {}, "error": error})
    return Answer(code, reply(body, log_id, status=status, headers=headers))


def account_error(refusal: Refusal, log_id: str) -> Answer:
    """Not documented: its words."""
    message = "The request was refused for this user."
    error = {"code": refusal.code, "message": message, "log_id": log_id}
    body = msgspec.json.encode({"data": {}, "error": error})
    return Answer(refusal.code, reply(body, log_id, status=refusal.http_status))


def token_error(code: str, log_id: str, status: int, description: str | None = None) -> Answer:
    description = description or _TOKEN_ERRORS[code]
    error = {"error": code, "error_description": description, "log_id": log_id}
    return Answer(code, reply(msgspec.json.encode(error), log_id, status=status))


def envelope(videos: list[dict[str, str | int]], log_id: str) -> bytes:
    return msgspec.json.encode(
        {
            "data": {"videos": videos, "cursor": 0, "has_more": False},
            "error": {"code": "ok", "message": "", "log_id": log_id},
        }
    )


def new_log_id(now: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + secrets.token_hex(10).upper()
