"""The rate limit of the whole app, found together with the other replicas."""

import asyncio
from contextlib import suppress
from typing import Final, Protocol

from refresher.domain.answers import Failure, Reaction
from refresher.domain.app_limit import Answers, AppLimit, AppThrottle
from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.model import Claim, OpenId
from refresher.events import APP_THROTTLED, LOOP_FAILED
from refresher.flow.outage import Outage
from refresher.flow.stop import Stop
from refresher.logs import emit

#: While the app is limited, replicas tell each other so often what was answered. 429s are looked at
#: at most so often.
TELLING_SECONDS: Final = 3.0
LOOKING_SECONDS: Final = 0.25


class Accounts(Protocol):
    """What all replicas know about the app's rate limit. Raises `DatabaseUnavailable`."""

    async def tell_answers(self, answers: Answers) -> bool: ...
    async def limit_app(self, wished_seconds: float, *, shown: bool) -> AppLimit | None: ...


class AppRate:
    """A rate limit of the whole app that 429s show. All replicas find it together."""

    def __init__(self, accounts: Accounts, *, outage: Outage, stop: Stop, clock: Clock) -> None:
        self._accounts = accounts
        self._outage = outage
        self._stop = stop
        self._clock = clock
        self._throttle = AppThrottle()
        self._throttled = asyncio.Event()
        self._just_learnt = False

    def hear_of(self, claim: Claim) -> None:
        """Another replica may have found a limit: it needs to hear from this one."""
        if claim.app_limited and not self._throttle.in_force:
            self._throttle.in_force = self._just_learnt = True
            self._throttled.set()

    def answered(self, open_id: OpenId) -> None:
        """A query was answered."""
        self._throttle.answered(open_id, self._clock())

    def explains(self, open_id: str, failure: Failure) -> bool:
        """Whether the failure is a 429 for the whole app: the account did nothing wrong."""
        # A day's quota is no rate.
        if failure.reaction is not Reaction.PAUSE:
            return False
        self._throttled.set()
        return self._throttle.throttled(open_id, self._clock(), failure.error.retry_after_seconds)

    async def run(self) -> None:
        """Count with the other replicas after a 429 and while the app is limited. Never returns."""
        while True:
            longest = TELLING_SECONDS if self._throttle.in_force else None
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
                await asyncio.wait_for(self._stop.given_up.wait(), pause)
                return

    async def _count_together(self) -> None:
        throttle = self._throttle
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
