"""May it go now? What is sent, and what its answer teaches."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from refresher.domain.answers import Affects, Failure, Reaction, understood
from refresher.domain.clocks import Clock
from refresher.domain.conclude import Whose
from refresher.domain.due import DuePolicy
from refresher.domain.errors import AccessTokenRefused, TokenRequestFailed, UpstreamError
from refresher.domain.model import UNUSABLE_TOKEN, RefreshToken, TokenPair, Video, usable_token
from refresher.domain.pacing import ISOLATED_AFTER, LATEST_SECONDS
from refresher.domain.reconcile import Reconciled, reconcile
from refresher.events import CHUNK_FAILED
from refresher.flow.app_rate import AppRate
from refresher.flow.capacity import Capacity, Sent
from refresher.flow.outage import Outage
from refresher.flow.results import Results
from refresher.flow.work import Work
from refresher.logs import emit


class Upstream(Protocol):
    """The API. Raises `UpstreamError`."""

    async def query(
        self, access_token: str, video_ids: Sequence[str], timeout_seconds: float
    ) -> dict[str, object]: ...
    async def refresh_token(self, refresh_token: str, timeout_seconds: float) -> TokenPair: ...


class Gate:
    """Sends requests where they may go now, and learns from what comes back."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        capacity: Capacity,
        app_rate: AppRate,
        results: Results,
        outage: Outage,
        policy: DuePolicy,
        request_timeout_seconds: float,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._capacity = capacity
        self._app_rate = app_rate
        self._results = results
        self._outage = outage
        self._policy = policy
        self._request_timeout_seconds = request_timeout_seconds
        self._clock = clock
        self._querying: set[asyncio.Task[None]] = set()

    def cancel_queries(self) -> None:
        """What is in flight is not waited for any longer."""
        for task in self._querying:
            task.cancel()

    async def query(
        self, work: Work, videos: Sequence[Video], slot: float
    ) -> Reconciled | Failure | None:
        """What became of the videos; a failure where they are to be taken apart.

        None: they stay due, as nothing was sent, or it failed.
        """
        async with self._capacity.place(work.held) as given:
            if not given or not self._may_send(work, slot):
                work.postponed += 1
                return None
            answer = await self._send(work, videos)
        if isinstance(answer, Failure):
            self._note_failure(work, videos, answer)
            return answer if self._is_taken_apart(work, videos, answer) else None
        work.answered = True
        return reconcile(self._policy, work.claim.open_id, videos, answer, work.now())

    async def ask_for_token(self, work: Work, refresh_token: RefreshToken) -> TokenPair | Failure:
        """A new pair, or why there is none."""
        async with self._capacity.place(work.held) as given:
            if not given:
                return understood(TokenRequestFailed("upstream_down"), work.claim.token)
            if self._clock() > work.lease_end:
                return understood(TokenRequestFailed("lease_over"), work.claim.token)
            sent = self._sent(work, ())
            try:
                pair = await self._upstream.refresh_token(
                    refresh_token.token, self._request_timeout_seconds
                )
            except UpstreamError as error:
                failure = self._learn(work, sent, error)
                work.failures.append(failure)
                return failure
            finally:
                self._capacity.ended(sent)
                work.held.let_go()  # to store the pair may take long
            self._capacity.answered(sent, good=True)
            return pair

    def whose(self, work: Work) -> Whose:
        """Whose failure that of a token request is; without an error noted, none was sent."""
        if not work.failures or self._capacity.is_open:
            return Whose.ANOTHERS
        is_own = self._capacity.token_fails_by_itself(work.claim.open_id)
        return Whose.OWN if is_own else Whose.UNKNOWN

    async def _send(self, work: Work, videos: Sequence[Video]) -> Mapping[str, object] | Failure:
        if not usable_token(work.claim.access_token):
            return understood(AccessTokenRefused(UNUSABLE_TOKEN), work.claim.token)
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
            return self._learn(work, sent, error)
        finally:
            self._capacity.ended(sent)
            self._querying.discard(task)
        self._capacity.answered(sent, good=True)
        self._app_rate.answered(work.claim.open_id)
        return answer

    def _sent(self, work: Work, video_ids: Sequence[str]) -> Sent:
        isolated = work.claim.isolated_since is not None
        return self._capacity.sent(work.claim.open_id, video_ids, isolated=isolated)

    def _learn(self, work: Work, sent: Sent, error: UpstreamError) -> Failure:
        """What the failure tells about the API and about the account."""
        failure = understood(error, work.claim.token)
        if failure.meaning.alive:
            self._capacity.answered(sent, good=False)
        else:
            self._capacity.failed(sent, error.code, error.log_id)
        if failure.reaction is Reaction.RETRY:
            self._capacity.complained(sent)
        return failure

    def _may_send(self, work: Work, slot: float) -> bool:
        """A slot missed by too much is given up: sent late, requests would bunch up."""
        now = self._clock()
        late = work.claim.step_seconds and now > slot + LATEST_SECONDS
        cannot_store = self._outage.lasts or self._results.stalls()
        return not (late or now >= work.lease_end or work.halt.is_set() or cannot_store)

    def _note_failure(self, work: Work, videos: Sequence[Video], failure: Failure) -> None:
        open_id, error = work.claim.open_id, failure.error
        if failure.meaning.affects is Affects.ACCOUNT:
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
        work.tally.throttled += failure.throttled
        if not self._app_rate.explains(open_id, failure):
            work.failures.append(failure)

    def _is_taken_apart(self, work: Work, videos: Sequence[Video], failure: Failure) -> bool:
        """Whether one of the videos may be what spoils the chunk."""
        if failure.reaction is Reaction.BISECT:
            return True
        claim, capacity = work.claim, self._capacity
        if not failure.meaning.unclear or claim.isolated_since or capacity.is_open:
            return False
        if work.searched:
            return capacity.is_host_well  # a part of what is searched already
        # By what all replicas have seen: before an account is isolated, one has searched.
        is_last = claim.failures + 1 >= ISOLATED_AFTER and capacity.fails_by_itself(claim.open_id)
        return is_last or capacity.suspects(claim.open_id, [video.video_id for video in videos])
