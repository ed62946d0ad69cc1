"""How long `doctor` looks at a large fleet, and what a CLUSTER gains: python -m benchmarks.doctor.

A fleet of very unequal accounts (see benchmarks/uneven_fleet.py), its rows scattered all over the
table, tokens sealed. The command is run several times, as an operator runs it: the first time just
after the server has started. Then claims are made, each with its release, and the pages are counted
that a claim reads in the server's buffers; then the same again after a CLUSTER.

Takes eight minutes on a busy machine, and 4 GB of disk.
"""

import argparse
import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter
from typing import Any, Final

import uvloop
from cryptography.fernet import Fernet

from benchmarks.arguments import parser_of, whole
from benchmarks.flat import CHUNK_BUDGET, DUE_ONE_IN, LEASE_SECONDS, LIMIT, SETTINGS
from benchmarks.live import MB, postgres, print_table, print_verdict, quantile
from benchmarks.uneven_fleet import fall_due, load
from benchmarks.world import Server, module, settle
from refresher.domain.conclude import conclude
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.claims import CLAIM
from refresher.postgres.database import connected
from refresher.postgres.sealing import Sealer, rotate_all
from refresher.simulation.steady_fleet import sizes

DATABASE: Final = "fleet"
RUNS: Final = 5
LONGEST_SECONDS: Final = 5.0
CLAIMS: Final = 100

PAGES: Final = """
SELECT calls, shared_blks_hit + shared_blks_read AS pages
FROM pg_stat_statements
WHERE query = $1
"""


@dataclass
class Claims:
    """What claims cost."""

    milliseconds: list[float] = field(default_factory=list)
    accounts: int = 0
    videos: int = 0
    pages: float = 0


@dataclass
class Figures:
    """Of one fleet."""

    doctor_seconds: list[float] = field(default_factory=list)
    #: Of the command, all runs together: on a busy machine it says more than the clock.
    doctor_cpu_seconds: float = 0
    findings: Sequence[Mapping[str, str]] = ()
    table_mb: float = 0
    cluster_seconds: float = 0
    scattered: Claims = field(default_factory=Claims)
    clustered: Claims = field(default_factory=Claims)


def main() -> None:
    parser = parser_of("python -m benchmarks.doctor", __doc__)
    add = parser.add_argument
    add("--accounts", type=whole(100), default=10_000, help="(default %(default)s)")
    add("--videos", type=whole(), default=1_000_000, help="of all of them (default %(default)s)")
    show(uvloop.run(measure(parser.parse_args())))


async def measure(options: argparse.Namespace) -> Figures:
    figures, key = Figures(), Fernet.generate_key().decode()
    async with postgres(SETTINGS) as server:
        await load(server, DATABASE, sizes(options.videos, options.accounts))
        async with connected(server.url(DATABASE), application_name="doctor") as pool:
            await rotate_all(pool, Sealer([key]))
        async with server.connected(DATABASE) as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await settle(connection)
            size = "SELECT pg_table_size('refresher.videos') / $1::float8"
            figures.table_mb = await connection.fetchval(size, MB)
            for _ in range(RUNS):
                figures.findings = await asyncio.to_thread(_doctor, server, key, figures)
            await _claim(server, connection, figures.scattered)
            begun = perf_counter()
            await connection.execute("CLUSTER refresher.videos USING videos_pkey")
            figures.cluster_seconds = perf_counter() - begun
            await settle(connection)
            await _claim(server, connection, figures.clustered)
    return figures


def _doctor(server: Server, key: str, figures: Figures) -> Sequence[Mapping[str, str]]:
    settings = {"REFRESHER_DATABASE_URL": server.url(DATABASE), "REFRESHER_TOKEN_KEYS": key}
    begun, cpu = perf_counter(), _cpu_of_ended()
    done = subprocess.run(
        module("refresher", "doctor", "--json"),
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        check=False,
    )
    figures.doctor_seconds.append(perf_counter() - begun)
    figures.doctor_cpu_seconds += _cpu_of_ended() - cpu
    findings: Sequence[Mapping[str, str]] = json.loads(done.stdout)["findings"]
    return findings


def _cpu_of_ended() -> float:
    spent = getrusage(RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


async def _claim(server: Server, connection: Any, claims: Claims) -> None:
    """Claims of due accounts, each with its release."""
    await fall_due(connection, DUE_ONE_IN)
    await settle(connection)
    async with connected(server.url(DATABASE), application_name="doctor") as pool:
        leases = Accounts(pool, replica="doctor", pace=Pace(LIMIT, 0, lease_seconds=LEASE_SECONDS))
        await leases.claim(1)  # connects and prepares
        await connection.fetchval("SELECT pg_stat_statements_reset()")
        for _ in range(CLAIMS):
            begun = perf_counter()
            claimed = await leases.claim(CHUNK_BUDGET)
            claims.milliseconds.append(1000 * (perf_counter() - begun))
            claims.accounts += len(claimed)
            claims.videos += sum(len(claim.videos) for claim in claimed)
            ended = [conclude(one, [], 0.0, answered=True, requests=one.chunks) for one in claimed]
            await leases.release(ended)
    row = await connection.fetchrow(PAGES, CLAIM.text)
    claims.pages = row["pages"] / row["calls"]


def show(figures: Figures) -> None:
    first, *others = figures.doctor_seconds
    print(f"videos: {figures.table_mb:,.0f} MB")
    print(f"doctor: {first:.2f} s, then {min(others):.2f} to {max(others):.2f} s")
    print(f"of it {figures.doctor_cpu_seconds / RUNS:.2f} s of CPU in the command")
    for finding in figures.findings:
        print(f"  {finding['outcome']:8} {finding['id']:26} {finding['text']}")
    rows: Mapping[str, Callable[[Claims], float]] = {
        "accounts a claim": lambda claims: claims.accounts / CLAIMS,
        "videos a claim": lambda claims: claims.videos / CLAIMS,
        "pages a claim": lambda claims: claims.pages,
        "a claim, median ms": lambda claims: quantile(claims.milliseconds, 0.5),
        "a claim, 95th percentile ms": lambda claims: quantile(claims.milliseconds, 0.95),
    }
    both = (figures.scattered, figures.clustered)
    print_table(
        ("", "scattered", f"after a CLUSTER of {figures.cluster_seconds:,.0f} s"),
        ((name, *(f"{value(claims):,.1f}" for claims in both)) for name, value in rows.items()),
    )
    print_verdict(
        f"doctor takes {LONGEST_SECONDS:.0f} s at most",
        met=max(figures.doctor_seconds) <= LONGEST_SECONDS,
    )


if __name__ == "__main__":
    main()
