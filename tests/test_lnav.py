"""ops/lnav/refresher.json: lnav shows the log, and finds its fields with SQL."""

import csv
import json
import os
import shutil
import subprocess

import pytest

from ops import lnav_format
from refresher.events import EVENTS, FIELDS
from tests.conftest import check_line

FORMAT = json.loads(lnav_format.FILE.read_text())["refresher_log"]
NAMES = {name for event in EVENTS.values() for name in event.fields}


def test_the_file_is_made_of_the_events():
    """After a change of the events: python -m ops.lnav_format."""
    assert lnav_format.FILE.read_text() == lnav_format.text()


def test_each_field_is_known():
    """As a value; those that are shown or hidden are fields of events."""
    assert FORMAT["value"].keys() == NAMES - {"limit"} | {"replica"}
    shown = {part["field"] for part in FORMAT["line-format"] if isinstance(part, dict)}
    assert {name for name in shown if not name.startswith("__")} <= NAMES | {"event"}
    assert FORMAT["value"].keys() >= lnav_format.HIDDEN | lnav_format.IDENTIFIERS
    assert {name for name, value in FORMAT["value"].items() if value["kind"] == "json"} == {
        name for name in NAMES if FIELDS[name] in {dict[str, int], list[str]}
    }


def test_its_samples_are_lines_of_the_log():
    """By the schema of the log."""
    for sample in FORMAT["sample"]:
        check_line(sample["line"])


@pytest.mark.skipif(not shutil.which("lnav"), reason="lnav is not installed")
def test_lnav_reads_it(tmp_path):
    """It takes the format, shows an event with its account, and finds fields by name."""
    formats = tmp_path / ".lnav" / "formats" / "refresher"
    formats.mkdir(parents=True)
    shutil.copy(lnav_format.FILE, formats)
    log = tmp_path / "refresher.log"
    log.write_text("".join(sample["line"] + "\n" for sample in FORMAT["sample"]))

    def lnav(*arguments):
        environment = {**os.environ, "HOME": str(tmp_path)}
        environment.pop("XDG_CONFIG_HOME", None)
        return subprocess.run(
            ["lnav", "-n", *arguments, log],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    assert "warning account.parked ana" in lnav()
    query = ";SELECT log_body, open_id, log_level FROM refresher_log WHERE log_id <> ''"
    rows = list(csv.reader(lnav("-c", query, "-c", ":write-csv-to -").splitlines()))
    assert ["account.parked", "ana", "warning"] in rows
