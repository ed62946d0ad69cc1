"""A made-up fleet: accounts of very unequal size in their steady state."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from refresher.domain.claiming import chunks_of
from refresher.domain.cohorts import Cohort, Fleet, add_cohort
from refresher.domain.due import account_spread
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.simulation.plan import START, Plan

#: The largest account that operators are known to have.
LARGEST: Final = 50_000


def steady_fleet(counts: Sequence[int], plan: Plan, seed: int) -> Fleet:
    """Accounts of so many videos, whose covers were obtained evenly over the past lifetime.

    Account after account, in an order given by `seed`, as under one quota for all. An account's
    chunks follow each other at its own pace, or evenly over the lifetime if they are too many.
    """
    chunks_in_all = sum(map(chunks_of, counts))
    order = list(range(len(counts)))
    Random(seed).shuffle(order)  # noqa: S311 - a simulation, to be repeated
    fleet: dict[OpenId, list[Cohort]] = {}
    chunks_before = 0
    for number in order:
        open_id = OpenId(f"account-{number + 1}")
        begun = chunks_before / chunks_in_all
        fleet[open_id] = _steady(counts[number], account_spread(open_id), plan, begun)
        chunks_before += chunks_of(counts[number])
    return Fleet(START, fleet)


def sizes(videos: int, accounts: int) -> Sequence[int]:
    """How many videos each account has, by Zipf's law up to `LARGEST`; `videos` in all.

    Of 100,000 accounts with 10,000,000 videos, about twenty have 50,000 each, and half of them have
    about twenty or fewer. Raises `ValueError` for fewer videos than accounts, or too many.
    """
    if not accounts <= videos <= accounts * LARGEST:
        raise ValueError(
            f"expected {accounts:,} to {accounts * LARGEST:,} videos of {accounts:,} accounts, "
            f"not {videos:,}"
        )
    low, high = 0.0, float(LARGEST * accounts)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_zipf(accounts, middle)) <= videos else (low, middle)
    return _filled(list(_zipf(accounts, low)), videos)


def _zipf(accounts: int, scale: float) -> Iterator[int]:
    return (max(1, min(LARGEST, int(scale / rank))) for rank in range(1, accounts + 1))


def _filled(counts: list[int], videos: int) -> Sequence[int]:
    """Give the videos that rounding left over to accounts with room, one each in turn."""
    missing = videos - sum(counts)
    while missing:
        for rank, count in enumerate(counts):
            if missing and count < LARGEST:
                counts[rank] += 1
                missing -= 1
    return counts


def _steady(videos: int, spread: float, plan: Plan, begun: float) -> list[Cohort]:
    """An account's covers, the first obtained when `begun` of the last lifetime had passed."""
    period = plan.period_seconds(spread)
    chunks = chunks_of(videos)
    distance = min(plan.chunk_seconds, period / chunks)
    cohorts: list[Cohort] = []
    for chunk in range(chunks):
        # To the second, as the engine tells answers apart.
        sent_at = (START - period + (begun * period + chunk * distance) % period) // 1
        expires_at = plan.expires_at(sent_at)
        due_at = plan.due_at(spread, sent_at + plan.request_seconds, expires_at)
        count = min(CHUNK_SIZE, videos - chunk * CHUNK_SIZE)
        add_cohort(cohorts, Cohort(due_at, expires_at, count))
    return cohorts
