"""docs/runbook.md has a section for all that may call somebody at night."""

import re
import shlex
from pathlib import Path

import jq
import pytest

from refresher.events import EVENTS
from tests.unit.test_examples import taken

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = ROOT / "ops" / "prometheus" / "alerts.yml"
SECTIONS = dict(re.findall(r"^## (\S+)\n\n(.+?)\n(?=\n## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
PARTS = ["Meaning", "Impact", "First command", "Fix", "Escalate"]


def test_each_warning_and_each_error_has_its_section():
    """And no section is about something else, but the alerts."""
    told = {name for name in SECTIONS if "." in name}
    assert told == {event.name for event in EVENTS.values() if event.level != "info"}


def test_each_alert_has_its_section():
    """By its name, to which the alert links."""
    alerts = set(re.findall(r"^\s*- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE))
    assert {name for name in SECTIONS if "." not in name} == alerts


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_its_five_parts(name):
    """In this order, none of them empty; the command is one for a shell."""
    parts = re.findall(
        r"^- \*\*(.+?)\*\*: (.+?)(?=\n- \*\*|\Z)", SECTIONS[name], re.MULTILINE | re.DOTALL
    )
    assert [part for part, _ in parts] == PARTS
    command = re.fullmatch("`(.+)`", dict(parts)["First command"])[1]
    program, *words = shlex.split(command)
    assert program in {"refresher", "jq", "psql"}
    if program == "jq":
        jq.compile(words[1])
    if program == "refresher":
        taken(command)


def test_the_list_at_its_top_has_each_section():
    """With a link that leads there."""
    links = re.findall(r"\[([\w.]+)\]\(#(\w+)\)", TEXT)
    assert [name for name, _ in links] == list(SECTIONS)
    assert all(anchor == name.lower().replace(".", "") for name, anchor in links)
