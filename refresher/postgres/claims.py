"""Claiming due accounts under a lease and giving them back with their next wake-up."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncpg import Record

from refresher.domain.app_limit import Answers, AppLimit, Heard, app_limit
from refresher.domain.errors import DatabaseUnavailable, TokenUnreadable
from refresher.domain.model import (
    Claim,
    OpenId,
    Release,
    Released,
    TokenStanding,
    Video,
)
from refresher.domain.pacing import DatabaseTime, Lateness, Pace
from refresher.postgres.database import APPLICATION_NAME, Pool, acquired
from refresher.postgres.parts import REFUSALS, in_parts
from refresher.postgres.sealing import Sealer, seal_seen
from refresher.postgres.statements import Statement, statement

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: Videos that a claim reads of one account, and in all before it takes no further one. A larger
#: account is read part by part, in the order of its video IDs.
ROWS_READ: Final = 1_000
#: Of releases that have met a lock each part waits for so long at most.
PART_LOCK_SECONDS: Final = 0.05
#: Renewals are split for no longer, so that other leases do not run out meanwhile.
SPLIT_SECONDS: Final = 1.0

CLAIM: Final = statement("claim")
PROBE: Final = statement("probe")
CLAIMABLE: Final = statement("claimable")
PROBEABLE: Final = statement("probeable")
RESERVE: Final = statement("reserve")
RELEASE: Final = statement("release")
RELEASE_ALONE: Final = statement("release_alone")
EXTEND: Final = statement("extend")
TELL_ANSWERS: Final = statement("tell_answers")
HEAR_ANSWERS: Final = statement("hear_answers")
LIMIT_APP: Final = statement("limit_app")


class Claims:
    """The accounts' leases and slots, for one replica. Raises `DatabaseUnavailable`.

    `managed`: access tokens are refreshed by us, so an account also wakes for its token. Tokens
    that lie in plain text are sealed as they are seen.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        replica: str,
        pace: Pace,
        managed: bool = False,
        sealer: Sealer | None = None,
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._lease = timedelta(seconds=pace.lease_seconds)
        self._app_step = timedelta(seconds=pace.app_step_seconds)
        self._step = timedelta(seconds=pace.step_seconds)
        self._horizon = timedelta(seconds=pace.horizon_seconds)
        self._app_horizon = timedelta(seconds=pace.app_horizon_seconds)
        self._managed = managed
        self._sealer = sealer or Sealer(())
        # Of an account of the last claim: no more are locked than the next is likely to have chunks
        # and rows for.
        self._chunks_each = self._videos_each = 1.0
        # What could not be sealed is left to `seal_all`: a claim that is late has missed its slots.
        self._left_unsealed: set[OpenId] = set()
        self._lateness = Lateness()
        #: Whether the last claim had to pass by accounts whose rows others held.
        self.passed_by = False
        #: Accounts whose lease something has undone in the last claim: a trigger, no doubt.
        self.unleased: Sequence[OpenId] = ()

    async def claim(
        self,
        chunk_budget: int,
        *,
        left_out: Sequence[OpenId] = (),
        only: Sequence[OpenId] | None = None,
        tried: Collection[str] | None = None,
    ) -> Sequence[Claim]:
        """Lease the due accounts that have waited longest, at most `chunk_budget` chunks in all.

        More may be due. `left_out` are not looked at; with `only`, no others are. With `tried` any
        of the others first, those that were well before the rest.
        """
        async with acquired(self._pool) as connection:
            sent = monotonic()
            ahead = self._lateness.ahead_seconds(sent)
            values = {
                "chunk_budget": chunk_budget,
                "replica": self._replica,
                "horizon": self._horizon,
                "app_horizon": self._app_horizon,
                "step": self._step,
                "app_step": self._app_step,
                "lease": self._lease,
                "rows_read": ROWS_READ,
                "managed": self._managed,
                "accounts": self._accounts_for(chunk_budget),
                "skipped": left_out,
                "only": only,
                "ahead": timedelta(seconds=ahead),
            }
            rows = await connection.fetch(
                *(CLAIM(**values) if tried is None else PROBE(**values, tried=list(tried)))
            )
            leased = [row for row in rows if row["open_id"] is not None]
            sealed: Mapping[str, int] = {}
            to_seal = [row for row in leased if row["open_id"] not in self._left_unsealed]
            with suppress(DatabaseUnavailable, *REFUSALS):  # they are leased all the same
                sealed = await seal_seen(connection, self._sealer, to_seal, self._leave_unsealed)
        claims = [self._claim(row, sealed.get(row["open_id"], 0), sent) for row in leased]
        if claims:
            slots_from = claims[0].time.monotonic_of(rows[0]["slots_from"])
            self._lateness.note(monotonic() - slots_from + ahead, monotonic())
            self._chunks_each = max(1.0, sum(claim.chunks for claim in claims) / len(claims))
            self._videos_each = max(1.0, sum(len(claim.videos) for claim in claims) / len(claims))
        self.passed_by = rows[0]["passed_by"]
        self.unleased = [
            OpenId(row["granted"]) for row in rows if row["granted"] and row["open_id"] is None
        ]
        return claims

    def _leave_unsealed(self, open_id: OpenId, _: Exception) -> None:
        self._left_unsealed.add(open_id)

    def _accounts_for(self, chunk_budget: int) -> int:
        return ceil(min(chunk_budget / self._chunks_each, ROWS_READ / self._videos_each))

    async def claimable(
        self,
        chunk_budget: int,
        left_out: Sequence[OpenId],
        tried: Collection[str] | None = None,
    ) -> Sequence[OpenId]:
        """The accounts that such a claim might try to lease now, and perhaps a few more."""
        values = {"horizon": self._horizon, "managed": self._managed, "skipped": left_out}
        asked = (
            CLAIMABLE(**values, accounts=self._accounts_for(chunk_budget))
            if tried is None
            else PROBEABLE(**values, tried=list(tried))
        )
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(*asked)
        return [OpenId(row["open_id"]) for row in rows]

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """Give leases back; None where the row is locked just now or the lease is over.

        Try those again until their lease has run out.
        """
        async with acquired(self._pool) as connection:
            return await self._release(connection, RELEASE, releases)

    async def release_part(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """A part of what has met a lock."""
        return await self.release_alone(releases, PART_LOCK_SECONDS, APPLICATION_NAME)

    async def release_alone(
        self, releases: Sequence[Release], lock_seconds: float, name: str
    ) -> Sequence[Released | None]:
        """As `release`, under this session name: who holds what it waits for can be looked up.

        It waits for a lock for so long at most.
        """
        lock_timeout = f"{max(1, round(1000 * lock_seconds))}ms"
        async with acquired(self._pool) as connection:
            return await self._release(
                connection, RELEASE_ALONE, releases, lock_timeout=lock_timeout, session_name=name
            )

    async def _release(
        self,
        connection: "Pooled",
        statement: Statement,
        releases: Sequence[Release],
        **more: object,
    ) -> Sequence[Released | None]:
        parks = [release.park for release in releases]
        samples = [(release.open_id, sample) for release in releases for sample in release.samples]
        rows = await connection.fetch(
            *statement(
                open_ids=[release.open_id for release in releases],
                lease_epochs=[release.lease_epoch for release in releases],
                generations=[release.generation for release in releases],
                failures=[release.failures for release in releases],
                retry_seconds=[release.retry_seconds for release in releases],
                pause_seconds=[release.pause_seconds for release in releases],
                park_states=[park and park.state for park in parks],
                park_reasons=[park and park.reason for park in parks],
                answered=[release.answered for release in releases],
                refused=[release.refused for release in releases],
                token_retry_seconds=[release.token_retry_seconds for release in releases],
                requests=[release.requests for release in releases],
                unfinished=[release.unfinished for release in releases],
                passed_over=[release.passed_over for release in releases],
                quota_spent=[release.quota_spent for release in releases],
                isolated_reasons=[release.isolated_reason for release in releases],
                sample_open_ids=[open_id for open_id, _ in samples],
                sample_video_ids=[sample.video_id for _, sample in samples],
                sample_videos=[sample.videos for _, sample in samples],
                managed=self._managed,
                rows_read=ROWS_READ,
                **more,
            )
        )
        released = {
            row["open_id"]: Released(row["parked"], row["wake_in_seconds"], row["isolated"])
            for row in rows
        }
        return [released.get(release.open_id) for release in releases]

    async def renew(
        self,
        claims: Sequence[Claim],
        refused: Callable[[Claim, Exception], None] = lambda *_: None,
    ) -> Sequence[float | None]:
        """Lengthen leases; how long each lasts now, None where it is lost or its row locked.

        `refused` hears of those that a trigger, a constraint or a lock stands in the way of. Where
        finding them takes long, some have None without a word: try those again.
        """
        rows = await in_parts(claims, self._renew, refused, SPLIT_SECONDS)
        left = {row["open_id"]: row["left"].total_seconds() for row in rows}
        return [left.get(claim.open_id) for claim in claims]

    async def _renew(self, claims: Sequence[Claim]) -> Sequence[Record]:
        async with acquired(self._pool) as connection:
            rows: Sequence[Record] = await connection.fetch(
                *EXTEND(
                    open_ids=[claim.open_id for claim in claims],
                    lease_epochs=[claim.lease_epoch for claim in claims],
                    lease=self._lease,
                )
            )
        return rows

    async def reserve(self, claim: Claim) -> datetime | None:
        """One more slot for an account under lease; None where it is lost or the row locked.

        With a limit for the app the account's own next slot must be near: the place among the app's
        slots is taken now.
        """
        async with acquired(self._pool) as connection:
            ahead = self._lateness.ahead_seconds(monotonic())
            slot: datetime | None = await connection.fetchval(
                *RESERVE(
                    open_id=claim.open_id,
                    lease_epoch=claim.lease_epoch,
                    step=self._step,
                    app_step=self._app_step,
                    ahead=timedelta(seconds=ahead),
                )
            )
        if slot is not None:
            now = monotonic()
            self._lateness.note(now - claim.time.monotonic_of(slot) + ahead, now)
        return slot

    async def tell_answers(self, answers: Answers) -> bool:
        """Add what this replica saw answered to what is known of all; whether the app is limited.

        That is, whether a rate that was found for it is kept to; not where the app's row is gone.
        """
        told = " ".join(map(str, answers))
        async with acquired(self._pool) as connection:
            limited: bool | None = await connection.fetchval(
                *TELL_ANSWERS(replica=self._replica, answers=told)
            )
        return bool(limited)

    async def limit_app(self, wished_seconds: float, *, shown: bool = True) -> AppLimit | None:
        """Slow all tokens down to what all replicas together saw answered.

        Nobody sends until there is room again, nor for `wished_seconds`. Not `shown` by 429s of
        this replica: a rate that was found without its answers is only put right upwards. None
        where nothing was changed, as where another replica was faster or the app's row is gone.
        """
        async with acquired(self._pool) as connection:
            row = await connection.fetchrow(*HEAR_ANSWERS())
            if row is None:
                return None
            heard = [
                Heard(age, [int(number) for number in answers.split()])
                for age, answers in zip(row["ages"], row["answers"], strict=True)
            ]
            limit = app_limit(heard, row["unheard"])
            if not shown and limit.rate_per_minute <= (row["rate"] or 0.0):
                return None
            pause = timedelta(seconds=max(limit.pause_seconds, wished_seconds))
            done = await connection.fetchval(
                *LIMIT_APP(rate=limit.rate_per_minute, pause=pause, as_of=row["as_of"])
            )
        return limit if done else None

    def _claim(self, row: Record, sealed: int, sent: float) -> Claim:
        try:
            access_token, readable = self._sealer.unseal(row["access_token"]), True
        except TokenUnreadable:
            access_token, readable = None, False
        return Claim(
            open_id=OpenId(row["open_id"]),
            access_token=access_token,
            lease_epoch=row["lease_epoch"],
            lease_expires_at=row["lease_expires_at"],
            failures=row["failures"],
            videos=_videos(row),
            ctids=dict(zip(row["video_ids"] or (), (row["ctids"] or "").split(), strict=True)),
            unfinished=row["unfinished"],
            app_limited=row["app_limited"],
            all_videos=row["all_videos"],
            isolated_since=row["isolated_since"],
            isolated_reason=row["isolated_reason"],
            first_slot=row["first_slot"],
            step_seconds=row["step_seconds"],
            # The transaction began when the statement arrived, a little after it was sent: slots
            # and the lease's end come early by that, which the headroom allows for.
            time=DatabaseTime(row["now"], sent),
            token=TokenStanding(
                generation=row["tokens_generation"] + sealed,
                renewable=row["renewable"],
                due=row["token_due"],
                dead=row["dead"],
                renewed=row["token_standing"] == "renewed",
                failures=row["token_failures"],
                readable=readable,
            ),
        )


def _videos(row: Record) -> Sequence[Video]:
    video_ids, due = row["video_ids"] or (), row["due_videos"]
    columns = row["expires_ats"] or (), row["misses"] or (), row["missing"] or ()
    is_due = [True] * due + [False] * (len(video_ids) - due)
    return list(map(Video._make, zip(video_ids, is_due, *columns, strict=True)))
