"""docs/tables.md and the SQL of the first pages, held to the migrated database."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.documented import PAGES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tables.md").read_text()
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


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md", "docs/how-to.md"])
async def test_the_sql_of_a_page_runs_as_it_stands(pool, page):
    """In the order of the page. What makes or changes roles is for the whole server: left out."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGES[page], re.DOTALL)
    assert blocks
    for block in blocks:
        if " ROLE " not in block:
            await pool.execute(block)
