"""docs/events.md and the code tell the same."""

import ast
import re
from pathlib import Path

from refresher import events

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([\w.]+)` \| (\w+) \| (.*?) \| .+ \| .+ \|$", re.MULTILINE)


def test_the_list_and_the_code_agree():
    """Names, levels and fields, in both directions; each event has one row."""
    rows = ROW.findall((ROOT / "docs" / "events.md").read_text())
    listed = {name: (level, tuple(re.findall(r"`(\w+)`", fields))) for name, level, fields in rows}
    assert len(listed) == len(rows)
    assert listed == {name: (event.level, event.fields) for name, event in events.EVENTS.items()}


def test_names_are_noun_and_past_tense():
    """`noun.past_tense`, for people who search the logs."""
    for name in events.EVENTS:
        # What lies ahead is no past: one name of the interface.
        assert re.fullmatch(r"[a-z]+\.([a-z]*(ed|lost|grown)|at_risk)", name), name


def emissions():
    """Every `emit(...)` call in the package: file, event, and the fields it names."""
    for path in sorted((ROOT / "refresher").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).rpartition(".")[2] == "emit"
                and node.args
            ):
                named = {keyword.arg for keyword in node.keywords}
                if isinstance(node.args[0], ast.Name) and node.args[0].id == "event":
                    # The bridge for libraries picks one of two.
                    yield path.name, events.LIBRARY_WARNED, named
                    yield path.name, events.LIBRARY_FAILED, named
                else:
                    name = ast.unparse(node.args[0]).rpartition(".")[2]
                    yield path.name, getattr(events, name), named


def test_every_event_is_emitted_with_its_fields():
    """No event without its place in the code, no field that the list does not know."""
    emitted = set()
    for file, event, named in emissions():
        emitted.add(event.name)
        fields = {"exception" if name == "exc_info" else name for name in named}
        if None not in fields:
            assert fields == set(event.fields), (file, event.name)
        else:
            assert fields - {None} <= set(event.fields), (file, event.name)
    assert emitted == set(events.EVENTS)
