"""What comes of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from refresher.domain.cohorts import Fleet
from refresher.simulation.demand import Demand, KeptAlive, Requests
from refresher.simulation.engine import Engine
from refresher.simulation.plan import OnProgress, Plan
from refresher.simulation.tally import Tally

HOUR_MINUTES: Final = 60


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of a simulation."""

    #: In its worst minute.
    lowest_valid_share: float
    #: Sent in the hour.
    requests: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan does to a fleet. Programs get these names, as JSON.

    A cover is valid in a minute if it is valid all through it. Times are seconds after the start.
    """

    accounts: int
    #: That can be kept alive.
    videos: int
    #: That are missing, or refused by themselves.
    unreachable: int
    #: Videos of the largest account.
    largest_account: int
    #: How long the simulation lasted.
    seconds: float
    #: Between two requests for a cover, on average, as long as each is asked for as it falls due.
    period_seconds: float
    lowest_valid_share: float
    #: In the last minute.
    last_valid_share: float
    #: When the first valid cover died; None where none did.
    first_death_seconds: float | None
    #: From when on all were valid; None where some were dead at the end, 0 where none ever was.
    all_valid_seconds: float | None
    #: How long before its death a cover was refreshed, at the latest; None where no live one was.
    closest_call_seconds: float | None
    requests: Requests
    #: Videos per request, as a share of twenty.
    chunk_fill: float
    peak_requests_per_minute: int
    busiest_token_requests_per_minute: int
    #: What a token keeps alive; None without a limit.
    token: KeptAlive | None
    #: What the app keeps alive; None without a limit for it.
    app: KeptAlive | None
    valid_share_by_minute: Sequence[float]
    requests_by_minute: Sequence[int]

    def by_hour(self) -> Sequence[Hour]:
        """The series by the minute, an hour at a time."""
        starts = range(0, len(self.requests_by_minute), HOUR_MINUTES)
        spans = [slice(start, start + HOUR_MINUTES) for start in starts]
        return [
            Hour(min(self.valid_share_by_minute[span]), sum(self.requests_by_minute[span]))
            for span in spans
        ]


def forecast(fleet: Fleet, plan: Plan, on_progress: OnProgress = lambda _: None) -> Forecast:
    """Simulate; the fleet is used up. `on_progress` hears how many minutes are simulated."""
    demand = Demand(fleet, plan)
    tally = Tally(fleet.now, plan.seconds)
    for cohort in Engine(fleet, plan, tally).run(on_progress):
        tally.left(cohort)
    valid = tally.valid_share_by_minute(demand.videos)
    return Forecast(
        accounts=len(fleet.accounts),
        videos=demand.videos,
        unreachable=demand.unreachable,
        largest_account=demand.largest,
        seconds=plan.seconds,
        period_seconds=demand.period_seconds,
        lowest_valid_share=min(valid),
        last_valid_share=valid[-1],
        first_death_seconds=tally.first_death_seconds,
        all_valid_seconds=tally.all_valid_seconds,
        closest_call_seconds=tally.closest_call_seconds,
        requests=demand.account_for(sum(tally.requests_by_minute)),
        chunk_fill=tally.chunk_fill,
        peak_requests_per_minute=max(tally.requests_by_minute),
        busiest_token_requests_per_minute=tally.busiest_token,
        token=demand.of_token(),
        app=demand.of_app(),
        valid_share_by_minute=valid,
        requests_by_minute=tally.requests_by_minute,
    )
