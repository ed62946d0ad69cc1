"""Rows that are printed as they come, page by page: for people, or for programs."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refresher.cli.output import Misuse, print_table, say, short, terminal_width, unmarked
from refresher.domain.spreadsheet import safe_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from rich.table import Table
    from rich.text import Text

    Row = Mapping[str, Any]
    Pages = AsyncIterator[Sequence[Row]]

#: Between two columns of a table.
GAP: Final = 2

AsJson = Annotated[bool, typer.Option("--json", help="A JSON array, for programs.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV, for spreadsheets and imports.")]


def one_of(option: str, value: str | None, choices: Sequence[str]) -> str | None:
    """The value, if there is one. Raises `Misuse`."""
    if value is not None and value not in choices:
        raise Misuse(
            f"{option}: expected {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}"
        )
    return value


def printing(
    columns: Mapping[str, Callable[[Row], str]],
    fields: Sequence[str],
    *,
    as_json: bool,
    as_csv: bool,
) -> Callable[[Pages], Any]:
    """What prints all pages; `columns` are those of the table, `fields` of CSV. Raises `Misuse`."""
    if as_json and as_csv:
        raise Misuse("expected --json or --csv, not both")
    if as_json:
        return _print_json
    if as_csv:
        return lambda pages: _print_csv(fields, pages)
    return lambda pages: _print_table(columns, pages)


async def _print_json(pages: Pages) -> None:
    before = "["
    async for page in pages:
        for row in page:
            print(before + json.dumps(row, default=datetime.isoformat))
            before = ","
    print("]" if before == "," else "[]")


async def _print_csv(fields: Sequence[str], pages: Pages) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    header = [fields]
    async for page in pages:
        writer.writerows(header)
        writer.writerows([_cell(row[field]) for field in fields] for row in page)
        header = []
    writer.writerows(header)


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return safe_cell(value) if isinstance(value, str) else value


async def _print_table(columns: Mapping[str, Callable[[Row], str]], pages: Pages) -> None:
    shown: Sequence[str] = []
    left_out: set[str] = set()
    async for page in pages:
        if not page:
            continue
        cells = {
            name: [unmarked(cell_of(row)) for row in page] for name, cell_of in columns.items()
        }
        fitting = _fitting(cells)
        print_table(_table({name: cells[name] for name in fitting}, show_header=fitting != shown))
        shown = fitting
        left_out |= columns.keys() - set(fitting)
    if not shown and terminal_width() is not None:
        say("nothing to list")
    if left_out:
        names = ", ".join(repr(name) for name in columns if name in left_out)
        say(f"left out, as this terminal is too narrow: {names}; --csv and --json have everything")


def _fitting(cells: Mapping[str, Sequence[Text]]) -> Sequence[str]:
    """The columns: on a terminal the first ones that stand side by side in it, at least one."""
    names, width = list(cells), terminal_width()
    if width is None:
        return names
    widths = (
        max([len(name), *(text.cell_len for text in texts)]) + GAP for name, texts in cells.items()
    )
    return names[: max(1, sum(end <= width + GAP for end in accumulate(widths)))]


def _table(cells: Mapping[str, Sequence[Text]], *, show_header: bool) -> Table:
    from rich.table import Table

    table = Table(*cells, box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=show_header)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def text(column: str) -> Callable[[Row], str]:
    """The cell of a table for a column: a number with commas, a time to the second."""

    def cell_of(row: Row) -> str:
        value = row[column]
        if isinstance(value, datetime):
            return short(value)
        return f"{value:,}" if isinstance(value, int) else value or ""

    return cell_of
