"""structlog set-up: one event a line on stdout, without secrets."""

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from refresher.events import LIBRARY_FAILED, LIBRARY_WARNED, Event


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Inside this context, a module that is not loaded yet cannot be loaded."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # an import finds None and fails
    try:
        yield
    finally:
        del sys.modules[name]


# structlog loads Rich if it is installed, for tracebacks that it never prints here. Without Rich
# the daemon starts sooner and needs less memory.
with _hidden("rich"):
    import structlog


#: How often each event happened in this process, whatever the log level lets through.
emitted: Final = Counter[str]()
REDACTED: Final = "[redacted]"
#: Names of secrets, alone or at the end of a longer name: PGPASSWORD, REFRESHER_TOKEN_KEYS.
LONG_NAMES: Final = (
    "access_token|refresh_token|client_secret|client_key|token_keys|webhook_url|password|passwd"
    "|secret"
)
#: Names of secrets that count only as whole words: "design" is no signature.
SHORT_NAMES: Final = "authorization|x-signature|signature|sig"
SECRET_FIELD: Final = re.compile(f"(?i:[\\w-]*(?:{LONG_NAMES})|{SHORT_NAMES})")
# It finds values by the name before them, quoted or not; tokens by their shape; passwords by their
# place in a URL, up to the last @; and what PostgreSQL quotes of a row, over several lines.
SECRET_TEXT: Final = re.compile(
    rf"""
    (?P<name>(?i:(?<![\w-])[\w-]*(?:{LONG_NAMES})|(?<![\w-])(?:{SHORT_NAMES}))
        \\*["']?\s*(?:[=:]|(?<=["']),)\s*)
        (?:\[redacted\]
           | (?P<quote>\\*["'])(?:(?s:.*?)(?P=quote)|(?s:.*))
           | (?:(?i:bearer|basic)\s+)?[^\s"'&;)\]}}]+)
    | (?P<scheme>\b(?i:bearer|basic)\s+)[^\s"',;]+
    | (?:\b|(?<=%[0-9A-Fa-f]{{2}}))(?:(?:act|rft)\.|whsec_)[^\s"'&,;)}}]+
    | (?P<user>://[^\s:/]*:)(?!\d*(?:[/?\#\s]|$))(?:(?!://)\S)+(?=@)
    | (?P<row>\bDETAIL:)(?s:.*?)(?=\n(?:HINT|CONTEXT|Traceback|The\ above|During)|\n\s*\n|\Z)
    | (?P<context>\bCONTEXT:).*
    """,
    re.VERBOSE,
)
#: A text that cannot hold a secret, as most IDs.
WORD: Final = re.compile(r"[\w-]*")


@dataclass(frozen=True, slots=True)
class Notable:
    """The last warning or error of one name, and how many there were since the process began."""

    count: int
    entry: Mapping[str, Any]


# By name and not one by one: a thousand throttled accounts do not push out the one lost token. As
# many as there are events.
_notable: Final[dict[str, Notable]] = {}


def notable() -> Sequence[Notable]:
    """The warnings and errors that this process has logged, the latest first, without secrets."""
    return sorted(_notable.values(), key=lambda one: str(one.entry["timestamp"]), reverse=True)


def emit(event: Event, **fields: object) -> None:
    """Log an event with its fields."""
    emitted[event.name] += 1
    getattr(structlog.get_logger(), event.level)(event.name, **fields)


def configure(*, log_format: str, level: str, replica: str | None = None) -> None:
    """Set up structlog. What libraries log by the standard library becomes `library.*`.

    `log_format` is json, console, or auto: console on a terminal. Each line that is not for a
    terminal carries the name of the `replica`, if there is one.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([partial(_named, replica)] if replica and not console else []),
            _note,
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
    """A structlog processor that lets no token, secret or signature pass, even in a traceback."""
    return {name: _redacted(name, value) for name, value in entry.items()}


def _named(
    replica: str, _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> Mapping[str, Any]:
    return {**entry, "replica": replica}


def _note(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if entry["level"] in {"warning", "error"}:
        name = str(entry["event"])
        before = _notable.get(name)
        _notable[name] = Notable(before.count + 1 if before else 1, dict(entry))
    return entry


def redacted_text(text: str) -> str:
    """The text with tokens, secrets, signatures and quoted rows made unreadable."""
    return SECRET_TEXT.sub(_redaction, text)


def _redaction(match: re.Match[str]) -> str:
    kept = "".join(filter(None, match.group("name", "scheme", "user", "row", "context")))
    quote = match["quote"] or ""
    return f"{kept}{quote}{REDACTED}{quote}"


def _redacted(name: str, value: object) -> object:
    if _is_secret(name):
        return REDACTED
    match value:
        case str():
            return value if WORD.fullmatch(value) else redacted_text(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {
                redacted_text(str(key)): _redacted(str(key), item) for key, item in value.items()
            }
        case list() | tuple():
            return [_redacted(name, item) for item in value]
        case _:
            return redacted_text(str(value))


@lru_cache(maxsize=1024)  # every line has the same few names
def _is_secret(name: str) -> bool:
    return SECRET_FIELD.fullmatch(name) is not None


def _json(entry: Mapping[str, Any], **_: object) -> bytes:
    try:
        return msgspec.json.encode(entry)
    except UnicodeEncodeError:  # bytes that are no UTF-8, as a header may hold
        return json.dumps(entry).encode()


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), pad_event_to=20, sort_keys=False
    )


class _Bridge(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's own mistake must not raise in the library
            message = str(record.msg)
        event = LIBRARY_FAILED if record.levelno >= logging.ERROR else LIBRARY_WARNED
        emit(
            event,
            logger=record.name,
            message=message,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )
