"""The claim's decisions in Python against the statement that decides in the database."""

import asyncio
import secrets
from bisect import insort
from dataclasses import dataclass
from datetime import timedelta
from math import inf

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from refresher.domain.claiming import choose, chunks_of, most_chunks, reserve
from refresher.domain.cohorts import NO_COVER, Cohort, add_cohort
from refresher.domain.model import CHUNK_SIZE
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.database import connected
from refresher.tiktok.wire import MAX_VIDEO_IDS
from tests.conftest import administer, named

#: Far from any moment at which a decision turns, however slow the machine.
OFFSETS = [60 * minutes + 30 for minutes in range(-90, 90)]


def test_a_chunk_is_what_one_request_may_ask_for():
    """The size is named twice, as the simulation knows no wire format."""
    assert CHUNK_SIZE == MAX_VIDEO_IDS


def cohort(due_at, count=1, **more):
    return Cohort(due_at, NO_COVER, count, **more)


def counts(chosen):
    return [(chosen_of.due_at, videos) for chosen_of, videos in chosen]


@pytest.mark.parametrize(
    ("cohorts", "most_chunks", "expected"),
    [
        pytest.param([cohort(1, 20)], 9, [], id="nothing-is-due"),
        pytest.param([cohort(-1, 5), cohort(1, 30)], 9, [(-1, 5), (1, 15)], id="topped-up"),
        pytest.param([cohort(-1, 5)], 9, [(-1, 5)], id="nothing-to-top-up-with"),
        pytest.param([cohort(-1, 99)], 2, [(-1, 40)], id="no-more-than-the-horizon"),
        pytest.param(
            [cohort(-1, 5), cohort(1, 9, misses=1), cohort(2, 9)],
            9,
            [(-1, 5), (2, 9)],
            id="what-was-missing-is-no-top-up",
        ),
        pytest.param(
            [cohort(-9, 2, alone=True, misses=1), cohort(-1, 5)], 9, [(-1, 5)], id="others-first"
        ),
        pytest.param([cohort(-9, 2, alone=True, misses=1), cohort(1)], 9, [(-9, 1)], id="alone"),
        pytest.param(
            [cohort(-3601, 2, alone=True, misses=1), cohort(-1, 5)], 9, [(-3601, 1)], id="its-turn"
        ),
    ],
)
def test_due_videos_are_chosen_and_topped_up(cohorts, most_chunks, expected):
    """At time 0: due ones first, full chunks, and who spoils requests by himself."""
    assert counts(choose(cohorts, 0, most_chunks)) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=30))
def test_cohorts_are_kept_in_order_and_like_with_like(given_cohorts):
    """By when they are due; nothing is lost, and nothing alike stands twice."""
    cohorts = []
    for due_at, count in given_cohorts:
        add_cohort(cohorts, cohort(due_at, count))
    assert [one.due_at for one in cohorts] == sorted({due_at for due_at, _ in given_cohorts})
    assert sum(one.count for one in cohorts) == sum(count for _, count in given_cohorts)


def test_an_account_starts_late_without_holding_up_the_apps_slots():
    """Its first slot is its own; the app's cursor moves by the number of chunks only."""
    pace = Pace(limit_per_token=306, limit_per_app=631, lease_seconds=60)
    assert (pace.step_seconds, pace.app_step_seconds) == (0.2, 0.1)
    slots = reserve(pace, 100.0, 100.5, 100.1, 2)
    assert (slots.chunks, slots.first) == (2, 100.5)
    assert slots.next_slot == pytest.approx(100.9)
    assert slots.app_next_slot == pytest.approx(100.3)


# --- Against the statement ---


@dataclass(frozen=True)
class Stored:
    """An account to be claimed: its cohorts by offset, and where its slots stand."""

    cohorts: list[Cohort]
    next_slot: float


@st.composite
def cohorts_of_one_account(draw):
    found = []
    for _ in range(draw(st.integers(1, 6))):
        misses, missing, alone = draw(
            st.sampled_from([(0, False, False)] * 4 + [(1, True, False), (2, False, True)])
        )
        one = cohort(
            draw(st.sampled_from(OFFSETS)),
            draw(st.integers(1, 45)),
            misses=misses,
            missing=missing,
            alone=alone,
        )
        insort(found, one, key=lambda other: other.due_at)
    return found


accounts = st.builds(Stored, cohorts_of_one_account(), st.sampled_from([-inf, -30.0, 0.4, 3, 30]))
limits = st.just(0) | st.integers(1, 60) | st.integers(1, 1500)


@dataclass(frozen=True)
class Situation:
    """What a claim meets. Times are seconds from when it was stored."""

    accounts: list[Stored]
    per_token: int
    per_app: int
    app_next_slot: float
    budget: int
    lease_seconds: float

    @property
    def pace(self):
        return Pace(self.per_token, self.per_app, self.lease_seconds)


@dataclass(frozen=True)
class Taken:
    """What a claim took of one account, and where its next slot is then."""

    video_ids: list[str]
    first_slot: float
    step_seconds: float
    next_slot: float


situations = st.builds(
    Situation,
    accounts=st.lists(accounts, min_size=1, max_size=5),
    per_token=limits,
    per_app=limits,
    app_next_slot=st.sampled_from([-inf, -30.0, 0.3, 3]),
    budget=st.integers(1, 40),
    lease_seconds=st.sampled_from([60.0, 6.0, 1.0]),
)


def video_id(account, cohort_number, number):
    return f"{account:02}{cohort_number:02}{number:04}"


def predicted(situation, now):
    """What is taken of which account, and where the app's cursor stands then."""
    pace = situation.pace
    left, app_next_slot, taken = situation.budget, situation.app_next_slot, {}
    near = [
        (number, account)
        for number, account in enumerate(situation.accounts)
        if account.next_slot <= now + pace.horizon_seconds
    ]
    for number, account in near[: situation.budget]:
        chosen = choose(account.cohorts, now, most_chunks(pace, situation.budget))
        wanted = chunks_of(sum(videos for _, videos in chosen))
        slots = reserve(pace, now, account.next_slot, app_next_slot, min(wanted, left))
        app_next_slot, left = slots.app_next_slot, left - slots.chunks
        if slots.chunks:
            numbers = {id(one): place for place, one in enumerate(account.cohorts)}
            ids = [
                video_id(number, numbers[id(one)], place)
                for one, videos in chosen
                for place in range(videos)
            ][: CHUNK_SIZE * slots.chunks]
            taken[f"account-{number}"] = Taken(ids, slots.first, pace.step_seconds, slots.next_slot)
    return taken, app_next_slot


class Statement:
    """The real one, on an event loop of its own."""

    def __init__(self, url):
        self._runner = asyncio.Runner()
        self._url = url

    def close(self):
        self._runner.close()

    def claim(self, situation):
        """What was taken, the app's next slot, and between which moments that was decided."""
        return self._runner.run(self._claim(situation))

    async def _claim(self, situation):
        async with connected(self._url, application_name="tests") as pool:
            base = await self._store(pool, situation)
            sides = Accounts(
                pool,
                replica="a",
                pace=situation.pace,
            )

            async def elapsed(moment="clock_timestamp()", source=""):
                query = f"SELECT extract(epoch FROM {moment} - $1)::float8 {source}"
                return await pool.fetchval(query, base)

            before = await elapsed()
            found = await sides.claim(situation.budget)
            after = await elapsed()
            taken = {}
            for claim in found:
                if claim.videos:
                    source = f"FROM refresher.accounts WHERE open_id = '{claim.open_id}'"
                    taken[claim.open_id] = Taken(
                        [video.video_id for video in claim.videos],
                        (claim.first_slot - base).total_seconds(),
                        claim.step_seconds,
                        await elapsed("next_slot_at", source),
                    )
            cursor = "FROM refresher.app WHERE isfinite(next_slot_at)"
            return taken, await elapsed("next_slot_at", cursor), before, after

    async def _store(self, pool, situation):
        await pool.execute("DELETE FROM refresher.accounts")
        base = await pool.fetchval("SELECT now()")
        for number, account in enumerate(situation.accounts):
            await _add_account(pool, f"account-{number}", base, number, account)
        app_next_slot = _moment(base, situation.app_next_slot)
        await pool.execute(f"UPDATE refresher.app SET next_slot_at = {app_next_slot}")
        return base


async def _add_account(pool, open_id, base, number, account):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 'act.x')", open_id
    )
    rows = [
        (open_id, video_id(number, cohort_number, place), one)
        for cohort_number, one in enumerate(account.cohorts)
        for place in range(one.count)
    ]
    await pool.executemany(
        "INSERT INTO refresher.videos (open_id, video_id, due_at, misses, missing_since, refusal)"
        " VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN now() END, CASE WHEN $6 THEN 'x' END)",
        [
            (name, video, base + timedelta(seconds=one.due_at), one.misses, one.missing, one.alone)
            for name, video, one in rows
        ],
    )
    await pool.execute(
        f"UPDATE refresher.accounts SET wake_at = {_moment(base, number - 3600)},"
        f" next_slot_at = {_moment(base, account.next_slot)} WHERE open_id = $1",
        open_id,
    )


def _moment(base, offset):
    """SQL: so many seconds from the base."""
    if offset == -inf:
        return "'-infinity'"
    return f"timestamptz '{base.isoformat()}' + {offset} * interval '1 second'"


@pytest.fixture
def statement(server, template):
    name = f"claiming_{secrets.token_hex(4)}"
    asyncio.run(administer(server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    found = Statement(named(server, name))
    yield found
    found.close()
    asyncio.run(administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.long
def test_the_statement_decides_the_same(statement):
    """The same videos in the same order, as many chunks, in the same slots."""

    @settings(
        max_examples=100,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(situation=situations)
    def agree(situation):
        taken, app_next_slot, before, after = statement.claim(situation)
        early, early_cursor = predicted(situation, before)
        late, late_cursor = predicted(situation, after)
        assert summary(taken) in (summary(early), summary(late))
        for open_id in taken.keys() & early.keys() & late.keys():
            lower, upper = early[open_id], late[open_id]
            for name in ("first_slot", "next_slot"):
                value = getattr(taken[open_id], name)
                assert getattr(lower, name) - 1e-5 <= value <= getattr(upper, name) + 1e-5
        if situation.per_app and early.keys() == taken.keys() == late.keys():
            if app_next_slot is None:
                assert early_cursor == -inf
            else:
                assert early_cursor - 1e-5 <= app_next_slot <= late_cursor + 1e-5

    agree()


def summary(taken):
    """What does not depend on the moment."""
    return {name: (one.video_ids, pytest.approx(one.step_seconds)) for name, one in taken.items()}
