"""Delivers what waits in the outbox: at least once, and in order for each account."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from math import inf
from typing import Final

from refresher import events
from refresher.domain.clocks import Chance, Clock
from refresher.domain.webhooks import Answer, wait_seconds
from refresher.logs import emit
from refresher.postgres.database import Pool
from refresher.postgres.outbox import Taken, end, give_up, put_off, switch_on, take
from refresher.webhooks.receiver import TIMEOUT_SECONDS, Receiver

#: How often the outbox is looked into, and how often it is tidied.
DELIVER_SECONDS: Final = 5.0
TIDY_SECONDS: Final = 3600.0
#: Webhooks on their way at once.
AT_ONCE: Final = 8
#: Long enough for an attempt and for noting what came of it.
LEASE: Final = timedelta(seconds=4 * TIMEOUT_SECONDS)
#: A turn ends soon after this, so that its loop is seen to turn.
TURN_SECONDS: Final = 30.0
#: After a 410, unless the daemon is started anew.
GONE_SECONDS: Final = 6 * 3600.0


class Delivery:
    """What one replica delivers. Raises `DatabaseUnavailable`."""

    def __init__(self, pool: Pool, receiver: Receiver, chance: Chance, clock: Clock) -> None:
        self._pool = pool
        self._receiver = receiver
        self._chance = chance
        self._clock = clock
        #: The receiver wants nothing until then, in seconds of the clock.
        self._gone_until = -inf
        # One connection at a time: the others are the work's.
        self._noting = asyncio.Lock()

    @property
    def origin(self) -> str:
        """Where it delivers to: scheme and host."""
        return self._receiver.origin

    async def deliver(self) -> None:
        """Deliver what is due, as far as one turn goes."""
        ends_at = self._clock() + TURN_SECONDS
        while self._gone_until <= self._clock() < ends_at:
            taken = await take(self._pool, AT_ONCE, LEASE)
            await self._deliver(taken)
            if len(taken) < AT_ONCE:
                return

    async def _deliver(self, taken: Sequence[Taken]) -> None:
        attempts = map(self._attempt, taken)
        for outcome in await asyncio.gather(*attempts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _attempt(self, taken: Taken) -> None:
        answer = await self._receiver.send(taken.webhook, taken.sent_at)
        async with self._noting:
            if answer.is_delivered:
                await end(self._pool, taken)
                self._say_delivered(taken)
            else:
                wait = wait_seconds(taken.attempts, answer.retry_after_seconds, self._chance)
                await put_off(self._pool, taken, timedelta(seconds=wait))
                self._say_failed(taken, answer, wait)
        if answer.is_gone:
            self._rest()

    def _rest(self) -> None:
        """Said once, though several may be answered so at the same time."""
        if self._gone_until <= self._clock():
            self._gone_until = self._clock() + GONE_SECONDS
            emit(events.WEBHOOKS_DISABLED, base_url=self.origin, retry_in_seconds=GONE_SECONDS)

    def _say_delivered(self, taken: Taken) -> None:
        webhook = taken.webhook
        emit(
            events.WEBHOOK_DELIVERED,
            webhook_id=webhook.webhook_id,
            type=webhook.type,
            open_id=webhook.open_id,
            attempts=taken.attempts,
        )

    def _say_failed(self, taken: Taken, answer: Answer, wait: float) -> None:
        webhook = taken.webhook
        emit(
            events.WEBHOOK_FAILED,
            webhook_id=webhook.webhook_id,
            type=webhook.type,
            open_id=webhook.open_id,
            http_status=answer.status,
            reason=answer.reason,
            attempts=taken.attempts,
            retry_in_seconds=round(wait, 1),
        )


async def tidy(pool: Pool, *, on: bool) -> None:
    """Give up what was tried for long enough; `on`: this replica delivers.

    Raises `DatabaseUnavailable`.
    """
    if on:
        await switch_on(pool)
    while given_up := await give_up(pool):
        for one in given_up:
            emit(
                events.WEBHOOK_ABANDONED,
                webhook_id=one.webhook_id,
                type=one.type,
                open_id=one.open_id,
                attempts=one.attempts,
            )
