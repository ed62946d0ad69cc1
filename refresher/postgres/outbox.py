"""The webhooks that wait to be delivered. Triggers write them, with the change that they tell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from asyncpg import Record

from refresher.domain.model import OpenId
from refresher.domain.webhooks import Webhook
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import Bound, statement

TAKE: Final = statement("take_webhooks")
END: Final = statement("end_webhook")
PUT_OFF: Final = statement("put_off_webhook")
GIVE_UP: Final = statement("give_up_webhooks")
SWITCH_ON: Final = statement("switch_webhooks_on")
OUTBOX: Final = statement("outbox")


@dataclass(frozen=True, slots=True)
class Taken:
    """A webhook that this replica sends now."""

    webhook: Webhook
    #: This one counts.
    attempts: int
    #: The time of this attempt, by the database's clock.
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A webhook that was not delivered."""

    webhook_id: str
    type: str
    open_id: OpenId | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """What waits to be delivered."""

    waiting: int
    #: For how long the oldest has waited; 0: none waits.
    oldest_seconds: float


async def take(pool: Pool, at_once: int, lease: timedelta) -> Sequence[Taken]:
    """Webhooks that are due, at most the first of each account, for one attempt within `lease`.

    Raises `DatabaseUnavailable`, as every function here.
    """
    rows = await _fetched(pool, TAKE(at_once=at_once, lease=lease))
    return [
        Taken(
            Webhook(
                row["webhook_id"],
                row["type"],
                _account(row["open_id"]),
                row["changed_at"],
                json.loads(row["data"]),
            ),
            row["attempts"],
            row["sent_at"],
        )
        for row in rows
    ]


async def end(pool: Pool, taken: Taken) -> None:
    """It was delivered. Idempotent."""
    async with acquired(pool) as connection:
        await connection.execute(*END(webhook_id=taken.webhook.webhook_id))


async def put_off(pool: Pool, taken: Taken, wait: timedelta) -> None:
    """It was not, and is tried again after `wait`; nothing if others have it by now."""
    async with acquired(pool) as connection:
        await connection.execute(
            *PUT_OFF(webhook_id=taken.webhook.webhook_id, attempts=taken.attempts, wait=wait)
        )


async def give_up(pool: Pool) -> Sequence[GivenUp]:
    """Delete some that were tried for long enough; none: there are no more."""
    return [
        GivenUp(row["webhook_id"], row["type"], _account(row["open_id"]), row["attempts"])
        for row in await _fetched(pool, GIVE_UP())
    ]


async def switch_on(pool: Pool) -> None:
    """Let changes go to the outbox, for `TRIED_FOR_HOURS` from now. Idempotent."""
    async with acquired(pool) as connection:
        await connection.execute(*SWITCH_ON())


async def read_outbox(pool: Pool) -> Outbox:
    """How much waits, and for how long."""
    async with acquired(pool) as connection:
        (row,) = await connection.fetch(*OUTBOX(), timeout=REPORT_SECONDS)
    return Outbox(**dict(row))


async def _fetched(pool: Pool, asked: Bound) -> Sequence[Record]:
    async with acquired(pool) as connection:
        rows: Sequence[Record] = await connection.fetch(*asked)
    return rows


def _account(open_id: str) -> OpenId | None:
    return OpenId(open_id) if open_id else None
