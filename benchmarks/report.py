"""The figures of the comparison as Markdown."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import Figures, Job, Runner, medians
from benchmarks.runners.job import IN_FLIGHT

PACKAGES: Final = (
    "cover-refresher", "aiohttp", "asyncpg", "uvloop", "msgspec", "pgqueuer", "procrastinate",
    "psycopg", "requests",
)  # fmt: skip

CPUINFO: Final = Path("/proc/cpuinfo")
#: What Linux tells of a processor; of a virtual machine's the name alone often says little.
PROCESSOR: Final = re.compile(r"^(model name|cpu family|model)\s*: (.+)$", re.MULTILINE)

#: Heading and cell of each column that is read off the figures alone.
COLUMNS: Final[Sequence[tuple[str, Callable[[Figures], str]]]] = (
    ("client CPU s/million", lambda f: f"{1e6 * f.client_cpu_seconds:.1f}"),
    ("PostgreSQL CPU s/million", lambda f: f"{1e6 * f.postgres_cpu_seconds:.1f}"),
    ("stand-in CPU s/million", lambda f: f"{1e6 * f.stand_in_cpu_seconds:.1f}"),
    ("peak memory MB", lambda f: f"{f.peak_memory_bytes / 1e6:.0f}"),
    ("statements/video", lambda f: f"{f.statements:.4f}"),
    ("commits/video", lambda f: f"{f.commits:.4f}"),
    ("WAL bytes/video", lambda f: f"{f.wal_bytes:,.0f}"),
    ("of it page images", lambda f: f"{f.wal_image_bytes:,.0f}"),
    ("requests/video", lambda f: f"{f.requests:.3f}"),
)
REFRESHER: Final = "refresher"
BARE: Final = "bare"
LARGE: Final = 100
#: The refresher is held to its goals on so many videos: fewer are done before it is at full pace.
FULL_VIDEOS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """A runner's runs, in the order of the repetitions."""

    runner: Runner
    job: Job
    runs: list[Figures]

    def ratio_to(self, other: "Row") -> float:
        """Of videos/s: the median of what each repetition by itself says."""
        pairs = zip(self.runs, other.runs, strict=True)
        return median(own.videos_per_second / its.videos_per_second for own, its in pairs)


@dataclass(frozen=True, slots=True)
class Table:
    latency_seconds: float
    rows: Sequence[Row]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.runner.name == name), None)


@dataclass(frozen=True, slots=True)
class Goal:
    """What the refresher is held to where there is no latency."""

    text: str
    measured: Callable[[Table, Row], float | None]
    at_least: float = 0.0
    at_most: float = inf

    def line(self, table: Table, refresher: Row) -> str | None:
        """None where it was not measured."""
        value = self.measured(table, refresher)
        if value is None:
            return None
        bound = f"at least {self.at_least:g}" if self.at_least else f"at most {self.at_most:g}"
        is_met = self.at_least <= value <= self.at_most
        bare = table.row(BARE)
        # What no care at all comes to on this machine, to tell the machine's share in it.
        of_bare = self.measured(table, bare) if bare else None
        return _line([self.text, bound, _short(value), _short(of_bare), "yes" if is_met else "no"])


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= LARGE else f"{value:.3g}"


def _to(name: str) -> Callable[[Table, Row], float | None]:
    def ratio(table: Table, refresher: Row) -> float | None:
        other = table.row(name)
        return refresher.ratio_to(other) if other else None

    return ratio


def _own(figure: Callable[[Figures], float]) -> Callable[[Table, Row], float | None]:
    return lambda _, refresher: figure(medians(refresher.runs))


GOALS: Final = (
    Goal("videos/s to the bare pipeline", _to(BARE), at_least=0.8),
    Goal("videos/s to the asyncio script", _to("asyncio"), at_least=1),
    Goal("videos/s to PgQueuer", _to("pgqueuer"), at_least=2),
    Goal("videos/s to Procrastinate", _to("procrastinate"), at_least=6),
    Goal("videos/s to the plain script", _to("plain"), at_least=15),
    Goal(
        "client CPU, s a million videos (µs a video)",
        _own(lambda f: 1e6 * f.client_cpu_seconds),
        at_most=25,
    ),
    Goal("WAL bytes/video", _own(lambda f: f.wal_bytes), at_most=800),
    Goal("statements/video", _own(lambda f: f.statements), at_most=0.02),
)


def markdown(tables: Sequence[Table], answers_alone: float, postgres_version: str) -> str:
    parts = [
        _surroundings(postgres_version),
        f"The stand-in alone answers {answers_alone:,.0f} videos/s.",
        *(_table(table) for table in tables),
        *(_goals(table) for table in tables if not table.latency_seconds and table.row(REFRESHER)),
    ]
    return "\n\n".join(parts) + "\n"


def _surroundings(postgres_version: str) -> str:
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({_processor()}), "
        f"Python {platform.python_version()}, PostgreSQL {postgres_version}; {packages}."
    )


def _processor() -> str:
    """Which one the absolute figures are of: from one to another they differ twofold."""
    first_core = CPUINFO.read_text().partition("\n\n")[0] if CPUINFO.exists() else ""
    facts = [f"{name} {fact}" for name, fact in PROCESSOR.findall(first_core)]
    return ", ".join(facts) or platform.machine()


def _table(table: Table) -> str:
    upstream = f"{1000 * table.latency_seconds:.0f} ms" if table.latency_seconds else "no latency"
    most = max(row.job.videos for row in table.rows)
    runs = len(table.rows[0].runs)
    how = f"Medians of {runs} runs" if runs > 1 else "One run each"
    headings = ["", "videos/s", "lowest to highest", "to bare", *(name for name, _ in COLUMNS)]
    caption = (
        f"Upstream: {upstream}. {most:,} videos, {IN_FLIGHT} requests in flight but for the plain "
        f"script. {how}; CPU in seconds a million videos, which is µs a video:"
    )
    lines = [
        caption,
        "",
        _line(headings),
        _line(["---", *["--:"] * (len(headings) - 1)]),
        *(_line(_cells(table, row, most)) for row in table.rows),
    ]
    return "\n".join(lines)


def _cells(table: Table, row: Row, most: int) -> Iterable[str]:
    speeds = [run.videos_per_second for run in row.runs]
    bare = table.row(BARE)
    fewer = f" ({row.job.videos:,} videos)" if row.job.videos < most else ""
    figures = medians(row.runs)
    yield row.runner.title + fewer
    yield f"{figures.videos_per_second:,.0f}"
    yield f"{min(speeds):,.0f} to {max(speeds):,.0f}"
    yield f"{row.ratio_to(bare):.2f}" if bare else ""
    for _, cell in COLUMNS:
        yield cell(figures)


def _goals(table: Table) -> str:
    refresher = table.row(REFRESHER)
    assert refresher is not None
    if refresher.job.videos < FULL_VIDEOS:
        return f"Fewer than {FULL_VIDEOS:,} videos: too short a run to count for what is wanted."
    lines = [goal.line(table, refresher) for goal in GOALS]
    head = [
        "| the refresher, no latency | wanted | measured | the bare pipeline | met |",
        "| --- | --: | --: | --: | --- |",
    ]
    return "\n".join([*head, *(line for line in lines if line)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
