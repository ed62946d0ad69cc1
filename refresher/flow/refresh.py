"""THE FLOW: claim, wait for the slot, query, reconcile, write back, release.

The account is the unit of work. Its database and its API are passed in; what it needs of them is
declared here.
"""

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import count
from math import inf
from typing import Final, Protocol, TypeVar, cast

from refresher.domain.answers import Affects, Reaction, meaning
from refresher.domain.app_limit import Answers, AppLimit, AppThrottle
from refresher.domain.bisection import Bisection
from refresher.domain.clocks import Chance, Clock
from refresher.domain.conclude import Whose, conclude
from refresher.domain.due import DuePolicy
from refresher.domain.errors import (
    AccessTokenRefused,
    DailyQuotaSpent,
    DatabaseBusy,
    DatabaseUnavailable,
    QueryRefused,
    StatementFailed,
    Throttled,
    TokenRequestFailed,
    TokenUnreadable,
    UpstreamError,
    UpstreamFailed,
    is_away,
)
from refresher.domain.model import (
    UNUSABLE_TOKEN,
    ChunkWrite,
    Claim,
    Holder,
    OpenId,
    RefreshToken,
    Release,
    Released,
    Sample,
    TokenPair,
    Video,
    usable_token,
)
from refresher.domain.pacing import ISOLATED_AFTER, LATEST_SECONDS
from refresher.domain.reconcile import Reconciled, put_aside, reconcile, refused_alone
from refresher.events import (
    ACCOUNT_BLOCKED,
    ACCOUNT_FAILED,
    APP_THROTTLED,
    CHUNK_FAILED,
    CHUNK_UNSAVED,
    LOOP_FAILED,
    VIDEO_REJECTED,
)
from refresher.flow.apart import SAID_SECONDS, Apart
from refresher.flow.batcher import Batcher
from refresher.flow.capacity import Capacity, Sent
from refresher.flow.claiming import Accounts as Claimable
from refresher.flow.claiming import Claiming
from refresher.flow.outage import LATER_ATTEMPT, Outage
from refresher.flow.report import (
    report,
    report_blocked_chunks,
    report_blocked_release,
    report_freed_chunks,
    report_freed_release,
    report_refused_pair,
    report_refused_renewal,
    report_stuck_release,
)
from refresher.flow.tokens import TokenKeeper
from refresher.flow.work import LEASE_MARGIN_SECONDS, Tally, Work, wait_for_slot
from refresher.logs import emit

T = TypeVar("T")
R = TypeVar("R")

WRITE_BACK_ROWS: Final = 2000
RELEASE_ACCOUNTS: Final = 200
LINGER_SECONDS: Final = 0.05
#: An account whose row an application holds locked is given back a little later.
LOCKED_ROW_SECONDS: Final = 0.2
#: By so much later after each so many tries, up to this.
LOCKED_ROW_TRIES: Final = 20
LONGEST_LOCKED_ROW_SECONDS: Final = 1.0
#: After so many tries, ten seconds or so, it is said.
LOCKED_ROW_SAID: Final = 36
#: What somebody held while accounts were claimed is looked at again in so long, then in twice that,
#: and so on.
LOOK_AGAIN_SECONDS: Final = 0.05
LONGEST_LOOK_SECONDS: Final = 1.0
#: A bounded run gives up on what has waited for so long, when nothing else is left.
GIVEN_UP_SECONDS: Final = 10.0
#: Leases that were passed by, as a row was locked or others' locks took the time, are looked at
#: again in so long.
RENEW_ON_SECONDS: Final = 1.0
#: The share of the grace time that requests in flight may take; the rest is for writing back.
REQUESTS_SHARE_OF_GRACE: Final = 0.75
#: A claim under way when the daemon is stopped gets this share of it.
CLAIM_SHARE_OF_GRACE: Final = 0.25
LETTING_GO_SECONDS: Final = 0.5
#: Leases are looked at so often in their time, and lengthened where less than half is left.
RENEWALS_PER_LEASE: Final = 4
#: A write-back that takes longer holds up the sending: answers could not be stored.
SLOW_WRITE_BACK_SECONDS: Final = 3.0
#: While the app is limited, what was answered is told to the other replicas so often, and 429s are
#: looked at no more often than that.
TELLING_SECONDS: Final = 3.0
LOOKING_SECONDS: Final = 0.25


class Accounts(Claimable, Protocol):
    """Leases. Raises `DatabaseUnavailable`."""

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]: ...
    async def release_part(self, releases: Sequence[Release]) -> Sequence[Released | None]: ...
    async def release_alone(
        self, releases: Sequence[Release], lock_seconds: float, name: str
    ) -> Sequence[Released | None]: ...
    async def renew(
        self, claims: Sequence[Claim], refused: Callable[[Claim, Exception], None]
    ) -> Sequence[float | None]: ...
    async def reserve(self, claim: Claim) -> datetime | None: ...
    async def tell_answers(self, answers: Answers) -> bool: ...
    async def limit_app(self, wished_seconds: float, *, shown: bool) -> AppLimit | None: ...


class Upstream(Protocol):
    """The API. Raises `UpstreamError`."""

    async def query(
        self, access_token: str, video_ids: Sequence[str], timeout_seconds: float
    ) -> dict[str, object]: ...
    async def refresh_token(self, refresh_token: str, timeout_seconds: float) -> TokenPair: ...


class WriteBack(Protocol):
    """Stores results. Raises `DatabaseUnavailable`."""

    async def write(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]: ...
    async def write_part(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]: ...
    async def write_alone(
        self, chunks: Sequence[ChunkWrite], lock_seconds: float, name: str
    ) -> Sequence[int]: ...
    async def holder(self, name: str) -> Holder | None: ...


class Refresher:
    """Works due accounts until it is stopped."""

    def __init__(
        self,
        accounts: Accounts,
        upstream: Upstream,
        write_back: WriteBack,
        keeper: TokenKeeper,
        *,
        policy: DuePolicy,
        concurrency: int,
        request_timeout_seconds: float,
        poll_seconds: float,
        lease_seconds: float,
        grace_seconds: float,
        outage: Outage,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._claiming = Claiming(accounts, chance=chance, clock=clock)
        self._upstream = upstream
        self._keeper = keeper
        self._policy = policy
        self._request_timeout_seconds = request_timeout_seconds
        self._poll_seconds = poll_seconds
        self._lease_seconds = lease_seconds
        self._grace_seconds = grace_seconds
        self._outage = outage
        self._chance = chance
        self._clock = clock
        self.wake = asyncio.Event()
        self._capacity = Capacity(concurrency, self.wake.set, chance=chance, clock=clock)
        self._app_throttle = AppThrottle()
        self._throttled = asyncio.Event()
        self._just_learnt = False
        self._write_back = Batcher(
            self._outlasting(write_back.write),
            flush_part=self._outlasting(write_back.write_part),
            check=self._checking(write_back.write),
            clock=clock,
            size=WRITE_BACK_ROWS,
            linger_seconds=LINGER_SECONDS,
            weigh=lambda chunk: chunk.videos,
            at_once=2,
        )
        self._release = Batcher(
            self._outlasting(accounts.release),
            flush_part=self._outlasting(accounts.release_part),
            check=self._checking(accounts.release),
            clock=clock,
            size=RELEASE_ACCOUNTS,
            linger_seconds=LINGER_SECONDS,
        )
        # One connection for all that waits for locks.
        place = asyncio.Semaphore(1)
        self._wait_no_longer = asyncio.Event()
        self._blocked_writes = Apart(
            write_back.write_alone,
            write_back.holder,
            place=place,
            outage=outage,
            give_up=self._wait_no_longer,
            clock=clock,
            blocked=report_blocked_chunks,
            freed=report_freed_chunks,
        )
        self._blocked_releases = Apart(
            accounts.release_alone,
            write_back.holder,
            place=place,
            outage=outage,
            give_up=self._wait_no_longer,
            clock=clock,
            blocked=report_blocked_release,
            freed=report_freed_release,
        )
        self._working: dict[asyncio.Task[None], Work] = {}
        self._querying: set[asyncio.Task[None]] = set()
        #: Accounts whose leases something keeps from being lengthened.
        self._unrenewed: set[OpenId] = set()
        self._write_first = False
        self._claims_failed = 0
        self._waits_for_room = False
        self._looks = 0
        self._look: asyncio.TimerHandle | None = None
        self._deadline = inf
        self._stop = asyncio.Event()
        self._give_up = asyncio.Event()
        self.tally = Tally()

    @property
    def upstream_away_seconds(self) -> float:
        """How long the API has been down for; 0 while it answers."""
        return self._capacity.away_seconds()

    def given_up(self) -> Collection[OpenId]:
        """Accounts that somebody's lock, trigger or constraint has stopped for long."""
        before = self._clock() - GIVEN_UP_SECONDS
        waiting = [work for work in self._working.values() if work.waits_since <= before]
        return {
            *(work.claim.open_id for work in waiting),
            *self._claiming.left_alone(GIVEN_UP_SECONDS),
        }

    def stop(self) -> None:
        """Send no more; `run` returns when what is in flight is done. Idempotent."""
        if not self._stop.is_set():
            self._deadline = self._clock() + self._grace_seconds
        self._stop.set()
        self.wake.set()
        for work in self._working.values():
            work.halt.set()

    async def run(self, finished: Callable[[], Awaitable[bool]] | None = None) -> int:
        """Work until stopped, or idle and `finished`; then drain, whatever ended it.

        Who only waits for a lock for long does not keep it from being idle.

        Returns the number of accounts that could not be given back within the grace time: their
        leases run out.
        """
        loops = (
            self._write_back.run(),
            self._release.run(),
            self._renew_leases(),
            self._keep_app_limit(),
        )
        beside = [asyncio.create_task(loop) for loop in loops]
        try:
            await self._work_on(finished)
        finally:
            abandoned = await self._drain()
            await cancelled([*beside, *self._blocked_writes.tasks, *self._blocked_releases.tasks])
        return abandoned

    async def _work_on(self, finished: Callable[[], Awaitable[bool]] | None) -> None:
        while not self._stop.is_set():
            self.wake.clear()
            if await self._claim():
                continue
            if finished and self._is_idle() and await finished():
                self._wait_no_longer.set()
                return
            with suppress(TimeoutError):
                # The floor under the poll, should a tick not come.
                longest = self._capacity.pause_left() or 2 * self._poll_seconds
                await asyncio.wait_for(self.wake.wait(), longest)

    def _is_idle(self) -> bool:
        before = self._clock() - GIVEN_UP_SECONDS
        return all(work.waits_since <= before for work in self._working.values())

    async def _claim(self) -> bool:
        """Start work on due accounts; says whether to look again at once."""
        budget = self._chunk_budget()
        self._waits_for_room = not budget
        if not budget:
            return False
        # While nobody is answered, accounts that were well go first and none has two turns.
        tried = self._capacity.tried() if self._capacity.is_open else None
        try:
            claims = await self._unless_stopped(
                self._outage.attempt(lambda: self._claiming.claim(budget, tried))
            )
        except DatabaseUnavailable:
            await self._outage.pause(self._stop, min(self._claims_failed, LATER_ATTEMPT))
            self._claims_failed += 1
            return True
        self._claims_failed = 0
        for claim in claims:
            self._start(claim)
        self._look_again(passed_by=self._claiming.passed_by and not claims)
        if self._claiming.more:
            self.wake.set()
        return bool(claims)

    def _look_again(self, *, passed_by: bool) -> None:
        """Soon, where others held the rows of accounts that are due; later while they hold them."""
        if self._look:
            self._look.cancel()  # one at a time
        if not passed_by:
            self._looks = 0
            return
        seconds = min(LOOK_AGAIN_SECONDS * (1 << min(self._looks, 8)), LONGEST_LOOK_SECONDS)
        self._looks += 1
        self._look = asyncio.get_running_loop().call_later(seconds, self.wake.set)

    async def _unless_stopped(
        self, claiming: Coroutine[None, None, Sequence[Claim]]
    ) -> Sequence[Claim]:
        """The claims; a statement that hangs is left alone a little after `stop`."""
        task = asyncio.ensure_future(claiming)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            await asyncio.wait({task}, timeout=self._grace_seconds * CLAIM_SHARE_OF_GRACE)
        if not task.done():
            task.cancel()
            return ()
        return task.result()

    def _chunk_budget(self) -> int:
        """Results that waited out an outage are all written before a claim moves the epoch."""
        if self._stalls():
            return 0
        if not self._capacity.under_way.together:
            self._write_first = False
        elif self._outage.lasts:
            self._write_first = True
        return 0 if self._write_first else self._capacity.chunk_budget()

    def _start(self, claim: Claim) -> None:
        if claim.app_limited and not self._app_throttle.in_force:
            # Found by another replica, which needs to hear from this one.
            self._app_throttle.in_force = self._just_learnt = True
            self._throttled.set()
        work = Work(claim, self._capacity.hold(claim.chunks, claim.step_seconds), self._clock)
        if self._stop.is_set():
            work.halt.set()
        task = asyncio.create_task(self._work(work))
        self._working[task] = work

        def end(task: asyncio.Task[None]) -> None:
            del self._working[task]
            self._claiming.ended(work.claim.open_id)
            work.held.let_go()
            self.wake.set()

        task.add_done_callback(end)

    async def _work(self, work: Work) -> None:
        release = None
        try:
            if work.claim.token.due:
                release = await self._keep_token(work)
            else:
                await self._ask_in_turn(work)
        except TokenUnreadable:
            emit(ACCOUNT_BLOCKED, open_id=work.claim.open_id)
            work.errors.append(UpstreamFailed("token_unreadable"))
        except Exception as error:  # noqa: BLE001 - one account's surprise must not stop the others
            emit(ACCOUNT_FAILED, open_id=work.claim.open_id, exc_info=error)
            work.errors.append(UpstreamFailed("internal_failure"))
        release = release or conclude(
            work.claim,
            work.errors,
            self._chance(),
            answered=work.answered,
            unsaved=work.unsaved,
            requests=work.tally.requests,
            samples=work.samples,
            by_itself=work.at_fault and self._capacity.fails_by_itself(work.claim.open_id),
            nobody_answered=self._capacity.is_open,
        )
        released = await self._give_back(work, release)
        self.tally = self.tally.plus(work.tally)
        report(work, release, released)

    async def _keep_token(self, work: Work) -> Release | None:
        """None: this is not the time for it."""
        if work.halt.is_set() or self._outage.lasts:
            return None
        # Under way: a pair that waits out an outage is stored before the next claim.
        with self._capacity.under_way:
            ask = partial(self._ask_for_token, work)
            refused = partial(report_refused_pair, work)
            whose = partial(self._whose, work)
            return await self._keeper.keep(work.claim, ask, self._give_up, refused, whose)

    def _whose(self, work: Work) -> Whose:
        """Whose failure that of a token request is; without an error noted, none was sent."""
        if not work.errors or self._capacity.is_open:
            return Whose.ANOTHERS
        is_own = self._capacity.token_fails_by_itself(work.claim.open_id)
        return Whose.OWN if is_own else Whose.UNKNOWN

    async def _ask_for_token(self, work: Work, refresh_token: RefreshToken) -> TokenPair:
        """Raises `UpstreamError`."""
        async with self._capacity.place(work.held) as given:
            if not given:
                raise TokenRequestFailed("upstream_down")
            if self._clock() > work.lease_end:
                raise TokenRequestFailed("lease_over")
            sent = self._sent(work, ())
            try:
                pair = await self._upstream.refresh_token(
                    refresh_token.token, self._request_timeout_seconds
                )
            except UpstreamError as error:
                work.errors.append(error)
                self._learn(work, sent, error)
                raise
            finally:
                self._capacity.ended(sent)
                work.held.let_go()  # to store the pair may take long
            self._capacity.answered(sent, good=True)
            return pair

    def _sent(self, work: Work, video_ids: Sequence[str]) -> Sent:
        isolated = work.claim.isolated_since is not None
        return self._capacity.sent(work.claim.open_id, video_ids, isolated=isolated)

    async def _ask_in_turn(self, work: Work) -> None:
        """Raises `TokenUnreadable`."""
        if not work.claim.token.readable:
            raise TokenUnreadable
        async with asyncio.TaskGroup() as asking:
            for videos, slot in work.chunks():
                await wait_for_slot(work, slot)
                if work.halt.is_set():
                    work.postponed += 1
                else:
                    asking.create_task(self._ask(work, videos, slot))

    async def _ask(self, work: Work, videos: Sequence[Video], slot: float) -> None:
        """One chunk, from its slot to the result stored."""
        with self._capacity.under_way:
            try:
                reconciled = await self._query(work, videos, slot)
            except QueryRefused as refusal:
                reconciled = await self._bisect(work, videos, refusal.code)
            except UpstreamFailed as failure:
                reconciled = await self._search(work, videos, failure.code)
            self._make_room(work)
            if reconciled:
                await self._store(work, reconciled)

    def _make_room(self, work: Work) -> None:
        work.held.asked()
        if self._waits_for_room and self._chunk_budget():
            self.wake.set()

    async def _bisect(self, work: Work, videos: Sequence[Video], code: str) -> Reconciled | None:
        """Ask parts of a refused chunk, each in a slot of its own, until the bad IDs stand alone.

        None: it could not be ended; what was not answered stays due.
        """
        search = Bisection(videos)
        while (part := search.next_part()) and not self._refuses_all(work, search):
            refused = await self._is_refused(work, part)
            if refused is None:
                return None
            search.tell(refused=refused)
        if self._refuses_all(work, search):
            work.at_fault = True
            return put_aside(self._policy, videos, code, work.now())
        return refused_alone(search.bad, code, work.now())

    async def _is_refused(self, work: Work, part: Sequence[Video]) -> bool | None:
        """Ask for it in a slot of its own, store what comes. None: that could not be found out."""
        slot = await self._next_slot(work)
        if slot is None:
            return None
        try:
            reconciled = await self._query(work, part, slot)
        except (QueryRefused, UpstreamFailed):
            return True
        if reconciled is None:
            return None
        await self._store(work, reconciled)
        return False

    async def _search(self, work: Work, videos: Sequence[Video], code: str) -> Reconciled | None:
        """A chunk that fails again and again: is it the account, or one of its videos?

        Where nothing else of the account is answered, that is seen by a half of the chunk that is;
        a single video that brought nothing before accuses only itself. One such search a claim.
        None: it is the account.
        """
        if work.searched:
            return None
        work.searched = True
        accused = len(videos) == 1 and videos[0].misses > 0
        if not (accused or work.answered or self._capacity.is_mixed(work.claim.open_id)):
            videos = await self._failing_half(work, videos)
        return await self._bisect(work, videos, code) if videos else None

    async def _failing_half(self, work: Work, videos: Sequence[Video]) -> Sequence[Video]:
        """The half that fails while the other one is answered; empty where neither is.

        Where both of them fail, it is the account.
        """
        middle = len(videos) // 2
        halves = videos[:middle], videos[middle:]
        refused: bool | None = True
        for asked, other in (halves, halves[::-1]):
            if asked and refused:
                refused = await self._is_refused(work, asked)
                if refused is False:
                    return other
        work.at_fault = refused is True
        return ()

    @staticmethod
    def _refuses_all(work: Work, search: Bisection[Video]) -> bool:
        return search.hopeless and not work.answered

    async def _next_slot(self, work: Work) -> float | None:
        """A further slot of the account, waited for; None where it may not be worked any longer."""
        await wait_for_slot(work, work.next_slot - LATEST_SECONDS)
        if work.halt.is_set():
            return None
        try:
            slot = await self._outage.attempt(lambda: self._accounts.reserve(work.claim))
        except DatabaseUnavailable:
            return None
        if slot is None:
            return None
        moment = work.claim.time.monotonic_of(slot)
        work.next_slot = moment + work.claim.step_seconds
        await wait_for_slot(work, moment)
        return moment

    async def _query(self, work: Work, videos: Sequence[Video], slot: float) -> Reconciled | None:
        """None: not sent after all, or failed; either way the videos stay due.

        Raises `QueryRefused`, and `UpstreamFailed` where one of the videos is under suspicion.
        """
        try:
            async with self._capacity.place(work.held) as given:
                if not given or not self._may_send(work, slot):
                    work.postponed += 1
                    return None
                answer = await self._send(work, videos)
        except UpstreamError as error:
            self._note_failure(work, videos, error)
            if isinstance(error, QueryRefused) or self._is_suspect(work, videos, error):
                raise
            return None
        work.answered = True
        return reconcile(self._policy, work.claim.open_id, videos, answer, work.now())

    def _is_suspect(self, work: Work, videos: Sequence[Video], error: UpstreamError) -> bool:
        """Whether it is to be searched, or is a part of what is searched already."""
        claim, capacity = work.claim, self._capacity
        if type(error) is not UpstreamFailed or claim.isolated_since or capacity.is_open:
            return False
        if work.searched:
            return capacity.is_host_well
        # By what all replicas have seen: before an account is isolated, one has searched.
        is_last = claim.failures + 1 >= ISOLATED_AFTER and capacity.fails_by_itself(claim.open_id)
        return is_last or capacity.suspects(claim.open_id, [video.video_id for video in videos])

    async def _send(self, work: Work, videos: Sequence[Video]) -> Mapping[str, object]:
        if not usable_token(work.claim.access_token):
            raise AccessTokenRefused(UNUSABLE_TOKEN)
        work.tally.requests += 1
        work.tally.ids += len(videos)
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._querying.add(task)
        video_ids = [video.video_id for video in videos]
        sent = self._sent(work, video_ids)
        try:
            answer = await self._upstream.query(
                work.claim.access_token or "", video_ids, self._request_timeout_seconds
            )
        except UpstreamError as error:
            self._learn(work, sent, error)
            raise
        finally:
            self._capacity.ended(sent)
            self._querying.discard(task)
        self._capacity.answered(sent, good=True)
        self._app_throttle.answered(work.claim.open_id, self._clock())
        return answer

    def _learn(self, work: Work, sent: Sent, error: UpstreamError) -> None:
        """Whether the API is there at all, and whether the account fares ill."""
        means = meaning(error, work.claim.token)
        if means.alive:
            self._capacity.answered(sent, good=False)
        else:
            self._capacity.failed(sent, error.code, error.log_id)
        if means.reaction is Reaction.RETRY:
            self._capacity.complained(sent)

    def _may_send(self, work: Work, slot: float) -> bool:
        """A slot missed by too much is given up: sent late, requests would bunch up."""
        now = self._clock()
        late = work.claim.step_seconds and now > slot + LATEST_SECONDS
        cannot_store = self._outage.lasts or self._stalls()
        return not (late or now >= work.lease_end or work.halt.is_set() or cannot_store)

    def _stalls(self) -> bool:
        """A write-back hangs: what would be fetched now could not be stored."""
        return self._write_back.busy_seconds() > SLOW_WRITE_BACK_SECONDS

    def _note_failure(self, work: Work, videos: Sequence[Video], error: UpstreamError) -> None:
        open_id = work.claim.open_id
        if meaning(error, work.claim.token).affects is Affects.ACCOUNT:
            work.halt.set()
        emit(
            CHUNK_FAILED,
            open_id=open_id,
            videos=len(videos),
            code=error.code,
            status=error.status,
            log_id=error.log_id,
            detail=error.detail,
        )
        if isinstance(error, (Throttled, DailyQuotaSpent)):
            work.tally.throttled += 1
        if not self._is_of_app(open_id, error):
            work.errors.append(error)

    def _is_of_app(self, open_id: str, error: UpstreamError) -> bool:
        """Whether it is a 429 by a limit of the app that is kept to: the account did nothing."""
        # No kind of it: a quota of the day is no rate.
        if type(error) is not Throttled:
            return False
        self._throttled.set()
        return self._app_throttle.throttled(open_id, self._clock(), error.retry_after_seconds)

    async def _keep_app_limit(self) -> None:
        """After a 429, and while the app is limited, count with the other replicas; for ever."""
        while True:
            longest = TELLING_SECONDS if self._app_throttle.in_force else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._throttled.wait(), longest)
            self._throttled.clear()
            pause = TELLING_SECONDS
            try:
                await self._count_together()
                pause = LOOKING_SECONDS
            except DatabaseUnavailable:
                pass  # said already; the next 429 may find it
            except Exception as error:  # noqa: BLE001 - the next 429 may do
                emit(LOOP_FAILED, loop="keep app limit", exc_info=error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._give_up.wait(), pause)
                return

    async def _count_together(self) -> None:
        throttle = self._app_throttle
        answers = throttle.answered_lately(self._clock())
        knew = throttle.in_force and not self._just_learnt
        self._just_learnt = False
        throttle.in_force = await self._outage.attempt(lambda: self._accounts.tell_answers(answers))
        now = self._clock()
        wished = throttle.wished_seconds(now)
        shown = throttle.shows_limit(now)
        # Found without this replica's answers, it may be too low.
        if not shown and (knew or not throttle.in_force):
            return
        limit = await self._outage.attempt(lambda: self._accounts.limit_app(wished, shown=shown))
        if limit is not None:
            throttle.in_force = True
            emit(
                APP_THROTTLED,
                rate_per_minute=round(limit.rate_per_minute),
                answered=limit.answered,
                pause_seconds=round(max(limit.pause_seconds, wished), 1),
            )

    async def _store(self, work: Work, reconciled: Reconciled) -> None:
        claim = work.claim
        for video_id, reason in reconciled.rejections:
            emit(VIDEO_REJECTED, open_id=claim.open_id, video_id=video_id, reason=reason)
        work.tally.count(reconciled)
        if not reconciled.writes:
            return
        write = ChunkWrite(claim.open_id, claim.lease_epoch, reconciled.writes, claim.ctids)
        try:
            written = await self._write(work, write)
        except StatementFailed:
            raise  # as all else that is wrong with it
        except DatabaseUnavailable:
            written = 0  # the grace time is over
        if unwritten := write.videos - written:
            work.unsaved = True
            work.tally.refreshed = max(0, work.tally.refreshed - unwritten)
            emit(CHUNK_UNSAVED, open_id=claim.open_id, videos=unwritten)
        else:
            new = [write.video_ids for write in reconciled.writes if write.urls]
            work.samples += [Sample(video_ids[0], len(video_ids)) for video_ids in new]

    async def _write(self, work: Work, write: ChunkWrite) -> int:
        """How many rows were written. What waits for a lock waits apart from the others."""
        if not self._blocked_writes.holds(write.open_id):
            with suppress(DatabaseBusy):
                return await self._write_back.submit(write)
        waits_long = asyncio.get_running_loop().call_later(SAID_SECONDS, self._set_aside, work)
        try:
            with self._capacity.under_way.apart():
                return await self._blocked_writes.submit(write)
        except Exception as error:
            if is_away(error):
                raise
            return await self._write_back.submit(write)  # there it is found out whose matter it is
        finally:
            waits_long.cancel()

    def _set_aside(self, work: Work) -> None:
        """Ask for no more of what cannot be stored; its place is for others."""
        work.waits()
        work.halt.set()
        work.held.let_go()
        self.wake.set()

    async def _hand_in(self, work: Work, release: Release) -> Released | None:
        if not self._blocked_releases.holds(release.open_id):
            with suppress(DatabaseBusy):
                return await self._release.submit(release)
        work.waits()
        work.held.let_go()
        self.wake.set()
        try:
            return await self._blocked_releases.submit(release)
        except Exception as error:
            if is_away(error):
                raise
            return await self._release.submit(release)  # as above

    async def _give_back(self, work: Work, release: Release) -> Released | None:
        """None where the lease had to be left to run out."""
        for attempt in count():
            try:
                released = await self._hand_in(work, release)
            except Exception as error:  # noqa: BLE001 - whatever refuses it, its lease runs out
                if is_away(error) or isinstance(error, DatabaseBusy):
                    return None
                said = self._claiming.leave_alone(
                    work.claim.open_id,
                    error,
                    "release",
                    at_least=work.lease_end + LEASE_MARGIN_SECONDS - self._clock(),
                )
                work.abandon_quietly = not said
                return None
            if released or self._give_up.is_set() or self._clock() > work.lease_end:
                if released:
                    self._claiming.gave_back(work.claim.open_id)
                    self._unrenewed.discard(work.claim.open_id)
                    self._wake_in(released.wake_in_seconds)
                return released
            work.waits()
            work.held.let_go()
            # Its row is locked, or something suppresses the UPDATE: that may last.
            seconds = LOCKED_ROW_SECONDS * (1 + attempt // LOCKED_ROW_TRIES)
            if attempt == LOCKED_ROW_SAID:
                report_stuck_release(work.claim.open_id, seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._give_up.wait(), min(seconds, LONGEST_LOCKED_ROW_SECONDS)
                )
        raise AssertionError

    def _wake_in(self, seconds: float) -> None:
        """Later than a poll needs no timer: the poll finds it."""
        if seconds < self._poll_seconds:
            asyncio.get_running_loop().call_later(max(seconds, 0.0), self.wake.set)

    async def _renew_leases(self) -> None:
        """Lengthen the leases of accounts that take long, until cancelled."""
        seconds = usual = self._lease_seconds / RENEWALS_PER_LEASE
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._give_up.wait(), seconds)
                return
            seconds = usual
            try:
                if not await self._renew():
                    seconds = min(usual, RENEW_ON_SECONDS)
            except DatabaseUnavailable:
                continue  # said already; a lease that has run out meanwhile can still be renewed
            except Exception as error:  # noqa: BLE001 - the next renewal may do
                emit(LOOP_FAILED, loop="renew leases", exc_info=error)

    async def _renew(self) -> bool:
        """Whether each was lengthened, but for those that something stands in the way of."""
        half = self._lease_seconds / 2 - LEASE_MARGIN_SECONDS
        now = self._clock()
        ending = [work for work in self._working.values() if work.lease_end - now <= half]
        # Who was refused before comes last, and spoils nobody's renewal.
        refused = [work for work in ending if work.claim.open_id in self._unrenewed]
        await self._renew_these([work for work in ending if work not in refused])
        await self._renew_these(refused)
        return all(
            work.lease_end - now > half or work.claim.open_id in self._unrenewed for work in ending
        )

    async def _renew_these(self, works: Sequence[Work]) -> None:
        if not works:
            return
        now = self._clock()
        claims = [work.claim for work in works]

        def refused(claim: Claim, error: Exception) -> None:
            if claim.open_id not in self._unrenewed:
                report_refused_renewal(claim.open_id, error)
            self._unrenewed.add(claim.open_id)

        renewed = await self._outage.attempt(lambda: self._accounts.renew(claims, refused))
        for work, seconds in zip(works, renewed, strict=True):
            if seconds is not None:
                self._unrenewed.discard(work.claim.open_id)
                work.leased_until(now + seconds)

    async def _drain(self) -> int:
        self.stop()
        working = set(self._working)
        kept = self._grace_seconds * (1 - REQUESTS_SHARE_OF_GRACE)
        await _wait(working, self._deadline - kept - self._clock())
        for task in self._querying:
            task.cancel()
        self._wait_no_longer.set()
        await _wait(working, self._deadline - self._clock())
        self._give_up.set()
        late = {task for task in working if not task.done()}
        await cancelled(late)
        return len(late)

    def _outlasting(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> Callable[[Sequence[T]], Awaitable[Sequence[R]]]:
        """What was fetched is kept and written when the database is back."""

        async def flush_in_the_end(items: Sequence[T]) -> Sequence[R]:
            return await self._outage.outlast(
                lambda: flush(items),
                self._give_up,
                fatal=(DatabaseBusy, StatementFailed),
                may_wait=True,
            )

        return flush_in_the_end

    def _checking(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> Callable[[], Awaitable[None]]:
        """Waits until nothing at all can be flushed: a table may be locked, or refuse all."""

        async def flush_nothing() -> None:
            try:
                await flush(())
            except StatementFailed as error:
                raise DatabaseUnavailable(str(error)) from error
            except DatabaseUnavailable:
                raise
            except Exception as error:
                raise DatabaseUnavailable(str(error).partition("\n")[0]) from error

        async def check() -> None:
            await self._outage.outlast(flush_nothing, self._give_up)

        return check


async def cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel and wait, but not for a statement that does not let go."""
    for task in tasks:
        task.cancel()
    await _wait(tasks, LETTING_GO_SECONDS)


async def _wait(tasks: Collection[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, seconds))
