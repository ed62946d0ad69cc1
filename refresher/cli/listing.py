"""Rows that are printed as they come, page by page: for people, or for programs."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refresher.cli.output import Misuse, print_table, short, unmarked
from refresher.domain.cells import safe_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    Row = Mapping[str, Any]
    Pages = AsyncIterator[Sequence[Row]]

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
    from rich.table import Table

    header = True
    async for page in pages:
        if not page and not header:
            continue
        table = Table(*columns, box=None, pad_edge=False, show_header=header)
        for row in page:
            table.add_row(*(unmarked(cell_of(row)) for cell_of in columns.values()))
        print_table(table)
        header = False


def text(column: str) -> Callable[[Row], str]:
    """The cell of a table for a column: a number with commas, a time to the second."""

    def cell_of(row: Row) -> str:
        value = row[column]
        if isinstance(value, datetime):
            return short(value)
        return f"{value:,}" if isinstance(value, int) else value or ""

    return cell_of
