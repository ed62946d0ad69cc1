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
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from refresher.postgres.database import Pool
    from refresher.postgres.snapshot import Snapshot
    from refresher.settings import Settings

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
        now, facts = with_database(settings, lambda pool: _facts(pool, settings))
        return _as_json(facts) if as_json else _table(facts, now)

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


async def _facts(pool: Pool, settings: Settings) -> tuple[datetime, dict[str, Any]]:
    """What is told, and the moment at which it was so."""
    from dataclasses import asdict

    from refresher.postgres.partitioning import count_partitions
    from refresher.postgres.snapshot import read_snapshot
    from refresher.postgres.status import read_leases

    snapshot = await read_snapshot(pool)
    leases, partitions = await read_leases(pool), await count_partitions(pool)
    app, quota, now = snapshot.app, snapshot.quota, snapshot.taken_at
    credentials = settings.app_credentials
    fingerprint = credentials.fingerprint if credentials else None
    return now, {
        "paused_since": app.paused_since,
        **asdict(snapshot.summary),
        "isolated_accounts": sum(
            kind.accounts for kind in snapshot.kinds if kind.state == "isolated"
        ),
        "quota": {
            "since": quota.since,
            "requests": quota.requests,
            "busiest_account_requests": quota.busiest,
            "limit_per_account_and_minute": settings.rate_limit_per_token,
            "limit_per_app_and_minute": settings.rate_limit_per_app,
            "found_per_app_and_minute": app.learned_per_minute,
        },
        "app_credentials_refused_at": app.refused_at(fingerprint, now),
        "replicas": dict(leases),
        "silent_replicas": _silent(snapshot),
        **({} if partitions is None else {"video_partitions": partitions}),
    }


def _silent(snapshot: Snapshot) -> dict[str, datetime | None] | None:
    """When each silent replica was last seen; None: the database does not tell."""
    if snapshot.replicas is None:
        return None
    return {
        one.replica: one.seen_at for one in snapshot.replicas if one.is_silent(snapshot.taken_at)
    }


def _as_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=2, default=lambda moment: moment.isoformat())


def _table(facts: dict[str, Any], now: datetime) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value, style in _rows(facts, now):
        table.add_row(name, unmarked(value), style=style)
    return table


def _rows(facts: dict[str, Any], now: datetime) -> Iterator[tuple[str, str, str | None]]:
    """Names, values, and how they look on a terminal."""
    from refresher.domain.spans import seen_from, span

    reachable = facts["valid"] + facts["expired"] + facts["uncovered"]
    if since := facts["paused_since"]:
        yield "paused", f"everything, since {seen_from(now, since)}: resume --all goes on", "yellow"
    yield "freshness", f"{facts['valid'] / reachable:.2%}" if reachable else "no covers", None
    for name in ("videos", "valid", "expired", "uncovered", "missing", "unreachable", "due"):
        yield name, f"{facts[name]:,}", BAD.get(name) if facts[name] else None
    yield "oldest overdue", span(facts["oldest_overdue_seconds"]), None
    for state, count in facts["accounts"].items():
        yield f"accounts {state}", f"{count:,}", BAD.get(state) if count else None
    yield "accounts isolated", f"{facts['isolated_accounts']:,}", None
    yield from _quota_rows(facts["quota"])
    if refused_at := facts["app_credentials_refused_at"]:
        yield "app credentials", f"refused by TikTok at {seen_from(now, refused_at)}", "bold red"
    for replica, leases in (facts["replicas"] or {"": 0}).items():
        yield "leases now", f"{leases:,} {replica}", None
    for replica, seen_at in (facts["silent_replicas"] or {}).items():
        yield "silent replica", f"{replica}, last seen at {seen_from(now, seen_at)}", "yellow"
    if "video_partitions" in facts:
        yield "video partitions", f"{facts['video_partitions']:,}", None


def _quota_rows(quota: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    from refresher.domain.spans import moment

    used = f"{quota['requests']:,} requests since {moment(quota['since'])}"
    yield "quota", f"{used}, {quota['busiest_account_requests']:,} by the busiest account", None
    yield "limit per account", _limit(quota["limit_per_account_and_minute"]), None
    yield "limit of the app", _limit(quota["limit_per_app_and_minute"]), None
    if (found := quota["found_per_app_and_minute"]) is not None:
        yield "found after 429s", f"about {found:,.0f} requests a minute for the app", "yellow"


def _limit(per_minute: int) -> str:
    return f"{per_minute:,} requests a minute" if per_minute else "none"
