"""docs/tables.md, held to the migrated database."""

import re
from collections import defaultdict
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
COLUMN = re.compile(r"^\| `(\w+)` \| ([a-z ]+) \| (writes|reads|owns) \| .+ \|$", re.MULTILINE)
LONG_NAMES = {"timestamptz": "timestamp with time zone"}


def section(title):
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def listed(table):
    return {
        name: LONG_NAMES.get(kind, kind)
        for name, kind, _ in COLUMN.findall(section(f"refresher.{table}"))
    }


async def test_every_table_and_column_is_listed_with_its_type(pool):
    """Columns of the two tables that applications use; of the others the name."""
    columns = defaultdict(dict)
    for row in await pool.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'refresher'"
    ):
        columns[row["table_name"]][row["column_name"]] = row["data_type"]
    assert listed("accounts") == columns.pop("accounts")
    assert listed("videos") == columns.pop("videos")
    others = re.findall(r"^\| `(\w+)` \|", section("Other tables"), re.MULTILINE)
    assert sorted(others) == sorted(columns)
