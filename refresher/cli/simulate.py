"""`simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refresher.cli.options import whole
from refresher.cli.output import Misuse
from refresher.domain.limits import HIGHEST_LIMIT, YEAR_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from refresher.domain.cohorts import Fleet
    from refresher.settings import Settings
    from refresher.simulation.forecast import Forecast
    from refresher.simulation.plan import Plan, Ttl


def simulate(
    videos_made: Annotated[
        int | None, typer.Option("--videos", min=1, help="Of a fleet that is made up.")
    ] = None,
    accounts_made: Annotated[
        int | None, typer.Option("--accounts", min=1, help="Of very unequal size.")
    ] = None,
    from_database: Annotated[
        bool, typer.Option("--from-database", help="The fleet as it is stored.")
    ] = False,
    ttl: Annotated[
        str, typer.Option(help="Seconds a cover lives, or hourly: to the full hour + 24 h.")
    ] = "hourly",
    days: Annotated[float, typer.Option(min=0.001, max=366)] = 7,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_LIMIT, help="Per token in any 60 s, 0: none; else as set."),
    ] = None,
    app_limit: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_LIMIT, help="For all tokens together; else as set."),
    ] = None,
    lead: Annotated[
        float | None, typer.Option(min=0, max=YEAR_SECONDS, help="Seconds; else as set.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(min=0, max=YEAR_SECONDS, help="Seconds; else as set.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the fleet that is made up.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw it, too; extra plot.")
    ] = None,
) -> None:
    """How many covers a quota keeps alive: the daemon's decisions under a virtual clock.

    Example: refresher simulate --videos 1000000 --accounts 10000 --days 2
    """
    from refresher.cli.progress import progress
    from refresher.simulation.forecast import forecast
    from refresher.simulation.plan import MINUTE_SECONDS

    fleet_of = _fleet_source(videos_made, accounts_made, seed, stored=from_database)
    draw = _drawing(plot)
    settings = _settings_to_simulate(
        stored=from_database,
        rate_limit_per_token=limit,
        rate_limit_per_app=app_limit,
        lead_seconds=lead,
        spread_seconds=spread,
    )
    plan = _plan(settings, ttl, days)
    fleet = fleet_of(settings, plan)
    with progress("simulated minutes", round(plan.seconds / MINUTE_SECONDS)) as on_progress:
        told = forecast(fleet, plan, lambda minutes: on_progress(minutes, None))
    draw(told, plan)
    _print_forecast(told, plan, seed=None if from_database else seed, as_json=as_json)


def _print_forecast(told: Forecast, plan: Plan, *, seed: int | None, as_json: bool) -> None:
    import json

    from refresher.simulation import report

    if as_json:
        print(json.dumps(report.facts(told, plan, seed), indent=2))
        return
    lines = list(report.lines(told, plan))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")


def _fleet_source(
    videos_made: int | None, accounts_made: int | None, seed: int, *, stored: bool
) -> Callable[[Settings, Plan], Fleet]:
    if stored and videos_made is accounts_made is None:
        return _stored_fleet
    if stored or videos_made is None or accounts_made is None:
        raise Misuse("expected --videos and --accounts, or --from-database alone")

    def made(_: Settings, plan: Plan) -> Fleet:
        from refresher.simulation.steady_fleet import sizes, steady_fleet

        try:
            counts = sizes(videos_made, accounts_made)
        except ValueError as error:
            raise Misuse(f"--videos: {error}") from None
        return steady_fleet(counts, plan, seed)

    return made


def _stored_fleet(settings: Settings, _: Plan) -> Fleet:
    from refresher.cli.database import with_database
    from refresher.postgres.fleet import read_fleet

    fleet = with_database(settings, read_fleet)
    if not fleet.videos:
        raise Misuse("no active account has a video: nothing to simulate")
    return fleet


def _drawing(file: Path | None) -> Callable[[Forecast, Plan], None]:
    """What draws into the file. Raises `Misuse` now, before the long work."""
    if file is None:
        return lambda _forecast, _plan: None
    if file.suffix != ".png" or file.is_dir() or not file.parent.is_dir():
        raise Misuse(f"--plot: expected FILE.png in a folder that exists, not {str(file)!r}")
    try:
        from refresher.simulation.plot import draw
    except ModuleNotFoundError:
        raise Misuse("--plot: matplotlib is missing: pip install '.[plot]'") from None
    return lambda told, plan: draw(told, plan, file)


def _settings_to_simulate(*, stored: bool, **given: float | None) -> Settings:
    from refresher.settings import read_settings

    overrides: dict[str, object] = {
        name: value for name, value in given.items() if value is not None
    }
    if not stored:
        # Settings need a URL, but nothing connects to it.
        overrides["database_url"] = "postgresql:///"
    return read_settings(**overrides)


def _plan(settings: Settings, ttl: str, days: float) -> Plan:
    from refresher.assembly import plan_of
    from refresher.simulation.plan import DAY_SECONDS, SHORTEST_TTL

    lives: Ttl = "hourly" if ttl == "hourly" else whole("--ttl", ttl, SHORTEST_TTL)
    return plan_of(settings, lives, days * DAY_SECONDS)
