"""Removing an account: it is taken from the daemons, then deleted in steps.

Each step is a short transaction. What was interrupted is finished by doing it all again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from asyncpg import Record

from refresher.domain.errors import TokenUnreadable
from refresher.domain.model import Claim, OpenId, TokenStanding
from refresher.domain.pacing import DatabaseTime
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.sealing import Sealer
from refresher.postgres.statements import statement

#: Why an account is paused meanwhile.
REASON: Final = "is being removed"
#: Who holds its lease meanwhile.
OWNER: Final = "accounts remove"
#: Videos that a transaction deletes: so that no lock lasts long.
VIDEOS_AT_ONCE: Final = 1_000

STORED_OF_ACCOUNT: Final = statement("stored_of_account")
ACCOUNT_TO_REMOVE: Final = statement("account_to_remove")
TAKE_FROM_DAEMONS: Final = statement("take_from_daemons")
GIVE_BACK: Final = statement("give_back")
FORGET_VIDEOS_OF_ACCOUNT: Final = statement("forget_videos_of_account")
FORGET_ACCOUNT: Final = statement("forget_account")


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of an account."""

    #: None: the account itself is not stored.
    state: str | None
    state_since: datetime | None
    #: The replica that works it now.
    worked_by: str | None
    #: Tables of schema refresher, and how many of their rows have to do with it.
    rows: Mapping[str, int]
    #: Those of which the role may delete no rows.
    forbidden: Sequence[str]


@dataclass(frozen=True, slots=True)
class Taken:
    """An account that no daemon works any more."""

    #: As the lease that was taken over; its tokens are as they are stored now.
    claim: Claim
    #: The state before, and since when.
    was: str
    since: datetime
    #: The user's consent has ended by itself.
    consent_ended: bool
    #: Set while a token request is under way: for how much longer at most. The lease is still its
    #: replica's.
    renewing: timedelta | None


async def read_stored(pool: Pool, open_id: str) -> Stored:
    """Raises `DatabaseUnavailable`, as every function here."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*STORED_OF_ACCOUNT(open_id=open_id), timeout=REPORT_SECONDS)
        row = await connection.fetchrow(*ACCOUNT_TO_REMOVE(open_id=open_id))
    account = dict(row) if row else {"state": None, "state_since": None, "worked_by": None}
    return Stored(
        rows={each["holder"]: each["rows"] for each in rows},
        forbidden=[each["holder"] for each in rows if not each["may_delete"]],
        **account,
    )


async def take(pool: Pool, sealer: Sealer, open_id: str, lease: timedelta) -> Taken | None:
    """Pause an active account, and take its lease over; None if it is not stored.

    While a token request is under way, it is only paused: take it again. Idempotent.
    """
    asked = TAKE_FROM_DAEMONS(open_id=open_id, reason=REASON, owner=OWNER, lease=lease)
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*asked)
    if row is None:
        return None
    claim = _claim(row, sealer, OpenId(open_id))
    return Taken(claim, row["was"], row["since"], row["consent_ended"], row["renewing"])


def _claim(row: Record, sealer: Sealer, open_id: OpenId) -> Claim:
    try:
        access_token, readable = sealer.unseal(row["access_token"]), True
    except TokenUnreadable:
        access_token, readable = None, False
    return Claim(
        open_id=open_id,
        access_token=access_token,
        lease_epoch=row["lease_epoch"],
        lease_expires_at=row["lease_expires_at"] or row["now"],
        failures=0,
        videos=(),
        first_slot=row["now"],
        step_seconds=0.0,
        time=DatabaseTime(row["now"], monotonic()),
        token=TokenStanding(
            generation=row["tokens_generation"],
            renewable=row["renewable"],
            dead=row["token_dead"],
            readable=readable,
        ),
    )


async def give_back(pool: Pool, taken: Taken) -> None:
    """Let the daemons work the account again, if it was active. Idempotent."""
    asked = GIVE_BACK(
        open_id=taken.claim.open_id,
        was=taken.was,
        since=taken.since,
        reason=REASON,
        owner=OWNER,
    )
    async with acquired(pool) as connection:
        await connection.execute(*asked)


async def forget(
    pool: Pool, open_id: str, *, keep_attached: bool, on_progress: Callable[[int], None]
) -> int:
    """Delete what is stored of an account; returns the number of its videos. Idempotent.

    `keep_attached`: what was taken from an attached table is remembered, so that the account is not
    added again from there. `on_progress` hears of deleted videos.
    """
    videos = 0
    after: str | None = ""
    while after is not None:
        step = FORGET_VIDEOS_OF_ACCOUNT(open_id=open_id, after=after, most=VIDEOS_AT_ONCE)
        async with acquired(pool) as connection:
            (row,) = await connection.fetch(*step)
        videos, after = videos + row["videos"], row["last"]
        on_progress(videos)
    async with acquired(pool) as connection:
        await connection.execute(*FORGET_ACCOUNT(open_id=open_id, keep_attached=keep_attached))
    return videos
