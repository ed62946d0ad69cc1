"""The JSON Schema of the log, made of refresher/events.py. `python -m ops.log_schema` writes it.

A line of a daemon is one of these objects. A later version may add fields and events.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Union

import msgspec

from refresher.events import EVENTS, OPTIONAL, Event, type_of

FILE: Final = Path(__file__).with_name("log-schema.json")
TITLE: Final = "A line of the log of cover-refresher"


def line_type(event: Event) -> type[msgspec.Struct]:
    """What a line with this event holds."""
    own = [(name, type_of(event, name)) for name in event.fields if name not in OPTIONAL]
    lacking = [name for name in event.fields if name in OPTIONAL]
    return msgspec.defstruct(
        event.name,
        [
            ("timestamp", datetime),
            ("level", Literal[event.level]),
            *own,
            ("replica", str | msgspec.UnsetType, msgspec.UNSET),
            *((name, type_of(event, name) | msgspec.UnsetType, msgspec.UNSET) for name in lacking),
        ],
        tag_field="event",
        tag=event.name,
        forbid_unknown_fields=True,
    )


#: Any line of the log.
Line: Any = Union[tuple(line_type(event) for event in EVENTS.values())]  # noqa: UP007 - made when it runs


def schema() -> dict[str, Any]:
    """The JSON Schema of one line."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        **msgspec.json.schema(Line),
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
