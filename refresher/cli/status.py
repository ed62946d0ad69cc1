"""`status`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refresher.cli.output import WIDE

if TYPE_CHECKING:
    from refresher.postgres.database import Pool


def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Freshness, backlog, accounts by state, quota use, and who holds leases just now."""
    import json

    from refresher.cli.database import with_database
    from refresher.settings import read_settings

    settings = read_settings()
    facts = with_database(settings, lambda pool: _facts(pool, settings.rate_limit_per_token))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_facts(facts)


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


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    quota, reachable = facts["quota"], facts["valid"] + facts["expired"] + facts["uncovered"]
    table = Table(show_header=False, box=None, pad_edge=False)
    if facts["paused_since"]:
        table.add_row("paused", f"everything, since {facts['paused_since']}: resume --all goes on")
    table.add_row("freshness", f"{facts['valid'] / reachable:.2%}" if reachable else "no covers")
    for name in ("videos", "valid", "expired", "uncovered", "missing", "unreachable", "due"):
        table.add_row(name, f"{facts[name]:,}")
    table.add_row("oldest overdue", f"{facts['oldest_overdue_seconds']:,} s")
    for state, count in facts["accounts"].items():
        table.add_row(f"accounts {state}", f"{count:,}")
    table.add_row("accounts isolated", f"{facts['isolated_accounts']:,}")
    table.add_row(
        "quota",
        f"{quota['requests']:,} requests since {quota['since']}, "
        f"{quota['busiest_account_requests']:,} by the busiest account",
    )
    for replica, leases in (facts["replicas"] or {"": 0}).items():
        table.add_row("leases now", f"{leases:,} {replica}")
    if "video_partitions" in facts:
        table.add_row("video partitions", f"{facts['video_partitions']:,}")
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
