"""The requests that a fleet needs, and the covers that a limit keeps alive, by arithmetic."""

from dataclasses import dataclass, replace
from datetime import timedelta

from refresher.domain.claiming import chunks_of
from refresher.domain.cohorts import Fleet
from refresher.domain.due import account_spread
from refresher.domain.model import CHUNK_SIZE
from refresher.simulation.plan import Plan


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """How many covers a limit keeps alive."""

    #: Each asked for as it falls due, so that the lead stays in reserve.
    when_due: int
    #: Each asked for just before it dies, with nothing in reserve.
    at_most: int
    #: The share of `when_due` in use.
    load: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests sent, and what they are made of."""

    #: The sum of the others.
    sent: int
    #: Asks for each cover just before it dies, in ceil(videos / 20) requests an account.
    least: float
    #: What asking earlier by the lead adds: lifetimes are shorter.
    lead: float
    #: What the spread adds to that.
    spread: float
    #: Everything else: chunks that are partly full, as an account's covers fall due at different
    #: times, and answers that bring no newer cover. Below 0 where covers were asked for late, or
    #: too few lifetimes end in the time simulated.
    rest: float


class Demand:
    """What a fleet needs under a plan."""

    def __init__(self, fleet: Fleet, plan: Plan) -> None:
        self._plan = plan
        counts = {
            open_id: sum(cohort.count for cohort in cohorts if cohort.reachable)
            for open_id, cohorts in fleet.accounts.items()
        }
        self.videos = sum(counts.values())
        self.unreachable = fleet.videos - self.videos
        self.largest = max(counts.values(), default=0)
        chunks = sum(chunks_of(videos) for videos in counts.values())
        lead_only = replace(plan, policy=replace(plan.policy, spread=timedelta(0)))
        # All three are requests a second.
        self._least = chunks / plan.longest_seconds
        self._with_lead = chunks / lead_only.period_seconds(0.0)
        self._when_due = sum(
            chunks_of(videos) / plan.period_seconds(account_spread(open_id))
            for open_id, videos in counts.items()
        )

    @property
    def period_seconds(self) -> float:
        """The time between two requests for the same cover, on average."""
        least_period = self._plan.longest_seconds
        return least_period * self._least / self._when_due if self._when_due else least_period

    def account_for(self, sent: int) -> Requests:
        """What so many requests are made of."""
        seconds = self._plan.seconds
        return Requests(
            sent=sent,
            least=self._least * seconds,
            lead=(self._with_lead - self._least) * seconds,
            spread=(self._when_due - self._with_lead) * seconds,
            rest=sent - self._when_due * seconds,
        )

    def of_token(self) -> KeptAlive | None:
        """For the account whose covers are asked for earliest; None without any limit."""
        if not self._plan.pace.step_seconds:
            return None
        when_due = CHUNK_SIZE * self._plan.period_seconds(1.0) / self._plan.chunk_seconds
        at_most = CHUNK_SIZE * self._plan.longest_seconds / self._plan.least_chunk_seconds
        return KeptAlive(int(when_due), int(at_most), self.largest / when_due)

    def of_app(self) -> KeptAlive | None:
        """For covers in accounts of this fleet's sizes; None without a limit for the app."""
        if not self._plan.pace.limit_per_app or not self.videos:
            return None
        slots = 1 / self._plan.pace.app_step_seconds
        when_due = int(self.videos * slots / self._when_due)
        at_most = int(self.videos * slots / self._least)
        return KeptAlive(when_due, at_most, self._when_due / slots)
