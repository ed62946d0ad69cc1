"""`make chaos`, or python -m tests.chaos: a run for each seed. Exit 1 on a violation."""

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.run import Report, run

LARGEST_SEED = 10**6


def main() -> int:
    arguments = _arguments()
    seeds = arguments.seed or [random.randrange(LARGEST_SEED) for _ in range(arguments.runs)]
    failed = [seed for seed in seeds if not _holds(seed, arguments)]
    if failed:
        sys.stdout.write(f"failed: {', '.join(map(str, failed))}\n")
    return 1 if failed else 0


async def _run(seed: int, arguments: argparse.Namespace) -> Report:
    """End our processes when we are told to end."""
    task = asyncio.create_task(run(seed, arguments.seconds, arguments.only))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _holds(seed: int, arguments: argparse.Namespace) -> bool:
    report = asyncio.run(_run(seed, arguments))
    if arguments.report:
        with arguments.report.open("a") as file:
            file.write(report.as_json() + "\n")
    return not report.violations


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=_seeds, default=[], help="one or several, with commas")
    parser.add_argument("--seconds", type=float, default=60, help="of each run")
    parser.add_argument("--runs", type=int, default=1, help="without seeds: so many random ones")
    parser.add_argument(
        "--only", type=_names, default=[], help="only faults whose names begin with one of these"
    )
    parser.add_argument("--report", type=Path, help="append the figures as JSON to this file")
    return parser.parse_args()


def _names(text: str) -> Sequence[str]:
    return text.split(",")


def _seeds(text: str) -> Sequence[int]:
    return [int(seed) for seed in text.split(",")]


try:
    sys.exit(main())
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
