"""A forecast as a picture: valid covers above, requests below. Needs the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from refresher.domain.spans import counted
from refresher.simulation.forecast import HOUR_MINUTES, Forecast
from refresher.simulation.plan import DAY_SECONDS, HOUR_SECONDS, MINUTE_SECONDS, Plan

GREEN: Final = "#1a7f5a"
BLUE: Final = "#1f4e8c"
PALE_BLUE: Final = "#b9cde6"
RED: Final = "#b3261e"
GREY: Final = "#5f6368"
PALE_GREY: Final = "#e4e6ea"
#: Where all stays valid the axis still shows so much.
LEAST_SPAN: Final = 0.01
#: Up to so many days the axis counts hours.
FEW_DAYS: Final = 3


def draw(forecast: Forecast, plan: Plan, file: Path) -> None:
    """Write a PNG. Raises OSError."""
    unit, unit_seconds = ("hours", HOUR_SECONDS) if _is_short(plan) else ("days", DAY_SECONDS)
    figure = Figure(figsize=(10, 6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.5])
    figure.suptitle(_title(forecast, plan), fontsize=11)
    minutes = range(len(forecast.requests_by_minute))
    times = [minute * MINUTE_SECONDS / unit_seconds for minute in minutes]
    _draw_valid(above, forecast, times, unit_seconds)
    _draw_requests(below, forecast, plan, times)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=PALE_GREY, linewidth=0.8)
        axes.set_axisbelow(True)
    below.set_xlim(0, plan.seconds / unit_seconds)
    below.set_xlabel(unit)
    below.xaxis.set_major_locator(MaxNLocator(nbins=14, steps=[1, 2, 3, 4, 6, 10], integer=True))
    figure.savefig(file, format="png")


def _is_short(plan: Plan) -> bool:
    return plan.seconds <= FEW_DAYS * DAY_SECONDS


def _title(forecast: Forecast, plan: Plan) -> str:
    ttl = "hourly covers" if plan.ttl == "hourly" else f"covers of {plan.ttl / HOUR_SECONDS:g} h"
    fleet = f"{counted(forecast.videos, 'video')} of {counted(forecast.accounts, 'account')}"
    told = [fleet, ttl]
    if plan.pace.limit_per_token:
        told.append(f"{counted(plan.pace.limit_per_token, 'request')} a minute with a token")
    if plan.pace.limit_per_app:
        told.append(f"{plan.pace.limit_per_app:,} in all")
    return ", ".join(told)


def _draw_valid(
    axes: Axes, forecast: Forecast, times: Sequence[float], unit_seconds: float
) -> None:
    axes.plot(times, forecast.valid_share_by_minute, color=GREEN, linewidth=1.6)
    span = max(LEAST_SPAN, 1.1 * (1 - forecast.lowest_valid_share))
    axes.set_ylim(1 - span, 1 + span / 12)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_ylabel("valid covers")
    death = forecast.first_death_seconds
    if death is not None:
        axes.axvline(death / unit_seconds, color=RED, linewidth=1, linestyle="--")
        axes.annotate(
            "the first dies",
            (death / unit_seconds, 1 - span),
            textcoords="offset points",
            xytext=(5, 4),
            color=RED,
            fontsize=9,
        )


def _draw_requests(axes: Axes, forecast: Forecast, plan: Plan, times: Sequence[float]) -> None:
    requests = forecast.requests_by_minute
    axes.fill_between(times, requests, step="post", color=PALE_BLUE, label="sent, by the minute")
    means = [hour.requests / HOUR_MINUTES for hour in forecast.by_hour()]
    if len(requests) > HOUR_MINUTES:
        by_hour = times[::HOUR_MINUTES]
        label = "sent, mean of the hour"
        axes.step(by_hour, means, where="post", color=BLUE, linewidth=1.4, label=label)
    least = forecast.requests.least / plan.seconds * MINUTE_SECONDS
    axes.axhline(least, color=GREY, linewidth=1, linestyle="--", label="least possible, mean")
    if plan.pace.limit_per_app:
        axes.axhline(plan.pace.limit_per_app, color=RED, linewidth=1, label="limit in all")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("requests a minute")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=9)
