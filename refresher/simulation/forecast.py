"""What came of a simulation, and what arithmetic says beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate
from math import ceil
from typing import Final

from refresher.domain.claiming import chunks_of
from refresher.domain.due import account_share
from refresher.domain.fleet import Cohort, Fleet
from refresher.domain.model import CHUNK_SIZE
from refresher.simulation.engine import Engine
from refresher.simulation.plan import Plan

MINUTE_SECONDS: Final = 60
HOUR_MINUTES: Final = 60


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many covers a limit keeps alive.

    `when_due`: each asked for as it falls due, so that the lead stays in reserve. `at_most`: asked
    for just before it dies, with nothing in reserve. `load`: the share of `when_due` in use.
    """

    when_due: int
    at_most: int
    load: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests sent, and what they are made of: `sent` is the sum of the others.

    `least` asks for each cover just before it dies, in ceil(videos / 20) requests an account. The
    `lead` adds what asking that much earlier costs, as lifetimes are shorter; the `spread` what it
    adds to that. The `rest` is everything else: chunks that are partly full as an account's covers
    fall due at different times, answers that bring no newer cover; less than nothing where covers
    were asked for late, or too few lifetimes end in the time simulated.
    """

    sent: int
    least: float
    lead: float
    spread: float
    rest: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan does to a fleet.

    `videos` are those that can be kept alive, `unreachable` missing or refused by themselves. A
    cover is valid in a minute if it is valid all through it. `first_death_seconds` after the start
    the first valid cover died, None where none did. From `all_valid_seconds` on all were valid,
    None where some were dead at the end, 0 where none ever was. `closest_call_seconds` before its
    death one was refreshed at the latest, None where none was alive then. `period_seconds` lies
    between two askings of a cover, on average, as long as each is asked for as it falls due.
    """

    accounts: int
    videos: int
    unreachable: int
    largest_account: int
    seconds: float
    period_seconds: float
    lowest_valid_share: float
    last_valid_share: float
    first_death_seconds: float | None
    all_valid_seconds: float | None
    closest_call_seconds: float | None
    requests: Requests
    chunk_fill: float
    peak_requests_per_minute: int
    busiest_token_requests_per_minute: int
    token: Capacity | None
    app: Capacity | None
    valid_share_by_minute: Sequence[float]
    requests_by_minute: Sequence[int]

    def by_hour(self) -> Sequence["Hour"]:
        """The series by the minute, an hour at a time."""
        starts = range(0, len(self.requests_by_minute), HOUR_MINUTES)
        spans = [slice(start, start + HOUR_MINUTES) for start in starts]
        return [
            Hour(min(self.valid_share_by_minute[span]), sum(self.requests_by_minute[span]))
            for span in spans
        ]


@dataclass(frozen=True, slots=True)
class Hour:
    """The share of valid covers in its worst minute, and the requests sent."""

    lowest_valid_share: float
    requests: int


def forecast(fleet: Fleet, plan: Plan) -> Forecast:
    """Simulate; the fleet is used up."""
    demand = Demand(fleet, plan)
    tally = Tally(fleet.now, plan.seconds)
    for cohort in Engine(fleet, plan, tally).run():
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


class Demand:
    """The requests that a fleet needs, by arithmetic."""

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
        #: Requests a second.
        self._least = chunks / plan.longest_seconds
        self._with_lead = chunks / lead_only.period_seconds(0.0)
        self._when_due = sum(
            chunks_of(videos) / plan.period_seconds(account_share(open_id))
            for open_id, videos in counts.items()
        )

    @property
    def period_seconds(self) -> float:
        """Between two askings of a chunk, on average."""
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

    def of_token(self) -> Capacity | None:
        """For an account whose covers are asked for the earliest; None without any limit."""
        if not self._plan.pace.step_seconds:
            return None
        when_due = CHUNK_SIZE * self._plan.period_seconds(1.0) / self._plan.chunk_seconds
        at_most = CHUNK_SIZE * self._plan.longest_seconds / self._plan.least_chunk_seconds
        return Capacity(int(when_due), int(at_most), self.largest / when_due)

    def of_app(self) -> Capacity | None:
        """For covers in accounts of this fleet's sizes; None without a limit for the app."""
        if not self._plan.pace.limit_per_app or not self.videos:
            return None
        slots = 1 / self._plan.pace.app_step_seconds
        when_due = int(self.videos * slots / self._when_due)
        at_most = int(self.videos * slots / self._least)
        return Capacity(when_due, at_most, self._when_due / slots)


class Tally:
    """What an engine tells, by the minute."""

    def __init__(self, start: float, seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        minutes = ceil(seconds / MINUTE_SECONDS)
        self.requests_by_minute = [0] * minutes
        #: How many more covers are dead in a minute than in the one before.
        self._deaths_by_minute = [0] * (minutes + 1)
        self._chunks = 0
        self._videos = 0
        #: Of each account, the minute of its last request and how many there were in it.
        self._latest: dict[int, tuple[int, int]] = {}
        self.busiest_token = 0
        self.first_death_seconds: float | None = None
        self.closest_call_seconds: float | None = None
        self._last_dead_seconds = 0.0

    @property
    def all_valid_seconds(self) -> float | None:
        last = self._last_dead_seconds
        return last if last < self._seconds else None

    @property
    def chunk_fill(self) -> float:
        """Videos asked for by request, of the twenty there could be."""
        return self._videos / (CHUNK_SIZE * self._chunks) if self._chunks else 0.0

    def valid_share_by_minute(self, videos: int) -> Sequence[float]:
        """Of so many covers; each is dead once a minute at most.

        A cover of hardly a minute can end in the one it came in: counted twice, it is cut here.
        """
        dead = accumulate(self._deaths_by_minute[:-1])
        return [1 - min(number, videos) / videos if videos else 1.0 for number in dead]

    def asked(self, account: int, sent_at: float, chunks: int, videos: int) -> None:
        elapsed = sent_at - self._start
        if elapsed >= self._seconds:
            return
        minute = int(elapsed // MINUTE_SECONDS)
        self.requests_by_minute[minute] += chunks
        self._chunks += chunks
        self._videos += videos
        latest, number = self._latest.get(account, (minute, 0))
        number = chunks + (number if latest == minute else 0)
        self._latest[account] = minute, number
        self.busiest_token = max(self.busiest_token, number)

    def refreshed(self, old: Cohort, answered_at: float, videos: int) -> None:
        left = old.expires_at - answered_at
        if left < 0:
            self._dead(old.expires_at, answered_at, videos)
        elif self.closest_call_seconds is None or left < self.closest_call_seconds:
            self.closest_call_seconds = left

    def left(self, cohort: Cohort) -> None:
        """How a cohort stands at the end."""
        if cohort.reachable:
            self._dead(cohort.expires_at, self._start + self._seconds, cohort.count)

    def _dead(self, since: float, until: float, videos: int) -> None:
        begun = max(since - self._start, 0.0)
        ended = min(until - self._start, self._seconds)
        if begun >= ended:
            return
        self._deaths_by_minute[int(begun // MINUTE_SECONDS)] += videos
        self._deaths_by_minute[ceil(ended / MINUTE_SECONDS)] -= videos
        self._last_dead_seconds = max(self._last_dead_seconds, ended)
        if begun > 0 and (self.first_death_seconds is None or begun < self.first_death_seconds):
            self.first_death_seconds = begun
