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
    failed = [seed for seed in seeds if not _holds(seed, arguments.seconds, arguments.report)]
    if failed:
        sys.stdout.write(f"failed: {', '.join(map(str, failed))}\n")
    return 1 if failed else 0


async def _run(seed: int, seconds: float) -> Report:
    """End our processes when we are told to end."""
    task = asyncio.create_task(run(seed, seconds))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _holds(seed: int, seconds: float, report_file: Path | None) -> bool:
    report = asyncio.run(_run(seed, seconds))
    if report_file:
        with report_file.open("a") as file:
            file.write(report.as_json() + "\n")
    return not report.violations


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=_seeds, default=[], help="one or several, with commas")
    parser.add_argument("--seconds", type=float, default=60, help="of each run")
    parser.add_argument("--runs", type=int, default=1, help="without seeds: so many random ones")
    parser.add_argument("--report", type=Path, help="append the figures as JSON to this file")
    return parser.parse_args()


def _seeds(text: str) -> Sequence[int]:
    return [int(seed) for seed in text.split(",")]


try:
    sys.exit(main())
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
