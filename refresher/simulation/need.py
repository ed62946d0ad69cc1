"""The quota that a fleet needs, by arithmetic."""

from dataclasses import dataclass

from refresher.domain.claiming import chunks_of
from refresher.domain.cohorts import Cohort, Fleet
from refresher.simulation.plan import MINUTE_SECONDS, Plan

#: When so many requests must have been answered at the latest, in seconds.
Deadline = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Need:
    """Requests a minute, in ceil(videos / 20) requests an account. The last three are the least."""

    #: Each cover asked for as it falls due, so lead and spread before it dies: as `doctor` counts.
    when_due: float
    #: The same for the token of the account that needs most, with all of the spread.
    busiest_token_when_due: float
    #: Each cover asked for just before it dies.
    on_average: float
    #: With that, the covers that end soonest are reached in time, too.
    at_peak: float
    #: The same for the busiest token.
    busiest_token: float


def need_of(fleet: Fleet, plan: Plan) -> Need:
    """What a fleet needs whose covers live as long as planned."""
    average = steady_of_one = peak_of_one = 0.0
    deadlines: list[Deadline] = []
    for open_id, cohorts in fleet.accounts.items():
        weight = fleet.weights.get(open_id, 1.0)
        steady = _steady(cohorts, plan)
        own = _deadlines(cohorts, fleet.now)
        average += weight * steady
        steady_of_one = max(steady_of_one, steady)
        peak_of_one = max(peak_of_one, steady, _rate(own))
        deadlines += [(seconds, weight * chunks) for seconds, chunks in own]
    return Need(
        when_due=average * plan.longest_seconds / plan.period_seconds(0.5),
        busiest_token_when_due=steady_of_one * plan.longest_seconds / plan.period_seconds(1.0),
        on_average=average,
        at_peak=max(average, _rate(deadlines)),
        busiest_token=peak_of_one,
    )


def _steady(cohorts: list[Cohort], plan: Plan) -> float:
    videos = sum(cohort.count for cohort in cohorts if cohort.reachable)
    return chunks_of(videos) * MINUTE_SECONDS / plan.longest_seconds


def _deadlines(cohorts: list[Cohort], now: float) -> list[Deadline]:
    """An account's requests, as its living covers end. A chunk is asked for as its first cover."""
    deadlines, covers = [], 0
    alive = (cohort for cohort in cohorts if cohort.reachable and cohort.expires_at > now)
    for cohort in sorted(alive, key=lambda cohort: cohort.expires_at):
        chunks = chunks_of(covers + cohort.count) - chunks_of(covers)
        covers += cohort.count
        if chunks:
            deadlines.append((cohort.expires_at - now, float(chunks)))
    return deadlines


def _rate(deadlines: list[Deadline]) -> float:
    """Requests a minute that meet all deadlines; one of less than a minute counts as a minute."""
    rate = chunks = 0.0
    for seconds, more in sorted(deadlines):
        chunks += more
        rate = max(rate, chunks * MINUTE_SECONDS / max(seconds, MINUTE_SECONDS))
    return rate
