"""The fleet at work under a virtual clock: accounts in a heap, by when each is claimed next.

What a claim takes, its slots, and when a cover is due again are the daemon's own decisions, out of
`domain`. Answers that one claim gets within a second count as one.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil, floor, inf
from random import Random
from typing import Protocol

from refresher.domain.claiming import Chosen, Slots, choose, chunks_of, most_chunks, reserve
from refresher.domain.cohorts import Cohort, Fleet, add_cohort
from refresher.domain.due import account_spread, wait_after_miss, wait_after_refusal
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.domain.pacing import back_off
from refresher.simulation.plan import HOUR_SECONDS, MINUTE_SECONDS, OnProgress, Plan


class Watcher(Protocol):
    """Hears what happens, in Unix time; of a claim under way at the end, all that it does."""

    def asked(self, account: int, sent_at: float, chunks: int, videos: int) -> None:
        """An account's requests of one second, the first one sent at `sent_at`.

        `account` is its place in the fleet.
        """

    def refreshed(self, account: int, old: Cohort, answered_at: float, videos: int, /) -> None:
        """So many videos of a cohort of an account got a newer cover."""


@dataclass(slots=True)
class Account:
    """An account while it is simulated."""

    #: Its place in the fleet.
    number: int
    #: Where it lies in the spread.
    spread: float
    #: In order of `due_at`.
    cohorts: list[Cohort]
    #: The first instant at which it may send again.
    next_slot: float = -inf
    #: So many accounts like this one take their slots of the app with it.
    weight: float = 1.0
    #: All its requests fail, those of the others are answered.
    bad: bool = False
    #: Failed claims in a row.
    failures: int = 0
    isolated: bool = False


class Wakes:
    """When the daemon looks for due accounts.

    That is at every poll, when an account is released, and when a released one falls due before
    the next poll.
    """

    def __init__(self, start: float, poll_seconds: float) -> None:
        self._start = start
        self._poll_seconds = poll_seconds
        self._known: list[float] = []

    def released(self, now: float, wakes_at: float) -> None:
        """An account is released now, and falls due at `wakes_at`."""
        heappush(self._known, now)
        if now < wakes_at < now + self._poll_seconds:
            heappush(self._known, wakes_at)

    def first_from(self, moment: float) -> float:
        """The first look from that moment on. Later calls must not ask about an earlier one."""
        while self._known and self._known[0] < moment:
            heappop(self._known)
        polls = ceil((moment - self._start) / self._poll_seconds)
        poll = self._start + polls * self._poll_seconds
        return min(poll, self._known[0]) if self._known else poll


class Queue:
    """Accounts by when each is claimed next; what comes from `end` on is in no order.

    Only those of one hour lie in a heap: a heap of 100,000 takes four times as long.
    """

    def __init__(self, end: float) -> None:
        self._end = end
        self._hour: float = -inf
        self._heap: list[tuple[float, int]] = []
        self._later: defaultdict[float, list[tuple[float, int]]] = defaultdict(list)

    def first(self) -> tuple[float, int] | None:
        """When the first account is claimed, and its place; None where there is none."""
        if not self._heap and self._later:
            self._hour = min(self._later)
            self._heap = self._later.pop(self._hour)
            heapify(self._heap)
        return self._heap[0] if self._heap else None

    def put(self, ready: float, place: int) -> None:
        """Before the first `first`: later, an account takes its own place anew."""
        self._later[self._hour_of(ready)].append((ready, place))

    def replace_first(self, ready: float, place: int) -> None:
        """The first account is claimed again then, and no earlier than now."""
        hour = self._hour_of(ready)
        if hour <= self._hour:
            heapreplace(self._heap, (ready, place))
        else:
            heappop(self._heap)
            self._later[hour].append((ready, place))

    def _hour_of(self, ready: float) -> float:
        return min(ready, self._end) // HOUR_SECONDS


class Engine:
    """Works a fleet and tells a watcher. The fleet is used up. `bad` accounts fail for good."""

    def __init__(
        self, fleet: Fleet, plan: Plan, watcher: Watcher, bad: Collection[OpenId] = ()
    ) -> None:
        self._plan = plan
        self._pace = plan.pace
        self._most_chunks = most_chunks(plan.pace, plan.chunk_budget)
        self._watcher = watcher
        self._start = fleet.now
        self._app_next_slot = -inf
        self._chance = Random(0)  # noqa: S311 - a simulation, to be repeated
        #: Those with videos.
        self.accounts = [
            Account(
                number,
                account_spread(open_id),
                cohorts,
                next_slot=fleet.free_at.get(open_id, -inf),
                weight=fleet.weights.get(open_id, 1.0),
                bad=open_id in bad,
            )
            for number, (open_id, cohorts) in enumerate(fleet.accounts.items())
            if cohorts
        ]

    def run(self, on_progress: OnProgress = lambda _: None) -> Iterator[Cohort]:
        """Work all accounts for as long as planned. Returns the cohorts as they are then.

        `on_progress` hears how many minutes of that have passed.
        """
        start, end = self._start, self._start + self._plan.seconds
        minutes = 0
        queue = Queue(end)
        for place, account in enumerate(self.accounts):
            queue.put(max(start, account.cohorts[0].due_at, self._near(account)), place)
        wakes = Wakes(start, self._plan.poll_seconds)
        while first := queue.first():
            ready, place = first
            # With a limit for the app the next account is claimed as the app's next slot comes.
            now = max(wakes.first_from(ready), self._app_next_slot)
            if now >= end:
                break
            if now - start >= MINUTE_SECONDS * (minutes + 1):
                minutes = int((now - start) / MINUTE_SECONDS)
                on_progress(minutes)
            account = self.accounts[place]
            released_at = (self._fail if account.bad else self._work)(account, now)
            due_at = max(released_at, account.cohorts[0].due_at)
            wakes.released(released_at, max(due_at, account.next_slot))
            queue.replace_first(max(due_at, self._near(account)), place)
        return (cohort for account in self.accounts for cohort in account.cohorts)

    def _near(self, account: Account) -> float:
        """From when on a claim reaches as far as the account's next slot."""
        return account.next_slot - self._pace.horizon_seconds

    def _reserve(self, account: Account, now: float, videos: int) -> Slots:
        chunks = min(chunks_of(videos), self._plan.chunk_budget)
        slots = reserve(self._pace, now, account.next_slot, self._app_next_slot, chunks)
        of_others = (account.weight - 1) * slots.chunks * self._pace.app_step_seconds
        account.next_slot = slots.next_slot
        self._app_next_slot = slots.app_next_slot + of_others
        return slots

    def _written_at(self, slots: Slots, now: float) -> float:
        """When the answers to the requests in these slots are written."""
        last_slot = slots.first + max(0, slots.chunks - 1) * self._pace.step_seconds
        return max(last_slot, now) + self._plan.request_seconds + self._plan.writing_seconds

    def _work(self, account: Account, now: float) -> float:
        """One claim, up to its answers written. Returns when the account is released."""
        chosen = choose(account.cohorts, now, self._most_chunks)
        slots = self._reserve(account, now, _videos_of(chosen))
        left = chosen[::-1]
        answered: list[Cohort] = []
        for slot, chunks in _by_second(slots, self._pace.step_seconds):
            asked = _taken(left, CHUNK_SIZE * chunks)
            answered += self._ask(account, asked, max(now, slot), chunks)
        for cohort, _ in chosen:
            if not cohort.count:
                account.cohorts.remove(cohort)
        for cohort in answered:
            add_cohort(account.cohorts, cohort)
        return self._written_at(slots, now)

    def _fail(self, account: Account, now: float) -> float:
        """One claim that brings nothing. Returns when the account may be claimed again."""
        most = 1 if account.isolated else self._most_chunks
        videos = _videos_of(choose(account.cohorts, now, most))
        slots = self._reserve(account, now, videos)
        videos = min(videos, CHUNK_SIZE * slots.chunks)
        self._watcher.asked(account.number, max(slots.first, now), slots.chunks, videos)
        after = back_off(
            account.failures, self._chance.random(), isolated=account.isolated, by_itself=True
        )
        account.failures, account.isolated = after.failures, after.isolated
        return self._written_at(slots, now) + after.seconds

    def _ask(self, account: Account, asked: Chosen, sent_at: float, chunks: int) -> list[Cohort]:
        """Send and answer. Returns the videos asked for, as they are after the answer."""
        self._watcher.asked(account.number, sent_at, chunks, _videos_of(asked))
        fresh = fresh_cohort(self._plan, account.spread, sent_at)
        answered_at = sent_at + self._plan.request_seconds
        answered = []
        for cohort, number in asked:
            after = after_answer(cohort, number, fresh, answered_at)
            if after.expires_at > cohort.expires_at:
                self._watcher.refreshed(account.number, cohort, answered_at, number)
            answered.append(after)
        return answered


def fresh_cohort(plan: Plan, account_spread: float, sent_at: float) -> Cohort:
    """A cohort, still of no videos, for those that get a cover by a request sent at `sent_at`."""
    expires_at = plan.expires_at(sent_at)
    return Cohort(
        plan.due_at(account_spread, sent_at + plan.request_seconds, expires_at), expires_at, 0
    )


def after_answer(cohort: Cohort, videos: int, fresh: Cohort, now: float) -> Cohort:
    """So many videos of a cohort after they were asked for, as `reconcile` would write them.

    `fresh` is a cohort with the cover that the API has now. Missing and refused videos stay so.
    """
    if cohort.reachable and now < fresh.expires_at > cohort.expires_at:
        return Cohort(fresh.due_at, fresh.expires_at, videos)
    if cohort.due_at > now:
        return cohort.of(videos)  # a top-up that came too early
    misses = cohort.misses + 1
    present = not cohort.missing
    wait = wait_after_refusal(misses) if cohort.alone else wait_after_miss(misses, present=present)
    return replace(cohort, count=videos, misses=misses, due_at=now + wait.total_seconds())


def _videos_of(chosen: Chosen) -> int:
    return sum([videos for _, videos in chosen])


def _by_second(slots: Slots, step: float) -> Iterator[tuple[float, int]]:
    """Chunks whose slots lie within one second: the slot of the first, and their number."""
    sent_at, left = slots.first, slots.chunks
    while left:
        together = min(left, ceil((floor(sent_at) + 1 - sent_at) / step)) if step else left
        yield sent_at, together
        sent_at += together * step
        left -= together


def _taken(chosen: Chosen, videos: int) -> Chosen:
    """So many videos from the end of `chosen`; they leave their cohorts."""
    taken = []
    while chosen and videos:
        cohort, number = chosen.pop()
        if number > videos:
            chosen.append((cohort, number - videos))
            number = videos
        cohort.count -= number
        videos -= number
        taken.append((cohort, number))
    return taken
