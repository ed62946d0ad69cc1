"""What a claim takes of an account: which videos, in how many chunks, in which slots.

This is for the simulator. The claim statement decides the same in the database, where the rows are
(of a huge account, it reads one part); a test compares the two. Times are seconds on one clock.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from refresher.domain.cohorts import Cohort
from refresher.domain.model import CHUNK_SIZE
from refresher.domain.pacing import PAST_SECONDS, Pace

#: A video that must be asked for alone gets its turn after so long, even if much else is due.
ALONE_WAITS_SECONDS: Final = 3600.0


class Turn(IntEnum):
    """In which order a claim takes the videos of an account."""

    #: A refused video that has waited too long.
    STARVED = 0
    DUE = 1
    #: A refused video: by itself, when nothing else is due.
    ALONE = 2
    #: Not due, but it may fill a chunk.
    TOP_UP = 3


Chosen = list[tuple[Cohort, int]]


def chunks_of(videos: int) -> int:
    """How many requests so many videos of one account take."""
    return -(-videos // CHUNK_SIZE)


def most_chunks(pace: Pace, chunk_budget: int) -> int:
    """How many chunks of one account a claim takes. Without a limit, the budget alone decides."""
    if not pace.step_seconds:
        return chunk_budget
    return max(1, _micros(pace.horizon_seconds) // _micros(pace.step_seconds))


def choose(cohorts: Sequence[Cohort], now: float, most_chunks: int) -> Chosen:
    """The videos to ask for, in order: cohorts with how many of each.

    These are the due ones, and top-ups to full chunks: those due next, without any whose last
    answer brought no cover. A video for which requests are refused is asked for alone, when nothing
    else is due or it has waited for an hour. `cohorts` are in order of `due_at`.
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
        number = min(videos, cohort.count)
        chosen.append((cohort, number))
        videos -= number
    return chosen


class Slots(NamedTuple):
    """Slots that are reserved for chunks of one account."""

    chunks: int
    #: The first chunk's.
    first: float
    #: The first instant after them at which the account may send again.
    next_slot: float
    #: The same for the app.
    app_next_slot: float


def reserve(pace: Pace, now: float, next_slot: float, app_next_slot: float, chunks: int) -> Slots:
    """Slots for as many of these chunks as the app's limit leaves.

    `next_slot` and `app_next_slot` are the first instants at which the account and the app may send
    again. Slots that have just passed unused are reserved, too.
    """
    # The app's next slot counts from the app's own, not from the account's later one: the slots in
    # between are for others.
    first, start = _from_now(next_slot, now), app_next_slot
    if pace.app_step_seconds:
        start = _from_now(app_next_slot, now)
        first = max(first, start)
        chunks = max(0, min(chunks, _app_chunks(pace, start - now)))
    return Slots(
        chunks=chunks,
        first=first,
        next_slot=first + chunks * pace.step_seconds if chunks else next_slot,
        app_next_slot=start + chunks * pace.app_step_seconds if chunks else app_next_slot,
    )


def _from_now(slot: float, now: float) -> float:
    """The slot itself, if it is to come or has just passed; an idle account begins now."""
    return slot if slot >= now - PAST_SECONDS else now


def _app_chunks(pace: Pace, taken_seconds: float) -> int:
    """How many chunks the app's slots have room for, if the next so many seconds are taken."""
    step = _micros(pace.app_step_seconds)
    reach = max(_micros(pace.horizon_seconds), step)
    return -((_micros(taken_seconds) - reach) // step)


def _micros(seconds: float) -> int:
    """Whole microseconds, as the database counts, so that both decide the same."""
    return round(seconds * 1_000_000)
