"""python -m tests.patroni: each fault so many times, and how long each took. Exit 1 on a violation."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.chaos.run import say
from tests.patroni.cluster import missing_programs, running_cluster
from tests.patroni.run import FAULTS, Report, play

HEAD = (
    "fault",
    "runs",
    "another writes",
    "all fresh",
    "cluster whole",
    "asked again",
    "violations",
)


def main() -> int:
    arguments = _arguments()
    if missing := missing_programs():
        say(f"error: not there: {', '.join(missing)}")
        return 2
    reports: list[Report] = []
    with running_cluster() as cluster:
        for number in range(arguments.times):
            for fault in arguments.fault or FAULTS:
                say(f"{number + 1} of {arguments.times}")
                reports.append(asyncio.run(play(cluster, fault)))
                if arguments.report:
                    with arguments.report.open("a") as file:
                        file.write(json.dumps(asdict(reports[-1])) + "\n")
    say(table(reports))
    return 1 if any(report.violations for report in reports) else 0


def table(reports: Sequence[Report]) -> str:
    """The median and the worst of each fault, in seconds from the fault."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for fault in dict.fromkeys(report.fault for report in reports):
        runs = [report for report in reports if report.fault == fault]
        rows.append(
            (
                fault,
                str(len(runs)),
                _spread([report.writes_after_seconds for report in runs]),
                _spread([report.fresh_after_seconds for report in runs]),
                _spread([report.whole_after_seconds for report in runs]),
                str(sum(report.asked_again for report in runs)),
                str(sum(len(report.violations) for report in runs)),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} s, worst {max(seconds):.1f} s"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.patroni", description=__doc__)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="default: all")
    parser.add_argument("--report", type=Path, help="append the figures as JSON to this file")
    return parser.parse_args()


def _end(*_: object) -> None:
    raise KeyboardInterrupt  # so that the cluster is torn down


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
