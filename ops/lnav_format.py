"""The lnav format of the log, made of refresher/events.py. `python -m ops.lnav_format` writes it.

For lnav 0.11 and newer.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from refresher.events import EVENTS, FIELDS

FILE: Final = Path(__file__).parent / "lnav" / "refresher.json"
KINDS: Final = {bool: "boolean", int: "integer", float: "float", dict: "json", list: "json"}
#: What lnav colours, so that one account is seen among others.
IDENTIFIERS: Final = {"code", "holder_application", "open_id", "replica", "state", "video_id"}
#: In the line itself, where an event has them. All others are shown below it, with their names.
TELLING: Final = [
    "open_id",
    "video_id",
    "state",
    "quota",
    "at",
    "loop",
    "code",
    "reason",
    "message",
]
#: Not shown until `:show-fields log_id replica`. SQL finds them all the time.
HIDDEN: Final = {"log_id", "replica", "took_seconds"}
#: With one column of such a name, lnav 0.11 has no table of the format. It shows the field.
SQL_WORDS: Final = {"limit"}
SAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {
        "version": "0.1.0",
        "base_url": "https://open.tiktokapis.com",
        "limit_per_minute": 600,
        "app_limit_per_minute": None,
        "lead_seconds": 3600.0,
        "event": "daemon.started",
    },
    {
        "open_id": "ana",
        "state": "needs_reauthorization",
        "reason": "access_token_invalid",
        "log_id": "20261129",
        "event": "account.parked",
    },
    {"reason": "connection refused", "event": "database.lost"},
)


def columns() -> list[str]:
    """The fields that lnav knows, in the order in which the events name them."""
    named = dict.fromkeys(name for event in EVENTS.values() for name in event.fields)
    return ["replica", *(name for name in named if name not in SQL_WORDS)]


def kind(name: str) -> str:
    """What lnav takes the field for."""
    declared = FIELDS.get(name, str)
    if get_origin(declared) is Literal:
        return "string"
    plain = get_args(declared)[0] if NoneType in get_args(declared) else declared
    return KINDS.get(get_origin(plain) or plain, "string")


def value(name: str) -> dict[str, object]:
    return {
        "kind": kind(name),
        **({"identifier": True} if name in IDENTIFIERS else {}),
        **({"hidden": True} if name in HIDDEN else {}),
    }


def line() -> Iterator[object]:
    """Time, level and event, then what tells most."""
    yield from ({"field": "__timestamp__"}, " ", {"field": "__level__", "min-width": 7}, " ")
    yield {"field": "event"}  # padded, it would be padded in SQL, too
    for name in TELLING:
        yield from (" ", {"field": name, "default-value": ""})


def samples() -> Iterator[dict[str, str]]:
    for sample in SAMPLES:
        always = {
            "level": EVENTS[sample["event"]].level,
            "timestamp": "2026-11-29T02:00:00.736180Z",
            "replica": "host-17-473a",
        }
        yield {"line": json.dumps({**sample, **always})}


def text() -> str:
    """What the file holds."""
    described: dict[str, Any] = {
        "title": "cover-refresher",
        "description": "The log of the cover-refresher: one JSON object a line.",
        "json": True,
        "hide-extra": False,
        "timestamp-field": "timestamp",
        "level-field": "level",
        "body-field": "event",
        "opid-field": "open_id",
        "level": {"error": "^error$", "warning": "^warning$", "info": "^info$"},
        "line-format": list(line()),
        "value": {name: value(name) for name in columns()},
        "sample": list(samples()),
    }
    schema = "https://lnav.org/schemas/format-v1.schema.json"
    return json.dumps({"$schema": schema, "refresher_log": described}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
