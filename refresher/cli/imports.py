"""What `accounts import` and `videos import` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from refresher.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from refresher.csv_files.complaints import Doubts
    from refresher.postgres.database import Pool


def csv_file(columns: Sequence[str], needed: Sequence[str]) -> Any:
    optional = ", ".join(column for column in columns if column not in needed)
    return typer.Argument(
        metavar="FILE",
        help=f"CSV with the columns {', '.join(needed)} and, where they are known, {optional};"
        " - reads standard input.",
    )


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check all of it, say what would be done, write nothing.")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse what is only warned of: other columns, IDs that look rounded."
    ),
]


def doubts_of(*, strict: bool) -> Doubts:
    from refresher.csv_files.complaints import Doubts

    return Doubts(strict, lambda doubt: say(f"warning: {doubt}"))


def import_file(file: Path, read: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    from refresher.cli.database import with_database
    from refresher.csv_files.complaints import BadFileError, named
    from refresher.postgres import imports
    from refresher.settings import read_settings

    try:
        with_database(read_settings(), read)
    except imports.ImportRefusedError as error:
        complaints = (f"{named(file)}:{line}: {told}" for line, told in error.complaints)
        raise BadFileError(*complaints, more=error.more) from None
    except imports.NothingToImportError:
        raise BadFileError(f"{named(file)}: expected rows below the header") from None
