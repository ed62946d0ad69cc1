"""May a request go now? Sends it, and learns from the answer."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from refresher.domain.answers import Affects, Failure, Reaction, understood
from refresher.domain.clocks import Clock
from refresher.domain.conclude import Whose
from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.errors import AccessTokenRefused, NotSent, UpstreamError
from refresher.domain.meter import TOKEN, VIDEO_QUERY, Meter
from refresher.domain.model import UNUSABLE_TOKEN, RefreshToken, TokenPair, Video, usable_token
from refresher.domain.pacing import ISOLATED_AFTER, LATEST_SECONDS
from refresher.domain.reconcile import Reconciled, reconcile
from refresher.events import CHUNK_FAILED
from refresher.flow.app_rate import AppRate
from refresher.flow.capacity import Capacity
from refresher.flow.health import Health, SentRequest
from refresher.flow.in_flight import InFlight
from refresher.flow.results import Results
from refresher.flow.terms import Terms
from refresher.flow.work import Work
from refresher.logs import emit


class Upstream(Protocol):
    """The API. Raises `UpstreamError`."""

    async def query(
        self, access_token: str, video_ids: Sequence[str], timeout_seconds: float
    ) -> dict[str, object]: ...
    async def renew_token(self, refresh_token: str, timeout_seconds: float) -> TokenPair: ...


class Gate:
    """Sends requests where they may go now, and learns from what comes back."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        capacity: Capacity,
        in_flight: InFlight,
        health: Health,
        app_rate: AppRate,
        results: Results,
        terms: Terms,
        meter: Meter,
        hosts: CoverHosts,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._capacity = capacity
        self._in_flight = in_flight
        self._health = health
        self._app_rate = app_rate
        self._results = results
        self._policy = terms.policy
        self._request_timeout_seconds = terms.request_timeout_seconds
        self._meter = meter
        self._hosts = hosts
        self._clock = clock
        self._querying: set[asyncio.Task[None]] = set()

    def cancel_queries(self) -> None:
        """Wait no longer for what is in flight."""
        for task in self._querying:
            task.cancel()

    async def query(
        self, work: Work, videos: Sequence[Video], slot: float
    ) -> Reconciled | Failure | None:
        """What became of the videos; the failure if the chunk is to be split.

        None: they stay due, as nothing was sent, or it failed.
        """
        async with self._capacity.permit(work.load) as permitted:
            if not permitted or not self._may_send(work, slot):
                work.postponed += 1
                return None
            answer = await self._send(work, videos)
        if isinstance(answer, Failure):
            self._note_failure(work, videos, answer)
            return answer if self._is_taken_apart(work, videos, answer) else None
        work.answered = True
        grown = self._hosts.grown
        return reconcile(self._policy, work.claim.open_id, videos, answer, work.now(), grown=grown)

    async def ask_for_token(self, work: Work, refresh_token: RefreshToken) -> TokenPair | Failure:
        """A new pair, or why there is none."""
        async with self._capacity.permit(work.load) as permitted:
            if not permitted:
                return understood(NotSent("upstream_down"), work.claim.token)
            if self._clock() > work.send_until:
                return understood(NotSent("lease_over"), work.claim.token)
            request = self._sent(work, ())
            try:
                pair = await self._upstream.renew_token(
                    refresh_token.token, self._request_timeout_seconds
                )
            except UpstreamError as error:
                failure = self._learn(work, request, error)
                work.failures.append(failure)
                return failure
            finally:
                self._in_flight.ended(request)
                work.load.drop()  # to store the pair may take long
            self._in_flight.answered(request, good=True)
            self._count(request, None)
            return pair

    def whose(self, work: Work) -> Whose:
        """Whose fault it is that a token request failed."""
        is_unsent = not work.failures
        if is_unsent or self._health.is_down:
            return Whose.ANOTHERS
        is_own = self._health.token_fails_by_itself(work.claim.open_id)
        return Whose.OWN if is_own else Whose.UNKNOWN

    async def _send(self, work: Work, videos: Sequence[Video]) -> Mapping[str, object] | Failure:
        if not usable_token(work.claim.access_token):
            return understood(AccessTokenRefused(UNUSABLE_TOKEN), work.claim.token)
        work.tally.requests += 1
        work.tally.ids += len(videos)
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._querying.add(task)
        video_ids = [video.video_id for video in videos]
        request = self._sent(work, video_ids)
        self._meter.slot_wait_seconds.observe(request.sent_at - work.started)
        try:
            answer = await self._upstream.query(
                work.claim.access_token or "", video_ids, self._request_timeout_seconds
            )
        except UpstreamError as error:
            return self._learn(work, request, error)
        finally:
            self._in_flight.ended(request)
            self._querying.discard(task)
        self._in_flight.answered(request, good=True)
        self._count(request, None)
        self._app_rate.answered(work.claim.open_id)
        return answer

    def _sent(self, work: Work, video_ids: Sequence[str]) -> SentRequest:
        isolated = work.claim.isolated_since is not None
        return self._in_flight.sent(work.claim.open_id, video_ids, isolated=isolated)

    def _count(self, request: SentRequest, failure: Failure | None) -> None:
        endpoint = VIDEO_QUERY if request.videos else TOKEN
        self._meter.ended(endpoint, self._clock() - request.sent_at, failure)

    def _learn(self, work: Work, request: SentRequest, error: UpstreamError) -> Failure:
        """What the failure tells about the API and about the account."""
        failure = understood(error, work.claim.token)
        self._count(request, failure)
        if failure.meaning.alive:
            self._in_flight.answered(request, good=False)
        else:
            self._in_flight.failed(request, error.code, error.log_id)
        if failure.reaction is Reaction.RETRY:
            self._in_flight.complained(request)
        return failure

    def _may_send(self, work: Work, slot: float) -> bool:
        """A slot missed by much is given up: late requests would come too close together."""
        now = self._clock()
        late = work.claim.step_seconds and now > slot + LATEST_SECONDS
        late_for_lease = now >= work.send_until
        return not (late or late_for_lease or work.halt.is_set()) and self._results.can_store

    def _note_failure(self, work: Work, videos: Sequence[Video], failure: Failure) -> None:
        open_id, error = work.claim.open_id, failure.error
        if failure.meaning.affects is Affects.ACCOUNT:
            work.halt.set()
        emit(
            CHUNK_FAILED,
            open_id=open_id,
            videos=len(videos),
            code=error.code,
            http_status=error.status,
            log_id=error.log_id,
            detail=error.detail,
        )
        by_app = self._app_rate.explains(open_id, failure)
        if failure.throttled:
            work.tally.throttled += 1
            self._meter.throttled(failure, by_app=by_app)
        if not by_app:
            work.failures.append(failure)

    def _is_taken_apart(self, work: Work, videos: Sequence[Video], failure: Failure) -> bool:
        """Whether one of the videos may be what spoils the chunk."""
        if failure.reaction is Reaction.BISECT:
            return True
        claim, health = work.claim, self._health
        if not failure.meaning.unclear or claim.isolated_since or health.is_down:
            return False
        if work.searched:
            return health.is_host_well  # a part of what is searched already
        # By what all replicas have seen: before an account is isolated, one has searched.
        is_last = claim.failures + 1 >= ISOLATED_AFTER and health.fails_by_itself(claim.open_id)
        return is_last or health.suspects(claim.open_id, [video.video_id for video in videos])
