"""`forecast`."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Annotated, Final

import typer

from refresher.cli.output import Incomplete, Misuse, print_table, printable, unmarked
from refresher.domain.limits import HIGHEST_LIMIT

if TYPE_CHECKING:
    from rich.table import Table

    from refresher.settings import Settings
    from refresher.simulation.outlook import Outlook, Prospect
    from refresher.simulation.outlook_report import Rows

DAY_SECONDS: Final = 86_400


Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=HIGHEST_LIMIT,
        help="Compare with so many requests a minute for the app; else with half the quota.",
    ),
]
FailBelow = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        metavar="PERCENT",
        help="Exit with 1 if the share of valid covers falls below this.",
    ),
]
Days = Annotated[float, typer.Option(min=0.001, max=366, help="How far to look.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def forecast(
    limit: Limit = None,
    fail_below: FailBelow = None,
    days: Days = 7,
    as_json: AsJson = False,
) -> None:
    """Which covers will die, and when, under the quota in force.

    Example: refresher forecast --days 1 --fail-below 99.9
    """
    import json

    from refresher.settings import read_settings
    from refresher.simulation.outlook_report import plain

    if fail_below is not None and isnan(fail_below):
        raise Misuse("--fail-below: expected a number between 0 and 100, not 'nan'")
    settings = read_settings()
    told = _told(settings, days, limit)
    if as_json:
        print(json.dumps(plain(told), indent=2))
    else:
        _print(told)
    _check(told.today, fail_below)


def _told(settings: Settings, days: float, limit: int | None) -> Outlook:
    from functools import partial

    from rich.console import Console

    from refresher.assembly import plan_of
    from refresher.cli.database import with_database
    from refresher.cli.progress import progress
    from refresher.postgres.stored import read_stored
    from refresher.simulation.outlook import look_ahead

    credentials = settings.app_credentials
    fingerprint = credentials.fingerprint if credentials else None
    read = partial(read_stored, managed=settings.renews_tokens, fingerprint=fingerprint)
    with Console(stderr=True).status("reading"):
        stored = with_database(settings, read)
    plan = plan_of(settings, "hourly", days * DAY_SECONDS)
    with progress("simulated minutes") as on_progress:
        return look_ahead(stored, plan, limit, on_progress)


def _check(today: Prospect, fail_below: float | None) -> None:
    from refresher.simulation.report import percent

    if fail_below is not None and today.lowest_valid_share * 100 < fail_below:
        raise Incomplete(
            f"valid covers fall to {percent(today.lowest_valid_share)}, below {fail_below:g}%"
        )


def _print(told: Outlook) -> None:
    from refresher.simulation import outlook_report as report

    for line in filter(None, (report.verdict(told), report.assumed(told))):
        print(printable(line))
    for rows in (report.quotas(told), report.losers(told), list(report.facts(told))):
        if rows:
            print()
            print_table(_table(rows))
    print()
    print(f"It cannot know: {'; '.join(report.CANNOT_KNOW)}.")


def _table(rows: Rows) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*map(unmarked, row))
    return table
