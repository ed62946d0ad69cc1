"""ops/log-schema.json is what refresher/events.py says, and what the suite holds the log to."""

import json
from datetime import datetime
from types import NoneType
from typing import Literal, get_args, get_origin

import msgspec
import pytest
from jsonschema import Draft202012Validator

from ops import log_schema
from refresher.events import EVENTS, FIELDS, OPTIONAL, type_of
from tests.conftest import LINES

EXAMPLES = {
    bool: True,
    datetime: "2026-11-29T02:00:00.123456Z",
    dict[str, int]: {"active": 1},
    float: 0.5,
    int: 3,
    list[str]: ["a"],
    str: "a",
}


def example(kind):
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    return EXAMPLES.get(kind) or example(get_args(kind)[0])


def line(event):
    """A line with this event and an example of each field."""
    always = {
        "timestamp": EXAMPLES[datetime],
        "level": event.level,
        "event": event.name,
        "replica": "a",
    }
    return always | {name: example(type_of(event, name)) for name in event.fields}


def changed(event):
    """Lines that are no lines of this event."""
    good = line(event)
    yield good | {"level": "debug"}
    yield good | {"surprise": 1}
    for name in event.fields:
        if name not in OPTIONAL:
            yield {key: value for key, value in good.items() if key != name}
        yield good | {name: [{}]}
        if NoneType not in get_args(type_of(event, name)):
            yield good | {name: None}


def test_the_file_is_made_of_the_events():
    """After a change of the events: python -m ops.log_schema."""
    assert log_schema.FILE.read_text() == log_schema.text()


def test_each_field_has_a_type_and_an_event():
    """Neither a field without its type nor a type without its field."""
    assert FIELDS.keys() == {name for event in EVENTS.values() for name in event.fields}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_the_schema_and_the_check_of_the_suite_agree(event):
    """Both take a line of each event, and refuse it with a wrong level, field or type."""
    check = Draft202012Validator(json.loads(log_schema.FILE.read_text())).is_valid
    assert check(line(event))
    LINES.decode(msgspec.json.encode(line(event)))
    assert check({name: value for name, value in line(event).items() if name != "replica"})
    for bad in changed(event):
        assert not check(bad), bad
        with pytest.raises(msgspec.ValidationError):
            LINES.decode(msgspec.json.encode(bad))
