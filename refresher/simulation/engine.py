"""The fleet at work under a virtual clock: accounts in a heap by when each is claimed next.

What a claim takes, its slots and when a cover is due again are the daemon's own decisions, out of
`domain`. Answers that one claim gets within a second count as one.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil, floor, inf
from random import Random
from typing import Protocol

from refresher.domain.claiming import Chosen, Slots, choose, chunks_of, most_chunks, reserve
from refresher.domain.due import account_share, wait_after_miss, wait_after_refusal
from refresher.domain.fleet import Cohort, Fleet, add_cohort
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.domain.pacing import back_off
from refresher.simulation.plan import Plan


class Watcher(Protocol):
    """Hears what happens, in Unix time; what is under way at the end is told whole."""

    def asked(self, account: int, sent_at: float, chunks: int, videos: int) -> None:
        """Requests of one second, the first one sent then; `account` is its place in the fleet."""

    def refreshed(self, old: Cohort, answered_at: float, videos: int) -> None:
        """So many videos of a cohort have a newer cover."""


@dataclass(slots=True)
class Account:
    """An account while it is simulated."""

    number: int
    share: float
    cohorts: list[Cohort]
    next_slot: float = -inf
    #: All its requests fail, those of the others are answered.
    bad: bool = False
    failures: int = 0
    isolated: bool = False


class Wakes:
    """When the daemon looks for due accounts.

    At every poll, as an account is given back, and as one is due that was given back since.
    """

    def __init__(self, start: float, poll_seconds: float) -> None:
        self._start = start
        self._poll_seconds = poll_seconds
        self._known: list[float] = []

    def given_back(self, now: float, wakes_at: float) -> None:
        """An account is; it wishes to be looked at again then."""
        heappush(self._known, now)
        if now < wakes_at < now + self._poll_seconds:
            heappush(self._known, wakes_at)

    def first_from(self, moment: float) -> float:
        """The first one from then on; no earlier moment is asked about later."""
        while self._known and self._known[0] < moment:
            heappop(self._known)
        polls = ceil((moment - self._start) / self._poll_seconds)
        poll = self._start + polls * self._poll_seconds
        return min(poll, self._known[0]) if self._known else poll


class Engine:
    """Works a fleet, which it uses up, and tells a watcher. The `bad` accounts fail for good."""

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
        self._accounts = [
            Account(number, account_share(open_id), cohorts, bad=open_id in bad)
            for number, (open_id, cohorts) in enumerate(fleet.accounts.items())
            if cohorts
        ]

    def run(self) -> Iterator[Cohort]:
        """Work all accounts for as long as planned; the cohorts as they stand then."""
        start, end = self._start, self._start + self._plan.seconds
        queue = [(max(start, a.cohorts[0].due_at), n) for n, a in enumerate(self._accounts)]
        heapify(queue)
        wakes = Wakes(start, self._plan.poll_seconds)
        while queue:
            ready, place = queue[0]
            # With a limit for the app the next account is claimed as the app's next slot comes.
            now = max(wakes.first_from(ready), self._app_next_slot)
            if now >= end:
                break
            account = self._accounts[place]
            given_back = (self._fail if account.bad else self._work)(account, now)
            due_at = max(given_back, account.cohorts[0].due_at)
            wakes.given_back(given_back, max(due_at, account.next_slot))
            near = account.next_slot - self._pace.horizon_seconds
            heapreplace(queue, (max(due_at, near), place))
        return (cohort for account in self._accounts for cohort in account.cohorts)

    def _work(self, account: Account, now: float) -> float:
        """One claim, from its slots to its answers written; when the account is given back."""
        chosen = choose(account.cohorts, now, self._most_chunks)
        wanted = chunks_of(sum(videos for _, videos in chosen))
        chunks = min(wanted, self._plan.chunk_budget)
        slots = reserve(self._pace, now, account.next_slot, self._app_next_slot, chunks)
        account.next_slot, self._app_next_slot = slots.next_slot, slots.app_next_slot
        touched = [cohort for cohort, _ in chosen]
        chosen.reverse()
        answered: list[Cohort] = []
        for slot, chunks in _by_second(slots, self._pace.step_seconds):
            asked = _taken(chosen, CHUNK_SIZE * chunks)
            answered += self._ask(account, asked, max(slot, now), chunks)
        for cohort in touched:
            if not cohort.count:
                account.cohorts.remove(cohort)
        for cohort in answered:
            add_cohort(account.cohorts, cohort)
        last_slot = slots.first + max(0, slots.chunks - 1) * self._pace.step_seconds
        return max(last_slot, now) + self._plan.request_seconds + self._plan.writing_seconds

    def _fail(self, account: Account, now: float) -> float:
        """One claim that brings nothing; when the account may be claimed again."""
        most = 1 if account.isolated else self._most_chunks
        videos = sum(number for _, number in choose(account.cohorts, now, most))
        chunks = min(chunks_of(videos), self._plan.chunk_budget)
        slots = reserve(self._pace, now, account.next_slot, self._app_next_slot, chunks)
        account.next_slot, self._app_next_slot = slots.next_slot, slots.app_next_slot
        videos = min(videos, CHUNK_SIZE * slots.chunks)
        self._watcher.asked(account.number, max(slots.first, now), slots.chunks, videos)
        after = back_off(
            account.failures, self._chance.random(), isolated=account.isolated, by_itself=True
        )
        account.failures, account.isolated = after.failures, after.isolated
        last_slot = slots.first + max(0, slots.chunks - 1) * self._pace.step_seconds
        ended = max(last_slot, now) + self._plan.request_seconds + self._plan.writing_seconds
        return ended + after.seconds

    def _ask(self, account: Account, asked: Chosen, sent_at: float, chunks: int) -> list[Cohort]:
        """The videos asked for as they stand after the answer."""
        videos = sum(number for _, number in asked)
        self._watcher.asked(account.number, sent_at, chunks, videos)
        fresh = fresh_cohort(self._plan, account.share, sent_at)
        answered_at = sent_at + self._plan.request_seconds
        answered = []
        for cohort, number in asked:
            after = after_answer(cohort, number, fresh, answered_at)
            if after.expires_at > cohort.expires_at:
                self._watcher.refreshed(cohort, answered_at, number)
            answered.append(after)
        return answered


def fresh_cohort(plan: Plan, share: float, sent_at: float) -> Cohort:
    """No videos yet: how those of an account stand that get a cover by a request sent then."""
    expires_at = plan.expires_at(sent_at)
    return Cohort(plan.due_at(share, sent_at + plan.request_seconds, expires_at), expires_at, 0)


def after_answer(cohort: Cohort, videos: int, fresh: Cohort, now: float) -> Cohort:
    """So many videos of a cohort as they stand when they were asked for: as `reconcile` writes.

    `fresh` is how they stand with the cover that the API has now. What is missing or refused stays
    so.
    """
    if cohort.reachable and now < fresh.expires_at > cohort.expires_at:
        return Cohort(fresh.due_at, fresh.expires_at, videos)
    if cohort.due_at > now:
        return replace(cohort, count=videos)  # a top-up that came too early
    misses = cohort.misses + 1
    present = not cohort.missing
    wait = wait_after_refusal(misses) if cohort.alone else wait_after_miss(misses, present=present)
    return replace(cohort, count=videos, misses=misses, due_at=now + wait.total_seconds())


def _by_second(slots: Slots, step: float) -> Iterator[tuple[float, int]]:
    """The chunks whose slots lie within one second: when the first is sent, how many they are."""
    sent_at, left = slots.first, slots.chunks
    while left:
        together = min(left, ceil((floor(sent_at) + 1 - sent_at) / step)) if step else left
        yield sent_at, together
        sent_at += together * step
        left -= together


def _taken(chosen: Chosen, videos: int) -> Chosen:
    """So many videos out of what was chosen, from its end; they leave their cohorts."""
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
