"""A forecast in words and in plain values."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from refresher.simulation.forecast import Capacity, Forecast, Requests
from refresher.simulation.plan import DAY_SECONDS, HOUR_SECONDS, Plan

SERIES: Final = ("valid_share_by_minute", "requests_by_minute")
MINUTE_SECONDS: Final = 60


def facts(forecast: Forecast) -> dict[str, Any]:
    """For programs: everything, the series by the hour."""
    told = asdict(forecast)
    for name in SERIES:
        del told[name]
    return {**told, "hours": [asdict(hour) for hour in forecast.by_hour()]}


def lines(forecast: Forecast, plan: Plan) -> Iterator[tuple[str, str]]:
    """For operators: name and text, the answers last."""
    yield "fleet", _fleet(forecast)
    lives = "to the full hour and 24 h" if plan.ttl == "hourly" else _span(plan.ttl)
    yield "covers live", f"{lives}, asked for anew after {_span(forecast.period_seconds)}"
    yield from _request_lines(forecast.requests)
    yield "chunk fill", f"{forecast.chunk_fill:.3f}"
    in_all, one = forecast.peak_requests_per_minute, forecast.busiest_token_requests_per_minute
    yield "busiest minute", f"{in_all:,} requests, {one:,} with one token"
    span = _span(forecast.seconds)
    lowest, last = map(_share, (forecast.lowest_valid_share, forecast.last_valid_share))
    yield "valid covers", f"{lowest} at the worst, {last} after {span}"
    if forecast.closest_call_seconds is not None:
        yield "closest call", f"refreshed {_span(forecast.closest_call_seconds)} before its death"
    yield from _capacity_lines(forecast)
    death = forecast.first_death_seconds
    yield "first death", f"none within {span}" if death is None else f"after {_span(death)}"


def _fleet(forecast: Forecast) -> str:
    size = f"{forecast.videos:,} videos of {forecast.accounts:,} accounts"
    unreachable = f", {forecast.unreachable:,} unreachable" if forecast.unreachable else ""
    return f"{size}, {forecast.largest_account:,} in the largest{unreachable}"


def _request_lines(requests: Requests) -> Iterator[tuple[str, str]]:
    yield "requests", f"{requests.sent:,}"
    yield "least possible", f"{requests.least:,.0f}"
    for name in ("lead", "spread", "rest"):
        number = getattr(requests, name)
        share = f" ({number / requests.least:+.1%})" if requests.least else ""
        yield f"+ {name}", f"{number:,.0f}{share}"


def _capacity_lines(forecast: Forecast) -> Iterator[tuple[str, str]]:
    if forecast.token:
        yield "a token keeps alive", _keeps(forecast.token, "by the largest account")
    if forecast.app:
        yield "the app keeps alive", _keeps(forecast.app, "in use, at this mix of accounts")
    if not (forecast.token or forecast.app):
        yield "a token keeps alive", "any number: there is no limit"


def _keeps(capacity: Capacity, whose: str) -> str:
    return (
        f"{capacity.when_due:,} covers, {capacity.at_most:,} with nothing in reserve; "
        f"{capacity.load:.1%} {whose}"
    )


def _share(share: float) -> str:
    """Never rounded up to all of them."""
    return f"{int(share * 100_000) / 1000:.3f}%"


def _span(seconds: float) -> str:
    days, rest = divmod(round(seconds), DAY_SECONDS)
    hours, rest = divmod(rest, HOUR_SECONDS)
    minutes, rest = divmod(rest, MINUTE_SECONDS)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 s"
