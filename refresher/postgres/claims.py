"""Claims accounts: leases them, reads their due videos and reserves slots."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from asyncpg import Record

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.model import Claim, OpenId
from refresher.domain.pacing import Lateness, Pace
from refresher.postgres.claimed import claim_of
from refresher.postgres.database import Pool, acquired
from refresher.postgres.parts import REFUSALS
from refresher.postgres.sealing import Sealer, seal_seen
from refresher.postgres.statements import statement

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: Videos that a claim reads of one account. When it has read so many in all, it takes no further
#: account. A larger account is read part by part, in the order of its video IDs.
ROWS_READ: Final = 1_000

CLAIM: Final = statement("claim")
TRIAL: Final = statement("trial")
CLAIMABLE: Final = statement("claimable")
TRIABLE: Final = statement("triable")
RESERVE: Final = statement("reserve")


class Claims:
    """Claims for one replica. Raises `DatabaseUnavailable`.

    `managed`: we renew access tokens, so an account wakes for its token, too. Tokens in plain text
    are sealed as they are seen.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        replica: str,
        pace: Pace,
        managed: bool,
        sealer: Sealer,
        clock: Clock,
    ) -> None:
        self._pool = pool
        # Parameters that stay the same, by the statements that take them.
        self._steps = {
            "step": timedelta(seconds=pace.step_seconds),
            "app_step": timedelta(seconds=pace.app_step_seconds),
        }
        self._reach: dict[str, object] = {
            "horizon": timedelta(seconds=pace.horizon_seconds),
            "managed": managed,
        }
        self._terms: dict[str, object] = {
            "replica": replica,
            "app_horizon": timedelta(seconds=pace.app_horizon_seconds),
            "lease": timedelta(seconds=pace.lease_seconds),
        }
        self._sealer = sealer
        # `seal_all` tries these again. A claim does not, as its slots would pass meanwhile.
        self._left_unsealed: set[OpenId] = set()
        self._usual = UsualAccount()
        self._lateness = Lateness()
        self._clock = clock
        #: Whether the last claim skipped accounts because others had locked their rows.
        self.skipped_locked = False
        #: Since when nothing is claimed, as everything is paused; None: it is not.
        self.paused_since: datetime | None = None
        #: Accounts that the last claim leased, but whose lease a trigger has undone.
        self.unleased: Sequence[OpenId] = ()

    async def claim(
        self,
        chunk_budget: int,
        *,
        skipped: Sequence[OpenId] = (),
        only: Sequence[OpenId] | None = None,
        tried: Collection[str] | None = None,
    ) -> Sequence[Claim]:
        """Lease the due accounts that have waited longest, at most `chunk_budget` chunks in all.

        More may be due. Accounts in `skipped` are skipped; with `only`, all others are. With
        `tried` it is a trial: other accounts come first, and of these first the ones that were
        well.
        """
        async with acquired(self._pool) as connection:
            sent = self._clock()
            ahead = self._lateness.ahead_seconds(sent)
            values = {**self._values(chunk_budget, ahead), "skipped": skipped, "only": only}
            rows = await connection.fetch(
                *(CLAIM(**values) if tried is None else TRIAL(**values, tried=list(tried)))
            )
            # Other rows tell of the claim as a whole, or of a lease undone.
            leased = [row for row in rows if row["open_id"] is not None]
            seals = await self._seal(connection, leased)
        claims = [claim_of(row, self._sealer, seals.get(row["open_id"], 0), sent) for row in leased]
        self._learn(rows, claims, ahead)
        return claims

    def _values(self, chunk_budget: int, ahead: float) -> Mapping[str, object]:
        return {
            **self._terms,
            **self._steps,
            **self._reach,
            "chunk_budget": chunk_budget,
            "accounts": self._usual.accounts_for(chunk_budget),
            "rows_read": ROWS_READ,
            "ahead": timedelta(seconds=ahead),
        }

    async def _seal(self, connection: "Pooled", rows: Sequence[Record]) -> Mapping[str, int]:
        """By how much sealing has raised each account's generation."""

        def refused(open_id: OpenId, _: Exception) -> None:
            self._left_unsealed.add(open_id)

        to_seal = [row for row in rows if row["open_id"] not in self._left_unsealed]
        with suppress(DatabaseUnavailable, *REFUSALS):  # the accounts are leased all the same
            return await seal_seen(connection, self._sealer, to_seal, refused)
        return {}

    def _learn(self, rows: Sequence[Record], claims: Sequence[Claim], ahead: float) -> None:
        self.skipped_locked = rows[0]["skipped_locked"]
        self.paused_since = rows[0]["paused_since"]
        self.unleased = [
            OpenId(row["granted"]) for row in rows if row["granted"] and row["open_id"] is None
        ]
        if claims:
            self._note_lateness(claims[0], rows[0]["slots_from"], ahead)
            self._usual.note(claims)

    def _note_lateness(self, claim: Claim, slot: datetime, ahead: float) -> None:
        now = self._clock()
        self._lateness.note(now - claim.time.monotonic_of(slot) + ahead, now)

    async def claimable(
        self,
        chunk_budget: int,
        skipped: Sequence[OpenId],
        tried: Collection[str] | None = None,
    ) -> Sequence[OpenId]:
        """The accounts that such a claim might try to lease now, and perhaps a few more."""
        values = {**self._reach, "skipped": skipped}
        asked = (
            CLAIMABLE(**values, accounts=self._usual.accounts_for(chunk_budget))
            if tried is None
            else TRIABLE(**values, tried=list(tried))
        )
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(*asked)
        return [OpenId(row["open_id"]) for row in rows]

    async def reserve(self, claim: Claim) -> datetime | None:
        """One more slot for an account under lease; None if it is lost or its row is locked.

        With a limit for the app, call this when the account's own next slot is near: its place
        among the app's slots is fixed now.
        """
        async with acquired(self._pool) as connection:
            ahead = self._lateness.ahead_seconds(self._clock())
            slot: datetime | None = await connection.fetchval(
                *RESERVE(
                    open_id=claim.open_id,
                    lease_epoch=claim.lease_epoch,
                    ahead=timedelta(seconds=ahead),
                    **self._steps,
                )
            )
        if slot is not None:
            self._note_lateness(claim, slot, ahead)
        return slot


class UsualAccount:
    """How many chunks and videos an account of the last claim had.

    So a claim locks no more accounts than it is likely to take.
    """

    def __init__(self) -> None:
        self._chunks = self._videos = 1.0

    def note(self, claims: Sequence[Claim]) -> None:
        """Learn from a claim that brought at least one account."""
        self._chunks = max(1.0, sum(claim.chunks for claim in claims) / len(claims))
        self._videos = max(1.0, sum(len(claim.videos) for claim in claims) / len(claims))

    def accounts_for(self, chunk_budget: int) -> int:
        """How many accounts to lock for so many chunks."""
        return ceil(min(chunk_budget / self._chunks, ROWS_READ / self._videos))
