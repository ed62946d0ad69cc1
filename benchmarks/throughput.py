"""How fast one daemon refreshes covers that are all due: python -m benchmarks.throughput.

Everything is real: the daemon as shipped in a process of its own, PostgreSQL, and the emulator in
another process. No rate limit and no latency, so that what is measured is the machine.
"""

import argparse
import asyncio
import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import asyncpg
import psutil

from refresher.demo import temporary_postgres

LONGEST_SECONDS = 300
IDS_FROM = 7_000_000_000_000_000_000


@dataclass
class Figures:
    videos_per_second: float
    daemon_cpu_seconds: float
    postgres_cpu_seconds: float
    emulator_cpu_seconds: float
    peak_memory_mb: float
    transactions_per_video: float
    wal_bytes_per_video: float
    requests_per_video: float
    hot_share: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--videos-each", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds, upstream")
    parser.add_argument("--limit", type=int, default=0, help="requests a minute and token")
    options = parser.parse_args()
    figures = asyncio.run(measure(options))
    for name, value in vars(figures).items():
        print(f"{name:24} {value:12,.3f}")


async def measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as folder, temporary_postgres() as url:
        accounts, videos = write_files(Path(folder), options.accounts, options.videos_each)
        for command in (
            ["migrate"],
            ["accounts", "import", str(accounts)],
            ["videos", "import", str(videos)],
        ):
            subprocess.run(refresher(*command), env=environment(url), check=True)
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
            with emulator(options, accounts, videos) as (base_url, emulating):
                return await run(connection, url, base_url, emulating, options)
        finally:
            await connection.close()


async def run(
    connection: "asyncpg.Connection[asyncpg.Record]",
    url: str,
    base_url: str,
    emulating: psutil.Process,
    options: argparse.Namespace,
) -> Figures:
    total = options.accounts * options.videos_each
    pid_file = await connection.fetchval("SELECT pg_read_file('postmaster.pid')")
    postmaster = psutil.Process(int(pid_file.split()[0]))
    emulator_before = cpu_seconds(emulating)
    before = await counters(connection)
    with process(
        refresher("run"),
        environment(
            url,
            REFRESHER_TIKTOK_BASE_URL=base_url,
            REFRESHER_RATE_LIMIT_PER_TOKEN=str(options.limit),
            REFRESHER_LOG_FORMAT="json",
        ),
    ) as daemon:
        postgres_before = cpu_seconds(postmaster, children=True)
        started, polls = monotonic(), 0
        while await valid(connection) < total:
            polls += 1
            if monotonic() - started > LONGEST_SECONDS:
                raise SystemExit(f"not all covers valid after {LONGEST_SECONDS} s")
            await asyncio.sleep(0.1)
        seconds = monotonic() - started
        daemon_cpu, memory = cpu_seconds(daemon), peak_memory(daemon)
        postgres_cpu = cpu_seconds(postmaster, children=True) - postgres_before
        emulator_cpu = cpu_seconds(emulating) - emulator_before
    await connection.fetchval("SELECT pg_stat_clear_snapshot()")
    await asyncio.sleep(1.5)  # the server counts transactions with a delay of a second
    after = await counters(connection)
    requests = await connection.fetchval("SELECT sum(requests) FROM refresher.accounts")
    return Figures(
        videos_per_second=total / seconds,
        daemon_cpu_seconds=daemon_cpu,
        postgres_cpu_seconds=postgres_cpu,
        emulator_cpu_seconds=emulator_cpu,
        peak_memory_mb=memory / 1e6,
        transactions_per_video=(after["commits"] - before["commits"] - polls) / total,
        wal_bytes_per_video=float(after["wal"] - before["wal"]) / total,
        requests_per_video=requests / total,
        hot_share=(after["hot"] - before["hot"]) / (after["updates"] - before["updates"]),
    )


def write_files(folder: Path, accounts: int, videos_each: int) -> tuple[Path, Path]:
    accounts_file, videos_file = folder / "accounts.csv", folder / "videos.csv"
    with accounts_file.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["open_id", "access_token"])
        rows.writerows([f"-000{n:032x}", f"act.{n:064x}"] for n in range(accounts))
    with videos_file.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["open_id", "video_id"])
        for n in range(accounts):
            first = IDS_FROM + n * videos_each
            rows.writerows([f"-000{n:032x}", str(first + k)] for k in range(videos_each))
    return accounts_file, videos_file


@contextmanager
def emulator(
    options: argparse.Namespace, accounts: Path, videos: Path
) -> Iterator[tuple[str, psutil.Process]]:
    command = refresher(
        "emulator",
        "--port=0",
        "--rate-limit-per-token=0",
        f"--latency={options.latency}",
        f"--accounts={accounts}",
        f"--videos={videos}",
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            yield served.stdout.readline().strip(), psutil.Process(served.pid)
        finally:
            served.terminate()


@contextmanager
def process(command: list[str], env: dict[str, str]) -> Iterator[psutil.Process]:
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as started:
        try:
            yield psutil.Process(started.pid)
        finally:
            started.send_signal(signal.SIGTERM)
            if started.wait(30) != 0:
                raise SystemExit(f"the daemon ended with {started.returncode}")


def refresher(*command: str) -> list[str]:
    return [sys.executable, "-m", "refresher", *command]


def environment(url: str, **more: str) -> dict[str, str]:
    return {**os.environ, "REFRESHER_DATABASE_URL": url, **more}


def cpu_seconds(process: psutil.Process, *, children: bool = False) -> float:
    """User and system time; with children also that of those that have ended."""
    times = process.cpu_times()
    own = times.user + times.system
    if not children:
        return own
    alive = sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True))
    return own + times.children_user + times.children_system + alive


def peak_memory(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])


async def valid(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    count: int = await connection.fetchval("SELECT sum(valid) FROM refresher.accounts")
    return count


async def counters(connection: "asyncpg.Connection[asyncpg.Record]") -> asyncpg.Record:
    row = await connection.fetchrow("""
        SELECT d.xact_commit AS commits, t.n_tup_upd AS updates, t.n_tup_hot_upd AS hot,
               pg_current_wal_lsn() - '0/0'::pg_lsn AS wal
        FROM pg_stat_database AS d, pg_stat_user_tables AS t
        WHERE d.datname = current_database() AND t.relname = 'videos'
    """)
    assert row is not None
    return row


if __name__ == "__main__":
    main()
