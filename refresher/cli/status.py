"""`status`."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refresher.cli.output import print_table, say, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table
    from rich.text import Text

    from refresher.postgres.database import Pool

#: Between two looks of `--watch`.
WATCH_SECONDS: Final = 2.0
#: How a number looks, on a terminal, that should be zero.
BAD: Final = {
    "expired": "bold red",
    "needs_reauthorization": "yellow",
    "needs_scope": "yellow",
}


def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> None:
    """Freshness, backlog, accounts by state, quota use, and who holds leases just now.

    Example: refresher status --json
    """
    from refresher.cli.database import with_database
    from refresher.settings import read_settings

    settings = read_settings()

    def told() -> Table | str:
        facts = with_database(settings, lambda pool: _facts(pool, settings.rate_limit_per_token))
        return json.dumps(facts, indent=2) if as_json else _table(facts)

    if watch:
        _watch(told)
    else:
        _show(told())


def _watch(told: Callable[[], Table | str]) -> None:
    """One picture that changes on a terminal, else one text after the other.

    A database that is away in between is waited for.
    """
    from rich.console import Console
    from rich.live import Live

    shown: Table | str = told()  # a mistake of the operator ends it
    with suppress(KeyboardInterrupt):
        if not sys.stdout.isatty():
            while True:
                _show(shown)
                sleep(WATCH_SECONDS)
                shown = _told_again(told)
        with Live(_drawn(shown), console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                sleep(WATCH_SECONDS)
                live.update(_drawn(_told_again(told)), refresh=True)


def _drawn(shown: Table | str) -> Table | Text:
    from rich.text import Text

    # A string would be read as markup.
    return Text(shown) if isinstance(shown, str) else shown


def _told_again(told: Callable[[], Table | str]) -> Table | str:
    from refresher.domain.errors import DatabaseUnavailable

    try:
        return told()
    except DatabaseUnavailable as error:
        say(f"database: {error}; asked again in {WATCH_SECONDS:g} s")
        return ""


def _show(shown: Table | str) -> None:
    if isinstance(shown, str):
        print(shown, flush=True)
    else:
        print_table(shown)


async def _facts(pool: Pool, limit_per_token: int) -> dict[str, Any]:
    from dataclasses import asdict

    from refresher.postgres import status
    from refresher.postgres.partitioning import count_partitions

    summary = await status.read_summary(pool)
    quota = await status.read_quota(pool)
    partitions = await count_partitions(pool)
    paused_since = await status.read_paused_since(pool)
    return {
        "paused_since": paused_since.isoformat() if paused_since else None,
        **asdict(summary),
        "isolated_accounts": await status.count_isolated(pool),
        "quota": {
            "since": quota.since.isoformat(),
            "requests": quota.requests,
            "busiest_account_requests": quota.busiest,
            "limit_per_account_and_minute": limit_per_token,
        },
        "replicas": dict(await status.read_replicas(pool)),
        **({} if partitions is None else {"video_partitions": partitions}),
    }


def _table(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    quota, reachable = facts["quota"], facts["valid"] + facts["expired"] + facts["uncovered"]
    table = Table(show_header=False, box=None, pad_edge=False)
    if facts["paused_since"]:
        since = facts["paused_since"]
        table.add_row("paused", f"everything, since {since}: resume --all goes on", style="yellow")
    table.add_row("freshness", f"{facts['valid'] / reachable:.2%}" if reachable else "no covers")
    for name in ("videos", "valid", "expired", "uncovered", "missing", "unreachable", "due"):
        table.add_row(name, f"{facts[name]:,}", style=BAD.get(name) if facts[name] else None)
    table.add_row("oldest overdue", f"{facts['oldest_overdue_seconds']:,} s")
    for state, count in facts["accounts"].items():
        style = BAD.get(state) if count else None
        table.add_row(f"accounts {state}", f"{count:,}", style=style)
    table.add_row("accounts isolated", f"{facts['isolated_accounts']:,}")
    table.add_row(
        "quota",
        f"{quota['requests']:,} requests since {quota['since']}, "
        f"{quota['busiest_account_requests']:,} by the busiest account",
    )
    for replica, leases in (facts["replicas"] or {"": 0}).items():
        table.add_row("leases now", unmarked(f"{leases:,} {replica}"))
    if "video_partitions" in facts:
        table.add_row("video partitions", f"{facts['video_partitions']:,}")
    return table
