"""What a claim takes of an account: which videos, in how many chunks, in which slots.

The statement that claims decides the same in the database, where the rows are (of a huge account,
among those of one part of it); a test holds the two against each other. Times are seconds on one
clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from refresher.domain.fleet import Cohort
from refresher.domain.model import CHUNK_SIZE
from refresher.domain.pacing import HORIZON_SECONDS, PAST_SECONDS, step_seconds

#: With a limit for the whole app its slots are shared out in the order of claims, so a claim must
#: not reach far. A chunk may be sent twice that after its place among them, where its account both
#: starts late and paces its chunks, and the place may just have passed; the app's slots lie this
#: much wider apart to make up for it.
APP_HORIZON_SECONDS: Final = 0.75
APP_REACH_SECONDS: Final = 2 * APP_HORIZON_SECONDS + PAST_SECONDS
#: A video that is asked for alone gets its turn after so long, however much else is due.
ALONE_WAITS_SECONDS: Final = 3600.0

Chosen = list[tuple[Cohort, int]]


def chunks_of(videos: int) -> int:
    """How many requests so many videos of one account take."""
    return -(-videos // CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class Pace:
    """The distance of two slots of one account and of the whole app; 0 where there is no limit.

    A claim reserves slots up to `horizon_seconds` ahead, `chunk_budget` chunks at most.
    """

    step_seconds: float
    app_step_seconds: float
    horizon_seconds: float
    chunk_budget: int

    @property
    def most_chunks(self) -> int:
        """What a claim takes of one account."""
        if not self.step_seconds:
            return self.chunk_budget
        return max(1, _micros(self.horizon_seconds) // _micros(self.step_seconds))


def pace_of(limit_per_token: int, limit_per_app: int, chunk_budget: int) -> Pace:
    """The pace that keeps both limits; 0 is no limit."""
    app_step = round(step_seconds(limit_per_app, reach_seconds=APP_REACH_SECONDS), 6)
    return Pace(
        step_seconds=max(round(step_seconds(limit_per_token), 6), app_step),
        app_step_seconds=app_step,
        horizon_seconds=APP_HORIZON_SECONDS if limit_per_app else HORIZON_SECONDS,
        chunk_budget=chunk_budget,
    )


def choose(cohorts: Sequence[Cohort], now: float, most_chunks: int) -> Chosen:
    """The videos to ask for, in order: cohorts with how many of each.

    The due ones, topped up to full chunks with those that are due next; a video whose last answer
    brought no cover is no top-up. One for which requests are refused is asked for alone, when
    nothing else is due or it has waited for an hour. `cohorts` are in order of `due_at`.
    """
    due, alone = 0, None
    starved = now - ALONE_WAITS_SECONDS
    for cohort in cohorts:
        if cohort.due_at > now or (due >= CHUNK_SIZE * most_chunks and cohort.due_at >= starved):
            break  # what comes after changes nothing
        if cohort.alone:
            alone = alone or cohort
        else:
            due += cohort.count
    if alone and (not due or alone.due_at < starved):
        return [(alone, 1)]
    return _first(cohorts, now, CHUNK_SIZE * min(chunks_of(due), most_chunks))


def _first(cohorts: Sequence[Cohort], now: float, videos: int) -> Chosen:
    chosen: Chosen = []
    for cohort in cohorts:
        if not videos:
            break
        if cohort.alone or (cohort.misses and cohort.due_at > now):
            continue
        number = min(cohort.count, videos)
        chosen.append((cohort, number))
        videos -= number
    return chosen


@dataclass(frozen=True, slots=True)
class Slots:
    """So many chunks of an account, the first one sent at `first`; where the cursors stand then."""

    chunks: int
    first: float
    next_slot: float
    app_next_slot: float


def reserve(pace: Pace, now: float, next_slot: float, app_next_slot: float, chunks: int) -> Slots:
    """Slots for as many of these chunks as the app's limit and the budget leave.

    `next_slot` and `app_next_slot` are the first instants at which the account and the app may send
    again; slots that have just passed unused are reserved, too. Not the account's own place moves
    the app's cursor: the slots before it are for others.
    """
    start = _from_now(app_next_slot, now) if pace.app_step_seconds else -inf
    granted = max(0, min(chunks, pace.chunk_budget, _app_chunks(pace, start - now)))
    first = max(_from_now(next_slot, now), start)
    return Slots(
        chunks=granted,
        first=first,
        next_slot=first + granted * pace.step_seconds if granted else next_slot,
        app_next_slot=start + granted * pace.app_step_seconds if granted else app_next_slot,
    )


def _from_now(slot: float, now: float) -> float:
    """The slot itself where it has just passed or is to come; an idle account begins now."""
    return slot if slot >= now - PAST_SECONDS else now


def _app_chunks(pace: Pace, taken_seconds: float) -> int:
    """How many chunks the app's slots have room for, the next so many seconds being taken."""
    if not pace.app_step_seconds:
        return pace.chunk_budget
    reach = max(_micros(pace.horizon_seconds), _micros(pace.app_step_seconds))
    return -((_micros(taken_seconds) - reach) // _micros(pace.app_step_seconds))


def _micros(seconds: float) -> int:
    """As the database counts: whole microseconds, so that no rounding turns a decision."""
    return round(seconds * 1_000_000)
