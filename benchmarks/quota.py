"""How much of the quota replicas use, and never more: python -m benchmarks.quota.

Three replicas against the emulator, which counts a true sliding window for each token and answers
429 above the limit. Some accounts have far more due videos than their quota can serve; others,
down to a single chunk, are refreshed as their covers near expiry. All that is judged is the
emulator's own record of what arrived when. Used is the share of limit times minutes, from a minute
after the first request (the first window is full then) until the last.

Takes --minutes and about 1 GB of disk, which it gives back.
"""

import argparse
import asyncio
import csv
import json
import os
import subprocess
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final
from urllib.request import urlopen

import uvloop

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import daemon, print_table, print_verdict
from benchmarks.uneven_fleet import thinned
from benchmarks.world import FIRST_ID, Server, module, postgres
from refresher.emulator.control import CONTROL_PATH
from refresher.emulator.record import RECORD_LENGTH
from refresher.postgres.migrate import migrate
from refresher.simulation.steady_fleet import sizes

DATABASE: Final = "quota"
WINDOW_SECONDS: Final = 60.0
CHUNK: Final = 20
#: Due again after two thirds of it, in which the quota serves 8,000 videos: busy accounts never
#: catch up, and the others come up for refreshing many times.
COVER_TTL_SECONDS: Final = 60
LATENCY_SECONDS: Final = 0.1
IMPORTS: Final = ("accounts", "videos")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as the emulator saw it; `at` is Unix time."""

    at: float
    open_id: str
    ids: int
    error_code: str


def main() -> None:
    options = read_options()
    fleet = fleet_of(options)
    arrivals = uvloop.run(measure(fleet, options))
    show(fleet, arrivals, options)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.quota", __doc__)
    add = parser.add_argument
    add(
        "--minutes", type=real(2), default=10, help="the first is not counted (default %(default)s)"
    )
    add("--replicas", type=whole(), default=3, help="(default %(default)s)")
    add(
        "--limit",
        type=whole(),
        default=600,
        help="requests a minute and token (default %(default)s)",
    )
    add(
        "--busy-accounts",
        type=whole(),
        default=4,
        help="with more due than their quota can serve (default %(default)s)",
    )
    add(
        "--busy-videos",
        type=whole(CHUNK),
        default=20_000,
        help="of each of them (default %(default)s)",
    )
    add(
        "--other-accounts",
        type=whole(10),
        default=200,
        help="of 10 to 900 videos (default %(default)s)",
    )
    return parser.parse_args()


def fleet_of(options: argparse.Namespace) -> Mapping[str, int]:
    """How many videos each account has."""
    others = [size for size in sizes(10_000_000, 100_000) if size < 1000]
    few = thinned(others, max(1, len(others) // options.other_accounts))
    counts = [options.busy_videos] * options.busy_accounts + list(few[: options.other_accounts])
    return {f"-000{number:032x}": count for number, count in enumerate(counts)}


async def measure(fleet: Mapping[str, int], options: argparse.Namespace) -> Sequence[Arrival]:
    with tempfile.TemporaryDirectory(prefix="refresher-bench-") as folder:
        files = _write_files(Path(folder), fleet)
        async with postgres({}) as server:
            await _import(server, files)
            with _emulator(files, options.limit) as base_url, ExitStack() as replicas:
                for _ in range(options.replicas):
                    replicas.enter_context(
                        daemon(server.url(DATABASE), base_url, rate_limit_per_token=options.limit)
                    )
                await asyncio.sleep(60 * options.minutes)
                return _arrivals(base_url)


def _write_files(folder: Path, fleet: Mapping[str, int]) -> Mapping[str, Path]:
    """What both sides import: the accounts and the videos."""
    files = {name: folder / f"{name}.csv" for name in IMPORTS}
    with files["accounts"].open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["open_id", "access_token"])
        rows.writerows([open_id, f"act.{open_id}"] for open_id in fleet)
    ids = iter(range(FIRST_ID, FIRST_ID + sum(fleet.values())))
    with files["videos"].open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["open_id", "video_id"])
        for open_id, count in fleet.items():
            rows.writerows([open_id, next(ids)] for _ in range(count))
    return files


async def _import(server: Server, files: Mapping[str, Path]) -> None:
    await server.copy_database("template0", DATABASE)
    await migrate(server.url(DATABASE))
    environment = {**os.environ, "REFRESHER_DATABASE_URL": server.url(DATABASE)}
    for name, file in files.items():
        command = module("refresher", name, "import", str(file))
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _emulator(files: Mapping[str, Path], limit: int) -> Iterator[str]:
    command = module(
        "refresher",
        "emulator",
        "--port=0",
        "--control",
        f"--rate-limit-per-token={limit}",
        f"--cover-ttl={COVER_TTL_SECONDS}",
        f"--latency={LATENCY_SECONDS}",
        *(f"--{name}={file}" for name, file in files.items()),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            yield served.stdout.readline().strip()
        finally:
            served.terminate()


def _arrivals(base_url: str) -> Sequence[Arrival]:
    with urlopen(f"{base_url}{CONTROL_PATH}/record?last={RECORD_LENGTH}") as answer:
        record = json.load(answer)["requests"]
    return [
        Arrival(entry["at"], entry["open_id"], len(entry["video_ids"]), entry["error_code"])
        for entry in record
    ]


def busiest_window(times: Sequence[float]) -> int:
    """The most requests in any 60 s; one exactly 60 s old has left the window."""
    window: deque[float] = deque()
    most = 0
    for time in times:
        window.append(time)
        while window[0] <= time - WINDOW_SECONDS:
            window.popleft()
        most = max(most, len(window))
    return most


def chunk_fill(arrivals: Iterable[Arrival]) -> float:
    """IDs per request / 20."""
    return fmean(arrival.ids for arrival in arrivals) / CHUNK


def show(
    fleet: Mapping[str, int], arrivals: Sequence[Arrival], options: argparse.Namespace
) -> None:
    busy = list(fleet)[: options.busy_accounts]
    steady, last = arrivals[0].at + WINDOW_SECONDS, arrivals[-1].at
    shares, windows = [], []
    for open_id in busy:
        times = [arrival.at for arrival in arrivals if arrival.open_id == open_id]
        counted = sum(time >= steady for time in times)
        shares.append(counted / (options.limit * (last - steady) / WINDOW_SECONDS))
        windows.append(busiest_window(times))
    print_table(
        ["account", "videos", "quota used", "busiest 60 s"],
        [
            [str(number), f"{fleet[open_id]:,}", f"{share:.2%}", str(window)]
            for number, (open_id, share, window) in enumerate(
                zip(busy, shares, windows, strict=True), 1
            )
        ],
    )
    codes = Counter(arrival.error_code for arrival in arrivals)
    print(f"\nAnswers: {dict(codes)}, {len(fleet) - len(busy)} other accounts.")
    print_verdict(f"at least {min(shares):.2%} of each quota used", met=min(shares) >= 0.97)
    print_verdict(
        f"at most {max(windows)} of {options.limit} requests in any 60 s, "
        f"{codes['rate_limit_exceeded']} answers of 429",
        met=max(windows) <= options.limit and not codes["rate_limit_exceeded"],
    )
    _show_fill(fleet, arrivals, busy)


def _show_fill(fleet: Mapping[str, int], arrivals: Sequence[Arrival], busy: Sequence[str]) -> None:
    full = [arrival for arrival in arrivals if fleet[arrival.open_id] >= CHUNK]
    fill = chunk_fill(full)
    print_verdict(
        f"chunk fill {fill:.4f} over all accounts of {CHUNK} videos or more", met=fill >= 0.98
    )
    others = [arrival for arrival in full if arrival.open_id not in busy]
    # Videos that expire together are asked for together: the last chunk holds what is left.
    least = Counter({open_id: -(-count // CHUNK) for open_id, count in fleet.items()})
    accounts = {arrival.open_id for arrival in others}
    possible = sum(fleet[a] for a in accounts) / CHUNK / sum(least[a] for a in accounts)
    print(
        f"Without the busy accounts {chunk_fill(others):.4f}; whole accounts, each asked for in as "
        f"few requests as can be, come to {possible:.4f}."
    )


if __name__ == "__main__":
    main()
