"""The comparison as a picture: videos/s, a panel for each latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import medians
from benchmarks.report import REFRESHER, Table
from benchmarks.runners.job import CHUNK, IN_FLIGHT

OURS: Final = "#0b7285"
OTHERS: Final = "#adb5bd"
INK: Final = "#343a40"
INCHES: Final = (11.0, 3.8)
NOTE: Final = "Bars: medians. Thin lines: from the lowest run to the highest."


def draw(tables: Sequence[Table], path: Path) -> None:
    """A bar for each median, the fastest of the first panel on top."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra that only the chart needs

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(
        1, len(tables), figsize=INCHES, squeeze=False, layout="constrained"
    )
    names = _fastest_first(tables[0])
    for axes, table in zip(panels[0], tables, strict=True):
        _panel(axes, table, names)
    figure.supxlabel(NOTE, x=0.01, ha="left", fontsize=9, color=INK)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _fastest_first(table: Table) -> Sequence[str]:
    rows = sorted(table.rows, key=lambda row: -medians(row.runs).videos_per_second)
    return [row.runner.name for row in rows]


def _panel(axes: Any, table: Table, names: Sequence[str]) -> None:
    rows = [row for name in names if (row := table.row(name))]
    speeds = [medians(row.runs).videos_per_second for row in rows]
    lowest = [min(run.videos_per_second for run in row.runs) for row in rows]
    highest = [max(run.videos_per_second for run in row.runs) for row in rows]
    places = range(len(rows))
    colors = [OURS if row.runner.name == REFRESHER else OTHERS for row in rows]
    axes.barh(places, speeds, color=colors, height=0.66)
    axes.hlines(places, lowest, highest, color=INK, linewidth=1)
    for place, speed, high in zip(places, speeds, highest, strict=True):
        axes.annotate(
            f"{speed:,.0f}", (max(speed, high), place), (5, 0), textcoords="offset points",
            va="center", color=INK, fontsize=10,
        )  # fmt: skip
    axes.set_yticks(places, [row.runner.title for row in rows], fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(highest))
    axes.set_title(_title(table.latency_seconds), loc="left")
    axes.set_xlabel("videos/s")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _title(latency_seconds: float) -> str:
    if not latency_seconds:
        return "No latency upstream"
    limit = IN_FLIGHT * CHUNK / latency_seconds
    return f"{1000 * latency_seconds:.0f} ms upstream: {IN_FLIGHT} in flight allow {limit:,.0f}"
