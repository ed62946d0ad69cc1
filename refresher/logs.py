"""structlog set-up: one event a line on stdout, nothing secret in it."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import msgspec
import structlog

from refresher.events import LIBRARY_LOGGED, Event

REDACTED: Final = "[redacted]"
SECRET_NAMES: Final = (
    "access_token",
    "refresh_token",
    "client_secret",
    "client_key",
    "token_keys",
    "password",
    "passwd",
    "secret",
    "authorization",
    "x-signature",
    "signature",
    "sig",
)
ANY_NAME: Final = "|".join(SECRET_NAMES)
SECRET_FIELD: Final = re.compile(f"(?i:{ANY_NAME})")
# Tokens by their shape, values by the name before them, passwords by their place in a URL, and
# what PostgreSQL quotes of a row.
SECRET_TEXT: Final = re.compile(
    rf"""
    (?P<keep>\b(?i:bearer)\s+)[^\s"',;]+
    | \b(?:act|rft)\.[^\s"'&,;)}}]+
    | (?P<name>["']?\b(?i:{ANY_NAME})["']?\s*[=:]\s*["']?)[^\s"'&,;)}}]+
    | (?P<user>://[^\s:/@]*:)[^\s/@]+(?=@)
    | (?P<row>\b(?:DETAIL|CONTEXT):).*
    """,
    re.VERBOSE,
)


def emit(event: Event, **fields: object) -> None:
    """Log an event with its fields."""
    getattr(structlog.get_logger(), event.level)(event.name, **fields)


def configure(*, log_format: str, level: str) -> None:
    """Set up structlog and the standard library's logging, which joins in as `library.logged`.

    `log_format` is json, console, or auto: console on a terminal.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            _console() if console else structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=(
            structlog.PrintLoggerFactory(sys.stdout)
            if console
            else structlog.BytesLoggerFactory(sys.stdout.buffer)
        ),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)


def redact(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: no token, secret or signature passes, in a traceback either."""
    return {name: _redacted(name, value) for name, value in entry.items()}


def redacted_text(text: str) -> str:
    """The text with tokens, secrets, signatures and quoted rows made unreadable."""
    return SECRET_TEXT.sub(
        lambda match: "".join(filter(None, match.group("keep", "name", "user", "row"))) + REDACTED,
        text,
    )


def _redacted(name: str, value: object) -> object:
    if SECRET_FIELD.fullmatch(name):
        return REDACTED
    match value:
        case str():
            return redacted_text(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {key: _redacted(str(key), item) for key, item in value.items()}
        case list() | tuple():
            return [_redacted(name, item) for item in value]
        case _:
            return redacted_text(str(value))


def _json(entry: Mapping[str, Any], **_: object) -> bytes:
    return msgspec.json.encode(entry)


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=20)


class _Bridge(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        emit(
            LIBRARY_LOGGED,
            logger=record.name,
            message=record.getMessage(),
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )
