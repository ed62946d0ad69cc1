"""A forecast in words and in plain values."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from refresher.domain.spans import counted, span
from refresher.simulation.demand import KeptAlive, Requests
from refresher.simulation.forecast import Forecast
from refresher.simulation.plan import DAY_SECONDS, Plan

SERIES: Final = ("valid_share_by_minute", "requests_by_minute")


#: Below so many requests a share of them says nothing.
LEAST_TO_SHARE: Final = 100


def facts(forecast: Forecast, plan: Plan, seed: int | None) -> dict[str, Any]:
    """For programs: what was simulated and all that came of it, by the hour.

    `seed` is the made-up fleet's; None for a stored fleet.
    """
    told = asdict(forecast)
    for name in SERIES:
        del told[name]
    hours = [asdict(hour) for hour in forecast.by_hour()]
    return {"plan": _plan(plan, seed), **told, "hours": hours}


def _plan(plan: Plan, seed: int | None) -> dict[str, Any]:
    return {
        "fleet": "from-database" if seed is None else "made",
        "seed": seed,
        "ttl": plan.ttl,
        "days": plan.seconds / DAY_SECONDS,
        "limit_per_token": plan.pace.limit_per_token,
        "limit_per_app": plan.pace.limit_per_app,
        "lead_seconds": plan.policy.lead.total_seconds(),
        "spread_seconds": plan.policy.spread.total_seconds(),
    }


def lines(forecast: Forecast, plan: Plan) -> Iterator[tuple[str, str]]:
    """For operators: name and text, the answers last."""
    yield "fleet", _fleet(forecast)
    lives = "to the full hour and 24 h" if plan.ttl == "hourly" else span(plan.ttl)
    yield "covers live", f"{lives}, asked for anew after {span(forecast.period_seconds)}"
    yield from _request_lines(forecast.requests)
    yield "chunk fill", f"{forecast.chunk_fill:.3f}"
    in_all, one = forecast.peak_requests_per_minute, forecast.busiest_token_requests_per_minute
    yield "busiest minute", f"{counted(in_all, 'request')}, {one:,} with one token"
    horizon = span(forecast.seconds)
    lowest, last = map(percent, (forecast.lowest_valid_share, forecast.last_valid_share))
    yield "valid covers", f"{lowest} at the worst, {last} after {horizon}"
    death, closest = forecast.first_death_seconds, forecast.closest_call_seconds
    if death is None and closest is not None:
        yield "closest call", f"refreshed {span(closest)} before its death"
    if forecast.all_valid_seconds:
        yield "all valid", f"after {span(forecast.all_valid_seconds)}"
    yield from _capacity_lines(forecast)
    yield "first death", f"none within {horizon}" if death is None else f"after {span(death)}"


def _fleet(forecast: Forecast) -> str:
    size = f"{counted(forecast.videos, 'video')} of {counted(forecast.accounts, 'account')}"
    unreachable = f", {forecast.unreachable:,} unreachable" if forecast.unreachable else ""
    return f"{size}, {forecast.largest_account:,} in the largest{unreachable}"


def _request_lines(requests: Requests) -> Iterator[tuple[str, str]]:
    least = requests.least
    yield "requests", f"{requests.sent:,}"
    yield "least possible", f"{least:,.0f}"
    for name in ("lead", "spread", "rest"):
        number = getattr(requests, name)
        share = f" ({_unsigned_zero(number / least, 3):+.1%})" if least >= LEAST_TO_SHARE else ""
        yield f"+ {name}", f"{_unsigned_zero(number, 0):,.0f}{share}"


def _capacity_lines(forecast: Forecast) -> Iterator[tuple[str, str]]:
    if forecast.token:
        yield "a token keeps alive", _keeps(forecast.token, "by the largest account")
    if forecast.app:
        yield "the app keeps alive", _keeps(forecast.app, "in use, at this mix of accounts")
    if not (forecast.token or forecast.app):
        yield "a token keeps alive", "any number: there is no limit"


def _keeps(kept: KeptAlive, whose: str) -> str:
    return (
        f"{counted(kept.when_due, 'cover')}, {kept.at_most:,} with nothing in reserve; "
        f"{kept.load:.1%} {whose}"
    )


def _unsigned_zero(number: float, digits: int) -> float:
    """Rounded; a zero has no sign."""
    return round(number, digits) + 0.0


def percent(share: float) -> str:
    """Never rounded up to all of them."""
    return f"{int(share * 100_000) / 1000:.3f}%"
