"""Any order of claims, answers, crashes, stalls and applications' writes, over the real SQL.

A model beside the database says what must hold after each step. The database's clock cannot be set,
so time passes by moving everything that is stored back: the model's times are the database's plus
all that has passed so.

MODEL_EXAMPLES=20000 looks longer than the suite does, and elsewhere each time.
"""

import asyncio
import os
import secrets
from bisect import bisect_left
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf, isfinite
from typing import Any, TypeVar

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from refresher.domain.app_limit import LEAST_RATE
from refresher.domain.due import DuePolicy
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import ChunkWrite, Claim, RefreshToken, Sample, TokenPair, Video, Write
from refresher.domain.pacing import (
    APP_RATE_DOUBLED_SECONDS,
    APP_RATE_KEPT_SECONDS,
    APP_REACH_SECONDS,
    HEADROOM_SECONDS,
    LATEST_SECONDS,
    LEAST_RATE_SHARE,
    PAST_SECONDS,
    RATE_DECREASE,
    RATE_RECOVERY_PER_MINUTE,
    WINDOW_SECONDS,
    Pace,
    growing_seconds,
    step_seconds,
)
from refresher.domain.reconcile import put_aside, reconcile, refused_alone
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.constants import ASSUMED_STEP_SECONDS
from refresher.postgres.database import Pool, connected
from refresher.postgres.sealing import Sealer, rotate_all, seal_all
from refresher.postgres.status import read_summary, set_state
from refresher.postgres.tokens import TokenStore
from refresher.postgres.write_back import write_back
from tests.conftest import administer, named, one_by_one
from tests.outcomes import conclude, conclude_token

T = TypeVar("T")

ACCOUNTS = ("ana", "ben", "cid")
WORKERS = ("a", "b", "c")
LEASE_SECONDS = 60.0
TICKS = (0.3, 1.7, 7.1, 23.0, 61.0, 290.0, 3_700.0, 90_000.0)
#: Longer than every lease, back-off and pause that this model knows.
LONG_SECONDS = 4_000.0
DAY_SECONDS = 86_400.0
#: For what is counted in microseconds here and there.
HAIR = 1e-3
POLICY = DuePolicy(
    lead=timedelta(hours=1),
    spread=timedelta(minutes=30),
    fallback_ttl=timedelta(hours=6),
    missing_limit=3,
)
KEYS = [Fernet.generate_key().decode() for _ in range(2)]
ACTS = ("write", "extend", "reserve", "begin", "store", "end", "release", "park")
OUTCOMES = st.lists(
    st.sampled_from(["fresh", "short", "short", "same", "missing", "odd", "alone", "aside"]),
    min_size=1,
    max_size=3,
)
QUERY_ERRORS: tuple[UpstreamError, ...] = (
    UpstreamFailed("internal_error", status=500),
    AccessTokenRefused("access_token_invalid", status=401),
    ScopeRefused("scope_not_authorized", status=401),
    Throttled("rate_limit_exceeded", status=429, log_id="", retry_after_seconds=None),
    Throttled("rate_limit_exceeded", status=429, log_id="", retry_after_seconds=100.0),
    DailyQuotaSpent("daily_quota", status=429, log_id="", retry_after_seconds=100.0),
)
TOKEN_ERRORS: tuple[UpstreamError, ...] = (
    UpstreamFailed("timed_out"),
    GrantRefused("invalid_grant", status=400),
    ClientRefused("invalid_client", status=401),
    TokenRequestFailed("server_error", status=500),
)

SQL_EMPTY = """
TRUNCATE refresher.videos, refresher.accounts;
UPDATE refresher.app SET next_slot_at = '-infinity', rate = NULL, rate_lowered_at = '-infinity';
UPDATE refresher.audit SET audited_to = '';
"""

# One statement a table, over whatever columns hold a time.
SQL_MOVE_BACK = """
SELECT format('UPDATE refresher.%I SET %s', table_name, string_agg(
    format('%1$I = %1$I - interval ''%2$s seconds''', column_name, $1::text), ', '))
FROM information_schema.columns
WHERE table_schema = 'refresher' AND data_type = 'timestamp with time zone'
GROUP BY table_name
"""

SQL_ACCOUNTS = """
SELECT a.open_id, a.state, a.access_token, a.refresh_token, a.lease_epoch, a.tokens_generation,
       extract(epoch FROM a.wake_at)::float8 AS wake_at,
       extract(epoch FROM a.lease_expires_at)::float8 AS lease_expires_at,
       extract(epoch FROM a.next_slot_at)::float8 AS next_slot_at,
       extract(epoch FROM a.token_due_at)::float8 AS token_due_at,
       (SELECT coalesce(extract(epoch FROM min(v.due_at)), 'infinity')::float8
        FROM refresher.videos AS v WHERE v.open_id = a.open_id) AS due_at,
       extract(epoch FROM clock_timestamp())::float8 AS now
FROM refresher.accounts AS a
"""

SQL_VIDEOS = """
SELECT open_id, video_id, cover_image_url IS NOT NULL AS covered, refusal IS NOT NULL AS alone,
       due_at, extract(epoch FROM cover_expires_at)::float8 AS expires_at
FROM refresher.videos
"""

SQL_DUE = """
SELECT count(*)
FROM refresher.videos AS v JOIN refresher.accounts AS a USING (open_id)
WHERE a.state = 'active' AND v.due_at <= now()
"""

SQL_PLACE = f"""
SELECT extract(epoch FROM CASE
    WHEN next_slot_at >= clock_timestamp() - interval '{PAST_SECONDS} seconds' THEN next_slot_at
    ELSE clock_timestamp()
END)::float8
FROM refresher.app
"""

# Every row as it is, to the last column.
SQL_PRINT = """
SELECT coalesce((SELECT string_agg(a::text, ' ' ORDER BY open_id) FROM refresher.accounts AS a), '')
    || coalesce((SELECT string_agg(v::text, ' ' ORDER BY open_id, video_id)
                 FROM refresher.videos AS v), '')
    || (SELECT app::text FROM refresher.app)
"""


class Database:
    """The pool, on an event loop of its own: a state machine is no coroutine."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self.pool: Pool = self.run(
            self._stack.enter_async_context(connected(url, application_name="tests"))
        )

    def run(self, waiting: Awaitable[T]) -> T:
        async def waited() -> T:
            return await waiting

        return self._loop.run_until_complete(waited())

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._loop.close()

    def fetch(self, statement: str, *arguments: object) -> Any:
        return self.run(self.pool.fetch(statement, *arguments))

    def value(self, statement: str, *arguments: object) -> Any:
        return self.run(self.pool.fetchval(statement, *arguments))

    def execute(self, statement: str, *arguments: object) -> None:
        self.run(self.pool.execute(statement, *arguments))

    def now(self) -> float:
        now: float = self.value("SELECT extract(epoch FROM clock_timestamp())::float8")
        return now

    def move_back(self, seconds: float) -> None:
        """Let time pass: everything stored lies that much further in the past."""
        statements = [row[0] for row in self.fetch(SQL_MOVE_BACK, str(seconds))]
        self.run(self._without_triggers(statements))

    async def _without_triggers(self, statements: list[str]) -> None:
        async with self.pool.acquire() as taken, taken.transaction():
            await taken.execute("SET LOCAL session_replication_role = replica")
            tokens = "ALTER TABLE refresher.accounts {} TRIGGER tokens_replaced"
            await taken.execute(tokens.format("DISABLE"))
            for statement in statements:
                await taken.execute(statement)
            await taken.execute(tokens.format("ENABLE ALWAYS"))


@dataclass
class Account:
    """What the model knows of an account. Times are the model's."""

    access: str | None
    refresh: str | None
    state: str = "active"
    #: How often the tokens have become others.
    version: int = 0
    request_open: bool = False
    epoch: int = 0
    lease_end: float | None = None
    backed_off_until: float = -inf
    paused_until: float = -inf
    next_slot: float = -inf
    slots: list[float] = field(default_factory=list)
    share: float = 1.0
    lowered_at: float = -inf
    covers: dict[str, float] = field(default_factory=dict)

    def share_at(self, now: float) -> float:
        recovered = RATE_RECOVERY_PER_MINUTE * (now - self.lowered_at) / 60
        return min(1.0, self.share + recovered)


@dataclass
class Held:
    """A claim in the hands of a worker, as it was when it was made."""

    worker: str
    claim: Claim
    passed: float
    version: int
    #: The refresh token that a request was begun with.
    used: RefreshToken | None = None
    #: Of what its last write stored.
    samples: Sequence[Sample] = ()


class Model(RuleBasedStateMachine):
    """The steps, and beside each what must come of it."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.run = self.database.run
        self.pool = self.database.pool
        self.passed = 0.0
        self.accounts: dict[str, Account] = {}
        self.held: list[Held] = []
        self.slots: list[float] = []
        self.app_from = -inf
        self.app_rate: float | None = None
        self.app_lowered_at = -inf
        self.numbers = iter(range(10**9))
        self.database.execute(SQL_EMPTY)

    @initialize(
        per_token=st.sampled_from([600, 30, 6, 0]),
        per_app=st.sampled_from([0, 0, 60, 20]),
        managed=st.sampled_from([True, True, False]),
        sealed=st.booleans(),
        lives=st.lists(st.sampled_from([None, 5, 5, 4_000]), min_size=1, max_size=3),
        videos=st.sampled_from([1, 45, 130]),
    )
    def begin(
        self,
        *,
        per_token: int,
        per_app: int,
        managed: bool,
        sealed: bool,
        lives: list[int | None],
        videos: int,
    ) -> None:
        self.per_token, self.per_app, self.managed = per_token, per_app, managed
        self.sealers = [Sealer(KEYS), Sealer(KEYS[::-1])] if sealed else [Sealer(())]
        self.workers = {
            worker: Accounts(
                self.pool,
                replica=worker,
                pace=Pace(per_token, per_app, lease_seconds=LEASE_SECONDS),
                managed=managed,
                sealer=self.sealers[0],
            )
            for worker in WORKERS
        }
        self.store = TokenStore(self.pool, self.sealers[0])
        for open_id, seconds in zip(ACCOUNTS, lives, strict=False):
            self.insert_account(
                open_id, renewable=seconds is not None, lives=seconds, tokenless=False
            )
            self.insert_videos(open_id, videos)

    # --- What an application does ---

    @rule(
        open_id=st.sampled_from(ACCOUNTS),
        does=st.sampled_from(
            ["insert", "insert", "import", "refused", "delete", "replace", "pause", "resume"]
        ),
        number=st.sampled_from([1, 3, 19, 21, 45]),
        due_in=st.sampled_from([5, 200, 5_000]),
        both=st.booleans(),
        lives=st.sampled_from([None, 5, 90_000]),
    )
    def apply(
        self, open_id: str, does: str, number: int, due_in: int, *, both: bool, lives: int | None
    ) -> None:
        if open_id not in self.accounts:
            self.insert_account(open_id, renewable=both, lives=lives, tokenless=does == "import")
        match does:
            case "insert" | "refused":
                self.insert_videos(open_id, number, refused=does == "refused")
            case "import":
                self.insert_videos(open_id, number, due_in)
            case "delete":
                self.delete_videos(open_id, number % 10)
            case "replace":
                self.replace_tokens(open_id, both=both, lives=lives)
            case _:
                self.pause_or_resume(open_id, "paused" if does == "pause" else "active")

    def insert_account(
        self, open_id: str, *, renewable: bool, lives: int | None, tokenless: bool
    ) -> None:
        access = None if tokenless else self._token()
        account = Account(access, self._token() if renewable else None)
        self.accounts[open_id] = account
        account.epoch = self.database.value(
            "INSERT INTO refresher.accounts (open_id, access_token, refresh_token,"
            " access_token_expires_at) VALUES ($1, $2, $3, now() + $4::float8 * interval '1 s')"
            " RETURNING lease_epoch",
            open_id,
            account.access,
            account.refresh,
            lives,
        )
        self.insert_videos(open_id, 1)

    def insert_videos(
        self, open_id: str, number: int, due_in: int = 0, *, refused: bool = False
    ) -> None:
        # Each of those takes a claim of its own.
        ids = [str(next(self.numbers)) for _ in range(min(number, 2) if refused else number)]
        self.database.execute(
            "INSERT INTO refresher.videos (open_id, video_id, due_at, refusal, misses)"
            " SELECT $1, unnest($2::text[]), now() + $3::float8 * interval '1 s',"
            " CASE WHEN $4 THEN 'invalid_params' END, $4::integer",
            open_id,
            ids,
            due_in,
            refused,
        )

    def delete_videos(self, open_id: str, digit: int) -> None:
        self.database.execute(
            "DELETE FROM refresher.videos WHERE open_id = $1 AND video_id LIKE '%' || $2::text",
            open_id,
            str(digit),
        )

    def replace_tokens(self, open_id: str, *, both: bool, lives: int | None) -> None:
        account = self.accounts[open_id]
        account.access = self._token()
        account.refresh = self._token() if both else account.refresh
        account.version += 1
        account.request_open = False
        if account.state.startswith("needs_"):
            account.state = "active"
        self.database.execute(
            "UPDATE refresher.accounts SET access_token = $2,"
            " refresh_token = coalesce($3, refresh_token),"
            " access_token_expires_at = now() + $4::float8 * interval '1 s' WHERE open_id = $1",
            open_id,
            account.access,
            account.refresh if both else None,
            lives,
        )

    def pause_or_resume(self, open_id: str, state: str) -> None:
        self.accounts[open_id].state = state
        self.run(set_state(self.pool, open_id, state, None))

    # --- What happens to everybody ---

    @rule(seconds=st.sampled_from(TICKS))
    def tick(self, seconds: float) -> None:
        self.database.move_back(seconds)
        self.passed += seconds

    @rule(
        does=st.sampled_from(["crash", "throttle", "seal", "rotate", "look"]),
        worker=st.sampled_from(WORKERS),
        answered=st.sampled_from([0, 100, 900]),
    )
    def happen(self, does: str, worker: str, answered: int) -> None:
        match does:
            case "crash":
                self.crash(worker)
            case "throttle":
                self.limit_app(worker, answered)
            case "look":
                self.audit_and_summarize()
            case _:
                self.seal(rotate=does == "rotate", which=answered % 7)

    def crash(self, worker: str) -> None:
        self.held = [held for held in self.held if held.worker != worker]

    # --- What the workers do ---

    @rule(
        workers=st.lists(st.sampled_from(WORKERS), min_size=1, max_size=3, unique=True),
        budget=st.sampled_from([1, 2, 5, 64]),
    )
    def claim(self, workers: list[str], budget: int) -> None:
        videos, place = self._videos(), self._place()
        answers = self.run(self._claim_together(workers, budget))
        for worker, claims in zip(workers, answers, strict=True):
            assert sum(-(-len(claim.videos) // 20) for claim in claims) <= budget
            # In the order of the slots: which of two workers was first is not for us to know.
            for claim in claims:
                self._claimed(worker, claim, videos)
        claimed = [claim for claims in answers for claim in claims]
        assert len({claim.open_id for claim in claimed}) == len(claimed)
        self._check_places(place, [slot for claim in claimed for slot in self._slots(claim)])

    async def _claim_together(self, workers: list[str], budget: int) -> list[Any]:
        return await asyncio.gather(*(self.workers[worker].claim(budget) for worker in workers))

    def _claimed(self, worker: str, claim: Claim, videos: dict[tuple[str, str], Any]) -> None:
        account = self.accounts[claim.open_id]
        now = self._time(claim.time.now)
        assert account.state == "active"
        assert account.lease_end is None or account.lease_end <= now + HAIR
        assert claim.lease_epoch == account.epoch + 1
        assert self._time(claim.lease_expires_at) == pytest.approx(now + LEASE_SECONDS, abs=HAIR)
        assert claim.access_token == account.access
        assert not (claim.token.due and claim.videos), "asked with a token that is to be replaced"
        assert claim.token.renewable == (self.managed and account.refresh is not None)
        ids = [video.video_id for video in claim.videos]
        asked = [videos[claim.open_id, video_id] for video_id in ids]
        assert len(ids) == len(set(ids))
        assert len(ids) == 1 or not any(video["alone"] for video in asked)
        for video, row in zip(claim.videos, asked, strict=True):
            assert video.due == (row["due_at"] <= claim.time.now)
        account.epoch = claim.lease_epoch
        account.lease_end = self._time(claim.lease_expires_at)
        self._check_step(account, claim.step_seconds, now)
        first = self._time(claim.first_slot)
        number = -(-len(ids) // 20)
        assert not number or first >= now - PAST_SECONDS - HAIR
        self._grant(account, first, number, claim.step_seconds)
        self.held.append(Held(worker, claim, self.passed, account.version))

    def _check_step(self, account: Account, step: float, now: float) -> None:
        """The configured distance, or one that a 429 has made wider."""
        share = account.share_at(now)
        least = max(step_seconds(self.per_token), self._app_step(now))
        expected = max(least, ASSUMED_STEP_SECONDS) / share if share < 1 else least
        assert step == pytest.approx(expected, rel=1e-3)

    def _app_step(self, now: float) -> float:
        configured = step_seconds(self.per_app, APP_REACH_SECONDS)
        if (rate := self._rate(now)) is None:
            return configured
        return max(configured, (WINDOW_SECONDS + HEADROOM_SECONDS + APP_REACH_SECONDS) / rate)

    def _rate(self, now: float) -> float | None:
        """What the app as a whole was found to be allowed, as long as that is kept to."""
        if self.app_rate is None or now - self.app_lowered_at >= APP_RATE_KEPT_SECONDS:
            return None
        grown = max(0.0, now - self.app_lowered_at) / APP_RATE_DOUBLED_SECONDS
        rate: float = self.app_rate * 2**grown**3
        return rate

    def _slots(self, claim: Claim) -> list[float]:
        first, number = self._time(claim.first_slot), -(-len(claim.videos) // 20)
        return [first + n * claim.step_seconds for n in range(number)]

    def _check_places(self, place: float, slots: list[float]) -> None:
        """Each chunk has moved the app's next place by one, and none is sent before its own."""
        step = self._app_step(self._now()) * (1 - 1e-3)
        if not step:
            return
        for number, slot in enumerate(sorted(slots)):
            assert slot >= place + number * step - HAIR
        assert self._place() >= place + len(slots) * step - HAIR

    def _place(self) -> float:
        """The first of the app's places that is still to be had."""
        place: float = self.database.value(SQL_PLACE)
        return place + self.passed

    def _grant(self, account: Account, first: float, number: int, step: float) -> None:
        if not number:
            return
        slots = [first + n * step for n in range(number)]
        assert first >= account.next_slot - HAIR, "too close to the account's last slot"
        assert first >= account.paused_until - HAIR, "within the account's pause"
        account.next_slot = first + number * step
        account.slots = [*account.slots, *slots][-1_000:]
        if self.per_token:
            assert fullest_window(account.slots) <= self.per_token
        limit = self._rate(slots[-1])
        if self.per_app or limit is not None:
            assert first >= self.app_from - HAIR, "within the app's pause"
        self.slots = sorted([*self.slots, *slots])[-1_000:]
        if self.per_app:
            assert fullest_window(self.slots) <= self.per_app
        if limit is not None:
            since = [slot for slot in self.slots if slot >= self.app_from]
            assert fullest_window(since) <= limit + 1

    def extend(self, which: int) -> None:
        if (held := self._pick(which)) is None:
            return
        account, before = self.accounts[held.claim.open_id], self._print()
        (left,) = self.run(self.workers[held.worker].extend([held.claim]))
        if not self._current(held):
            assert left is None
            assert self._print() == before
            return
        assert left == pytest.approx(LEASE_SECONDS, abs=HAIR)
        account.lease_end = self._lease_end(held)

    def reserve(self, which: int) -> None:
        if (held := self._pick(which)) is None:
            return
        self._near_its_slot(held)
        account, before = self.accounts[held.claim.open_id], self._print()
        earliest, place = self._now(), self._place()
        slot = self.run(self.workers[held.worker].reserve(held.claim))
        self._check_leased(held, earliest, done=slot is not None)
        if slot is None:
            assert self._print() == before
            return
        assert self._time(slot) >= earliest - PAST_SECONDS - HAIR
        next_slot = self._row(held)["next_slot_at"] + self.passed
        step = next_slot - self._time(slot)
        self._check_step(account, step, earliest)
        self._grant(account, self._time(slot), 1, step)
        self._check_places(place, [self._time(slot)])

    def _near_its_slot(self, held: Held) -> None:
        """As the flow does it: a further slot is only asked for when the account's own is near."""
        row = self._row(held)
        if (seconds := row["next_slot_at"] - row["now"] - LATEST_SECONDS) > 0:
            self.tick(round(seconds, 3))

    def _check_leased(self, held: Held, earliest: float, *, done: bool) -> None:
        """Done under a lease that runs, not done without one; which of them is known by now."""
        lease_end = self.accounts[held.claim.open_id].lease_end
        if not self._current(held) or (lease_end or 0.0) <= earliest:
            assert not done
        elif (lease_end or 0.0) > self._now():
            assert done

    def write(self, which: int, outcomes: list[str], only: int) -> None:
        if (held := self._pick(which)) is None:
            return
        before = self._print()
        now = datetime.fromtimestamp(self.database.now(), UTC)
        videos = [self._as_of_now(video, held) for video in held.claim.videos[:only]]
        writes = self._writes(held.claim.open_id, videos, outcomes, now)
        chunk = ChunkWrite(held.claim.open_id, held.claim.lease_epoch, writes, held.claim.ctids)
        (written,) = self.run(write_back(self.pool, [chunk]))
        if self.accounts[held.claim.open_id].epoch != held.claim.lease_epoch:
            assert written == 0
            assert self._print() == before
            return
        if written == chunk.videos:
            new = [write.video_ids for write in writes if write.urls]
            held.samples = [Sample(video_ids[0], len(video_ids)) for video_ids in new]
        stored = self._videos()
        for write in one_by_one(writes):
            video = stored.get((held.claim.open_id, write.video_ids[0]))
            if video and write.cover_expires_at:
                assert video["expires_at"] >= write.cover_expires_at.timestamp() - HAIR

    @staticmethod
    def _writes(
        open_id: Any, videos: list[Video], outcomes: list[str], now: datetime
    ) -> list[Write]:
        if outcomes[0] == "alone":
            return refused_alone(videos[:1], "invalid_params", now).writes
        if outcomes[0] == "aside":
            return put_aside(POLICY, videos, "invalid_params", now).writes
        answer: dict[str, object] = {}
        for number, video in enumerate(videos):
            expires_at = {
                "fresh": now.timestamp() + 86_400,
                "short": now.timestamp() + 40,
                "same": video.cover_expires_at or now.timestamp(),
            }
            match outcomes[number % len(outcomes)]:
                case "missing":
                    continue
                case "fresh" | "short" | "same" as outcome:
                    at = int(expires_at[outcome])
                    answer[video.video_id] = f"https://example.com/c?x-expires={at}"
                case _:
                    answer[video.video_id] = None
        return reconcile(POLICY, open_id, videos, answer, now).writes

    def _as_of_now(self, video: Video, held: Held) -> Video:
        """The video as the worker has it, whose clock went on while the rows moved back."""
        passed = self.passed - held.passed
        expires_at = video.cover_expires_at
        return video._replace(cover_expires_at=expires_at and expires_at - passed)

    def release(
        self,
        which: int,
        errors: list[UpstreamError],
        token_error: UpstreamError | None,
        *,
        answered: bool,
        chance: float = 0.5,
    ) -> None:
        if (held := self._pick(which)) is None:
            return
        self.held.remove(held)
        claim, account = held.claim, self.accounts[held.claim.open_id]
        if claim.token.due:
            retry = growing_seconds(claim.token.failures, chance)
            release = conclude_token(claim, token_error, chance, retry)
        else:
            release = conclude(
                claim, errors, chance, answered=answered, requests=1, samples=held.samples
            )
        generation = self._row(held)["tokens_generation"]
        before, earliest = self._print(), self._now()
        (released,) = self.run(self.workers[held.worker].release([release]))
        if not self._current(held):
            assert released is None
            assert self._print() == before
            return
        assert released is not None
        latest = self._now()
        account.lease_end = None
        wait = max(release.retry_seconds, release.pause_seconds)
        account.backed_off_until = latest + wait
        if release.pause_seconds:
            account.next_slot = max(account.next_slot, earliest + release.pause_seconds)
        if release.pause_seconds:
            account.paused_until = max(account.paused_until, earliest + release.pause_seconds)
        if release.pause_seconds and not release.quota_spent:
            share = RATE_DECREASE * account.share_at(latest)
            account.share = max(LEAST_RATE_SHARE, share)
            account.lowered_at = latest
        its_own = held.version == account.version
        if released.parked:
            assert its_own, "parked for tokens that have been replaced"
            assert release.park
            assert account.state == "active"
            account.state = release.park.state
        elif release.park and account.state == "active":
            assert not its_own or generation != claim.token.generation

    def limit_app(self, worker: str, answered: int) -> None:
        """All of it at once: a window has to pass until there is room again."""
        earliest = self._now()
        self.run(self.workers[worker].tell_answers([answered]))
        limit = self.run(self.workers[worker].limit_app(0.0))
        assert limit is not None
        assert limit.answered >= answered
        assert limit.rate_per_minute >= max(LEAST_RATE, answered)
        self.app_rate = limit.rate_per_minute
        self.app_from = earliest + limit.pause_seconds
        self.app_lowered_at = self._now() + limit.pause_seconds

    @rule(
        which=st.integers(0, 9),
        outcomes=OUTCOMES,
        errors=st.lists(st.sampled_from(QUERY_ERRORS), max_size=1),
        rounds=st.integers(1, 3),
    )
    def work(
        self, which: int, outcomes: list[str], errors: list[UpstreamError], rounds: int
    ) -> None:
        """What mostly happens: claims are worked to their ends."""
        for number in range(rounds):
            self._work(which + number, outcomes, errors)

    def _work(self, which: int, outcomes: list[str], errors: list[UpstreamError]) -> None:
        if (held := self._pick(which)) is None:
            return
        if held.claim.token.due:
            self._begin_request(held)
        which = self.held.index(held)
        self.write(which, outcomes, 20)
        if held.used:
            lives = 30 if which % 2 else 90_000
            self._store_pair(held, TokenPair(self._token(), lives, None, None, None))
        self.release(which, errors, None, answered=not errors)

    @rule(
        which=st.integers(0, 9),
        worker=st.sampled_from(WORKERS),
        acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=3),
        seconds=st.sampled_from([0.0, LEASE_SECONDS + 1.0]),
        meanwhile=st.sampled_from(["insert", "replace", "replace", "pause", "rotate"]),
    )
    def stall(
        self, which: int, worker: str, acts: list[str], seconds: float, meanwhile: str
    ) -> None:
        """A worker goes on late, when the account is another or somebody else's."""
        if (held := self._pick(which)) is None:
            return
        # Token requests are rarer than others, and most is at stake in them.
        held = next((held for held in self.held if held.claim.token.due), held)
        if held.claim.token.due:
            self._begin_request(held)
        self._disturb(held.claim.open_id, meanwhile)
        self.tick(seconds)
        self.claim([worker], 64)
        if held.claim.token.due and "begin" in acts:
            self._begin_request(held)
        if held.used:
            self._store_pair(held, TokenPair(self._token(), 90_000, None, None, None))
        for act in acts:
            if held in self.held:
                self.act(self.held.index(held), act, ["fresh"], [], None, answered=False)

    def _disturb(self, open_id: str, how: str) -> None:
        match how:
            case "insert":
                # It wakes the account, which is no reason for others to claim it.
                self.insert_videos(open_id, 3)
            case "replace":
                self.replace_tokens(open_id, both=True, lives=None)
            case "pause":
                self.pause_or_resume(open_id, "paused")
            case "rotate":
                self.seal(rotate=True, which=1)

    @rule(
        which=st.integers(0, 9),
        act=st.sampled_from(ACTS),
        outcomes=OUTCOMES,
        errors=st.lists(st.sampled_from(QUERY_ERRORS), max_size=2),
        token_error=st.none() | st.sampled_from(TOKEN_ERRORS),
        answered=st.booleans(),
    )
    def act(
        self,
        which: int,
        act: str,
        outcomes: list[str],
        errors: list[UpstreamError],
        token_error: UpstreamError | None,
        *,
        answered: bool,
    ) -> None:
        """One step of the work on a claim, in whatever order the steps come."""
        match act:
            case "write":
                self.write(which, outcomes, 1 if answered else 20)
            case "extend":
                self.extend(which)
            case "reserve":
                self.reserve(which)
            case "begin":
                self.begin_token_request(which)
            case "store":
                self.store_pair(which, rotated=answered, lives=30 if errors else 90_000)
            case "end":
                self.end_token_request(which)
            case "park":
                self.release(which, [QUERY_ERRORS[2]], QUERY_ERRORS[2], answered=False)
            case _:
                self.release(which, errors, token_error, answered=answered)

    # --- Tokens ---

    def begin_token_request(self, which: int) -> None:
        due = [held for held in self.held if held.claim.token.due]
        if due:
            self._begin_request(due[which % len(due)])

    def _begin_request(self, held: Held) -> None:
        account, row, before = self.accounts[held.claim.open_id], self._row(held), self._print()
        earliest = self._now()
        found = self.run(self.store.begin(held.claim))
        if held.version != account.version:
            assert found is None
        elif row["tokens_generation"] == held.claim.token.generation:
            self._check_leased(held, earliest, done=found is not None)
        if found is None:
            assert self._print() == before
            return
        assert (found.token, found.interrupted) == (account.refresh, account.request_open)
        account.request_open = True
        held.used = found

    def store_pair(self, which: int, *, rotated: bool, lives: int) -> None:
        if (held := self._pick_begun(which)) is None:
            return
        pair = TokenPair(self._token(), lives, self._token() if rotated else None, None, None)
        self._store_pair(held, pair)

    def _store_pair(self, held: Held, pair: TokenPair) -> None:
        """Whatever has happened to lease and seals: it is stored unless theirs is newer."""
        account, before = self.accounts[held.claim.open_id], self._print()
        used, held.used = held.used, None
        assert used
        due_in = pair.access_token_lives_seconds / 2
        stored = self.run(self.store.replace(held.claim, used, pair, due_in))
        assert stored == (used.token == account.refresh)
        if not stored:
            assert self._print() == before
            return
        if account.access == held.claim.access_token:
            account.access = pair.access_token
        account.refresh = pair.refresh_token or account.refresh
        account.version += 1
        account.request_open = False
        if account.state == "needs_reauthorization":
            account.state = "active"

    def end_token_request(self, which: int) -> None:
        if (held := self._pick_begun(which)) is None:
            return
        held.used = None
        unknown, row = which % 2 == 0, self._row(held)
        ours = (row["tokens_generation"], row["lease_epoch"]) == (
            held.claim.token.generation,
            held.claim.lease_epoch,
        )
        if ours and not unknown:
            self.accounts[held.claim.open_id].request_open = False
        self.run(self.store.end(held.claim, unknown=unknown))

    def seal(self, *, rotate: bool, which: int) -> None:
        sealer = self.sealers[which % len(self.sealers)]
        self.run((rotate_all if rotate else seal_all)(self.pool, sealer))

    # --- What must hold after each step ---

    def audit_and_summarize(self) -> None:
        """An audit is there for mistakes: as there are none, it has nothing to mend.

        The summary reads the videos of few accounts and still misses none that is due.
        """
        assert self.run(audit_step(self.pool, managed=self.managed)) == []
        summary = self.run(read_summary(self.pool))
        assert sum(summary.accounts.values()) == len(self.accounts)
        assert summary.due == self.database.value(SQL_DUE)

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        rows = {row["open_id"]: row for row in self.database.fetch(SQL_ACCOUNTS)}
        assert rows.keys() == self.accounts.keys()
        for open_id, account in self.accounts.items():
            row = rows[open_id]
            assert (row["state"], row["lease_epoch"]) == (account.state, account.epoch)
            sealer = self.sealers[0]
            tokens = sealer.unseal(row["access_token"]), sealer.unseal(row["refresh_token"])
            assert tokens == (account.access, account.refresh)
            self._check_lease(account, row)
            self._check_wake_up(account, row)

    def _check_lease(self, account: Account, row: Any) -> None:
        if account.lease_end is None:
            assert row["lease_expires_at"] is None
        else:
            lease_end = row["lease_expires_at"] + self.passed
            assert lease_end == pytest.approx(account.lease_end, abs=HAIR)
        # Not further away than what was granted, or asked for by a 429.
        if isfinite(row["next_slot_at"]):
            assert row["next_slot_at"] + self.passed <= account.next_slot + 1.0

    def _check_wake_up(self, account: Account, row: Any) -> None:
        """Nobody sleeps past what there is to do."""
        if row["state"] != "active":
            return
        renewable = self.managed and row["refresh_token"] is not None
        due_at = min(row["due_at"], row["token_due_at"] if renewable else inf) + self.passed
        bound = max(row["now"] + self.passed, due_at, account.backed_off_until)
        if account.lease_end is not None:
            bound = account.lease_end
        assert row["wake_at"] + self.passed <= bound + HAIR

    @invariant()
    def covers_only_become_fresher(self) -> None:
        covers: dict[str, dict[str, float]] = {open_id: {} for open_id in self.accounts}
        for (open_id, video_id), video in self._videos().items():
            before = self.accounts[open_id].covers.get(video_id)
            if before is not None:
                assert video["covered"]
                assert video["expires_at"] + self.passed >= before - HAIR
            if video["covered"]:
                covers[open_id][video_id] = video["expires_at"] + self.passed
        for open_id, account in self.accounts.items():
            account.covers = covers[open_id]

    def teardown(self) -> None:
        """In the end all workers crash, and one comes that finds everything there is to do."""
        self.held.clear()
        if self.accounts:
            self.tick(LONG_SECONDS)
            self._settle()

    def _settle(self) -> None:
        for _ in range(100 + len(self._videos())):  # at the slowest one video a round
            self.claim(["a"], 64)
            if not self.held and not self._anything_due():
                return
            for held in self.held[:]:
                self._do_well(held)
            self.tick(61.0)
        raise AssertionError("an account with something due is not claimed")

    def _anything_due(self) -> bool:
        return any(
            row["state"] == "active"
            and (
                row["due_at"] <= row["now"]
                or (self.managed and row["refresh_token"] and row["token_due_at"] <= row["now"])
            )
            for row in self.database.fetch(SQL_ACCOUNTS)
        )

    def _do_well(self, held: Held) -> None:
        claim = held.claim
        if claim.token.due:
            held.used = self.run(self.store.begin(claim))
            assert held.used
            self._store_pair(held, TokenPair(self._token(), DAY_SECONDS, None, None, None))
        tomorrow = datetime.fromtimestamp(self.database.now() + DAY_SECONDS, UTC)
        write = Write([video.video_id for video in claim.videos], tomorrow)
        self.run(
            write_back(
                self.pool, [ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)]
            )
        )
        index = self.held.index(held)
        self.release(index, [], None, answered=bool(claim.videos), chance=0.0)

    # --- The model's own ---

    def _token(self) -> str:
        return f"token-{next(self.numbers)}"

    def _time(self, moment: datetime) -> float:
        return moment.timestamp() + self.passed

    def _now(self) -> float:
        return self.database.now() + self.passed

    def _pick(self, which: int) -> Held | None:
        """One of the claims that are held, after making some where there are none."""
        worker = WORKERS[which % len(WORKERS)]
        if not self.held:
            self.claim([worker], 64)
        if not self.held:
            self._tick_to_next()
            self.claim([worker], 64)
        return self.held[which % len(self.held)] if self.held else None

    def _tick_to_next(self) -> None:
        """Let it become the time at which some account wakes, if any does."""
        waking = [
            max(row["wake_at"], row["next_slot_at"]) - row["now"]
            for row in self.database.fetch(SQL_ACCOUNTS)
            if row["state"] == "active"
        ]
        seconds = min(waking, default=inf)
        if 0 < seconds < inf:
            self.tick(round(seconds + HAIR, 3))

    def _pick_begun(self, which: int) -> Held | None:
        begun = [held for held in self.held if held.used]
        return begun[which % len(begun)] if begun else None

    def _current(self, held: Held) -> bool:
        """Nobody has claimed the account since, and it has not been released."""
        account = self.accounts[held.claim.open_id]
        return held.claim.lease_epoch == account.epoch and account.lease_end is not None

    def _row(self, held: Held) -> Any:
        rows = self.database.fetch(SQL_ACCOUNTS)
        return next(row for row in rows if row["open_id"] == held.claim.open_id)

    def _lease_end(self, held: Held) -> float:
        end: float = self._row(held)["lease_expires_at"]
        return end + self.passed

    def _videos(self) -> dict[tuple[str, str], Any]:
        return {(row["open_id"], row["video_id"]): row for row in self.database.fetch(SQL_VIDEOS)}

    def _print(self) -> str:
        text: str = self.database.value(SQL_PRINT)
        return text


def fullest_window(slots: list[float]) -> int:
    """The most requests in any 60 s, each sent up to the headroom after its slot."""
    span = WINDOW_SECONDS + HEADROOM_SECONDS - 0.01
    return max(bisect_left(slots, start + span) - first for first, start in enumerate(slots))


@pytest.fixture
def emptied(server: str, template: str) -> Iterator[Database]:
    """For the whole state machine: each example empties the tables."""
    name = f"model_{secrets.token_hex(4)}"
    asyncio.run(administer(server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    database = Database(named(server, name))
    yield database
    database.close()
    asyncio.run(administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.long
def test_whatever_happens_in_whatever_order(emptied):
    """Leases exclude each other, slots keep the limits, nothing fresh is lost, nobody sleeps on."""
    examples = int(os.environ.get("MODEL_EXAMPLES", "0"))
    Model.database = emptied
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=examples or 45,
            stateful_step_count=40,
            derandomize=not examples,
            database=None,
            deadline=None,
            print_blob=False,
            phases=[Phase.generate, Phase.shrink] if examples else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- What the model leaves out: nobody deletes an account there, and nobody waits for the app ---


async def add(pool, open_id, token, videos=1):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token)"
        " VALUES ($1, $2, $2 || '-refresh')",
        open_id,
        token,
    )
    await pool.execute(
        "INSERT INTO refresher.videos SELECT $1, $1 || n FROM generate_series(1, $2::integer) AS n",
        open_id,
        videos,
    )


def worker(pool, name="a", **limits):
    limits = {"limit_per_token": 600, "limit_per_app": 0} | limits
    pace = Pace(lease_seconds=LEASE_SECONDS, **limits)
    return Accounts(pool, replica=name, pace=pace, managed=True)


async def test_an_account_deleted_and_added_again_is_another(pool):
    """A claim of the old one changes nothing of the new one's lease, tokens or state."""
    await add(pool, "ana", "old")
    (old,) = await worker(pool, "a").claim(10)
    await pool.execute("DELETE FROM refresher.accounts")
    await add(pool, "ana", "new")
    (new,) = await worker(pool, "b").claim(10)
    before = await pool.fetchval(SQL_PRINT)
    error = ScopeRefused("scope_not_authorized", status=401)
    released = await worker(pool, "a").release([conclude(old, [error], 0.5)])
    assert (released, await pool.fetchval(SQL_PRINT)) == ([None], before)
    assert new.access_token == "new"


async def test_a_slow_account_that_reserves_does_not_hold_up_the_others(pool):
    """Its slot lies ten seconds ahead; the app's other slots until then are for others."""
    await add(pool, "ana", "1", videos=20)
    limits = {"limit_per_token": 6, "limit_per_app": 600}
    (slow,) = await worker(pool, **limits).claim(10)
    assert await worker(pool, **limits).reserve(slow)
    await add(pool, "ben", "2")
    assert [claim.open_id for claim in await worker(pool, **limits).claim(10)] == ["ben"]
