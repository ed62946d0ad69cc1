"""Access tokens kept alive, under the lease of their account."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from math import inf
from typing import Final, Protocol

from refresher.domain.answers import Failure, Reaction, understood
from refresher.domain.clocks import Chance, Clock
from refresher.domain.conclude import Whose, conclude_token
from refresher.domain.due import account_spread
from refresher.domain.errors import (
    DatabaseBusy,
    DatabaseUnavailable,
    GrantRefused,
    NotSent,
    TokenUnreadable,
    UpstreamError,
    is_away,
)
from refresher.domain.meter import Meter
from refresher.domain.model import Claim, RefreshToken, Release, TokenPair, usable_token
from refresher.domain.pacing import CLIENT_REFUSED_SECONDS, growing_seconds
from refresher.domain.token_renewal import renew_in_seconds
from refresher.events import (
    ACCOUNT_BLOCKED,
    ACCOUNT_MISNAMED,
    CLIENT_REFUSED,
    TOKEN_FAILED,
    TOKEN_LOST,
    TOKEN_REFRESHED,
)
from refresher.flow.gate import Gate
from refresher.flow.outage import Outage
from refresher.flow.report import report_refused_pair
from refresher.flow.stop import Stop
from refresher.flow.work import Work
from refresher.logs import emit

SUSPENDED: Final = "suspended"
UNREADABLE: Final = "token_unreadable"
LOST: Final = "refresh_token_lost"
UNUSABLE: Final = "no_usable_refresh_token"


class Tokens(Protocol):
    """The tokens as they are stored. Raises `DatabaseUnavailable`."""

    async def begin(self, claim: Claim) -> RefreshToken | None: ...
    async def replace(
        self, claim: Claim, used: RefreshToken, pair: TokenPair, due_in_seconds: float
    ) -> bool: ...
    async def note_name(self, claim: Claim, open_id: str) -> bool: ...
    async def end(self, claim: Claim, *, unknown: bool) -> None: ...
    async def note_refused_credentials(self) -> None: ...


class TokenRenewal:
    """Renews the access tokens of claimed accounts.

    The refresh token may be used up by the request, so the row says that before it is sent. The new
    pair is committed before anything is asked with it. Where the outcome of a request is unknown,
    the stored refresh token is tried again, until TikTok says whether it still works.
    """

    def __init__(
        self,
        store: Tokens,
        gate: Gate,
        *,
        outage: Outage,
        stop: Stop,
        meter: Meter,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._store = store
        self._gate = gate
        self._outage = outage
        self._stop = stop
        self._meter = meter
        self._chance = chance
        self._clock = clock
        self._suspended_until = -inf
        self._credentials_refused = False

    async def renew(self, work: Work) -> Release | None:
        """Renew the access token, with one request at most. Returns how to release the account.

        None: now is not the time for it. What refuses to store a new pair is reported once; it is
        stored again and again until the grace time is over.
        """
        claim = work.claim
        if work.halt.is_set() or self._outage.lasts:
            return None
        if self._clock() < self._suspended_until:
            return self._suspended(claim)
        try:
            refresh_token = await self._begin(work)
        except DatabaseUnavailable:
            refresh_token = None
        except TokenUnreadable:
            emit(ACCOUNT_BLOCKED, open_id=claim.open_id)
            unreadable = understood(NotSent(UNREADABLE), claim.token)
            return self._concluded(claim, unreadable, Whose.ANOTHERS)
        if refresh_token is None:
            return self._concluded(claim, None)
        return await self._request(work, refresh_token)

    async def _begin(self, work: Work) -> RefreshToken | None:
        """The token to renew with; None if it is not ours to renew, or not now.

        After an outage a replica that finds the database before others must not send what one of
        them has used up: that one gets the time to store the new pair.
        """
        while True:
            token = await self._outage.attempt(lambda: self._store.begin(work.claim))
            if token is None or not (token.interrupted and self._outage.is_just_over):
                return token
            while self._outage.is_just_over:
                await self._outage.wait(work.halt)
                if work.halt.is_set():
                    return None  # the note stays: others wait, too

    async def _request(self, work: Work, refresh_token: RefreshToken) -> Release:
        claim = work.claim
        if not usable_token(refresh_token.token):
            unusable = understood(GrantRefused(UNUSABLE), claim.token)
            return await self._failed(claim, refresh_token, unusable, Whose.UNKNOWN)
        pair = await self._gate.ask_for_token(work, refresh_token)
        if isinstance(pair, Failure):
            return await self._failed(claim, refresh_token, pair, self._gate.whose(work))
        with suppress(DatabaseUnavailable):
            await self._store_pair(work, refresh_token, pair)
            await self._note_name(claim, pair)
        self._credentials_refused = False
        return self._concluded(claim, None)

    async def _store_pair(self, work: Work, used: RefreshToken, pair: TokenPair) -> None:
        claim, received = work.claim, self._clock()

        async def store() -> bool:
            aged = _aged(pair, self._clock() - received)
            lives_seconds = aged.access_token_lives_seconds
            due = renew_in_seconds(lives_seconds, account_spread(claim.open_id))
            return await self._store.replace(claim, used, aged, due)

        try:
            stored = await self._outlast(work, store)
        except BaseException:
            self._meter.renewals["lost"] += 1
            emit(TOKEN_LOST, open_id=claim.open_id)
            raise
        self._meter.renewals["renewed"] += 1
        emit(
            TOKEN_REFRESHED,
            open_id=claim.open_id,
            lives_seconds=round(pair.access_token_lives_seconds),
            stored=stored,
        )

    async def _outlast(self, work: Work, store: Callable[[], Awaitable[bool]]) -> bool:
        """The pair exists nowhere else, so it is stored again until that works."""
        given_up, said = self._stop.given_up, False
        for attempt in count():
            try:
                return await self._outage.attempt(store, may_wait=True)
            except Exception as error:
                if given_up.is_set():
                    raise DatabaseUnavailable("given up before it was stored") from error
                if not (said or is_away(error) or isinstance(error, DatabaseBusy)):
                    said = True
                    work.waits()
                    report_refused_pair(work.claim.open_id, error)
            await self._outage.wait(given_up, attempt)
        raise AssertionError

    async def _note_name(self, claim: Claim, pair: TokenPair) -> None:
        """The pair came for this account's own refresh token: it is its own under any name."""
        other = pair.open_id
        if other is None or other == claim.open_id:
            return
        if await self._outage.attempt(lambda: self._store.note_name(claim, other)):
            emit(ACCOUNT_MISNAMED, open_id=claim.open_id, token_open_id=other)

    async def _failed(
        self, claim: Claim, refresh_token: RefreshToken, failure: Failure, whose: Whose
    ) -> Release:
        interrupted = refresh_token.interrupted
        if failure.reaction is Reaction.SUSPEND:
            await self._suspend(failure.error)
        if failure.reaction is Reaction.REAUTHORIZE and interrupted:
            failure = _lost(claim, failure.error)
        await self._end(claim, unknown=interrupted or failure.meaning.unclear)
        release = self._concluded(claim, failure, whose)
        suspended = failure.reaction is Reaction.SUSPEND
        outcome = "parked" if release.park else "suspended" if suspended else "failed"
        self._meter.renewals[outcome] += 1
        emit(
            TOKEN_FAILED,
            open_id=claim.open_id,
            code=failure.error.code,
            http_status=failure.error.status,
            log_id=failure.error.log_id,
            detail=failure.error.detail,
            retry_in_seconds=round(release.token_retry_seconds, 1) or None,
        )
        return release

    async def _end(self, claim: Claim, *, unknown: bool) -> None:
        try:
            await self._outage.attempt(lambda: self._store.end(claim, unknown=unknown))
        except DatabaseUnavailable:
            return  # then the next request with it counts as one after an interruption

    async def _suspend(self, error: UpstreamError) -> None:
        if self._clock() < self._suspended_until:
            return  # it was sent before another was refused
        self._suspended_until = self._clock() + CLIENT_REFUSED_SECONDS
        if not self._credentials_refused:
            self._credentials_refused = True
            emit(
                CLIENT_REFUSED,
                code=error.code,
                http_status=error.status,
                log_id=error.log_id,
            )
        with suppress(DatabaseUnavailable):  # then it is tried again when the wait ends
            await self._outage.attempt(self._store.note_refused_credentials)

    def _suspended(self, claim: Claim) -> Release:
        """The release of an account that waits for other app credentials.

        Nothing was asked, so nothing failed: its row goes on remembering what did.
        """
        unsent = understood(NotSent(SUSPENDED), claim.token)
        retry = CLIENT_REFUSED_SECONDS
        release = conclude_token(claim, unsent, self._chance(), retry, whose=Whose.ANOTHERS)
        return replace(release, last_failure=None)

    def _concluded(
        self, claim: Claim, failure: Failure | None, whose: Whose = Whose.UNKNOWN
    ) -> Release:
        retry = (
            CLIENT_REFUSED_SECONDS
            if failure and failure.reaction is Reaction.SUSPEND
            else growing_seconds(claim.token.failures, self._chance())
        )
        return conclude_token(claim, failure, self._chance(), retry, whose=whose)


def _lost(claim: Claim, error: UpstreamError) -> Failure:
    """The refresh token was used up by a request whose answer never came."""
    lost = GrantRefused(LOST, status=error.status, log_id=error.log_id, detail=error.code)
    return understood(lost, claim.token)


def _aged(pair: TokenPair, seconds: float) -> TokenPair:
    """The pair as it stands so long after it was received."""
    refresh_seconds = pair.refresh_token_lives_seconds
    return replace(
        pair,
        access_token_lives_seconds=max(0.0, pair.access_token_lives_seconds - seconds),
        refresh_token_lives_seconds=refresh_seconds and max(0.0, refresh_seconds - seconds),
    )
