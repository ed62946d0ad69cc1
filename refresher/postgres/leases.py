"""Extends leases and releases them, with what was learnt under them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from asyncpg import Record

from refresher.domain.model import Claim, Release, Released
from refresher.postgres.claims import ROWS_READ
from refresher.postgres.database import APPLICATION_NAME, Pool, acquired
from refresher.postgres.parts import in_parts
from refresher.postgres.statements import Statement, statement

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: When releases have met a lock, each part of them waits for so long at most.
PART_LOCK_SECONDS: Final = 0.05
#: Leases to extend are split for no longer, so that others do not run out meanwhile.
SPLIT_SECONDS: Final = 1.0

RELEASE: Final = statement("release")
RELEASE_ALONE: Final = statement("release_alone")
EXTEND: Final = statement("extend")


class Leases:
    """The leases of claimed accounts. Raises `DatabaseUnavailable`.

    `managed`: we renew access tokens, so a released account wakes for its token, too.
    """

    def __init__(self, pool: Pool, *, lease_seconds: float, managed: bool) -> None:
        self._pool = pool
        self._lease = timedelta(seconds=lease_seconds)
        self._managed = managed

    async def extend(
        self,
        claims: Sequence[Claim],
        refused: Callable[[Claim, Exception], None] = lambda *_: None,
    ) -> Sequence[float | None]:
        """Extend leases. How many seconds each lasts now; None if it is lost or its row is locked.

        `refused` hears of each claim that a trigger, a constraint or a lock stopped. To find these
        may take too long: then some claims have None, and `refused` does not hear of them. Try
        those again.
        """
        rows = await in_parts(claims, self._extend, refused, SPLIT_SECONDS)
        left = {row["open_id"]: row["left"].total_seconds() for row in rows}
        return [left.get(claim.open_id) for claim in claims]

    async def _extend(self, claims: Sequence[Claim]) -> Sequence[Record]:
        async with acquired(self._pool) as connection:
            rows: Sequence[Record] = await connection.fetch(
                *EXTEND(
                    open_ids=[claim.open_id for claim in claims],
                    lease_epochs=[claim.lease_epoch for claim in claims],
                    lease=self._lease,
                )
            )
        return rows

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """Release leases; None where the row is locked just now or the lease is over.

        Try those again until their lease has run out.
        """
        async with acquired(self._pool) as connection:
            return await self._release(connection, RELEASE, releases)

    async def release_part(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """As `release`, for a part of releases that have met a lock."""
        return await self.release_alone(releases, PART_LOCK_SECONDS, APPLICATION_NAME)

    async def release_alone(
        self, releases: Sequence[Release], lock_seconds: float, name: str
    ) -> Sequence[Released | None]:
        """As `release`, but wait for a lock for so many seconds.

        The session has this name meanwhile, so that `holder` finds out who holds the lock.
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
        values = {**_columns(releases), **_samples(releases), **more}
        rows = await connection.fetch(
            *statement(managed=self._managed, rows_read=ROWS_READ, **values)
        )
        released = {
            row["open_id"]: Released(row["parked"], row["wake_in_seconds"], row["isolated"])
            for row in rows
        }
        return [released.get(release.open_id) for release in releases]


def _columns(releases: Sequence[Release]) -> Mapping[str, object]:
    parks = [release.park for release in releases]
    last = [release.last_failure for release in releases]
    return {
        "open_ids": [release.open_id for release in releases],
        "lease_epochs": [release.lease_epoch for release in releases],
        "generations": [release.generation for release in releases],
        "failures": [release.failures for release in releases],
        "retry_seconds": [release.retry_seconds for release in releases],
        "pause_seconds": [release.pause_seconds for release in releases],
        "park_states": [park and park.state for park in parks],
        "park_reasons": [park and park.reason for park in parks],
        "answered": [release.answered for release in releases],
        "refused": [release.refused for release in releases],
        "token_retry_seconds": [release.token_retry_seconds for release in releases],
        "requests": [release.requests for release in releases],
        "unfinished": [release.unfinished for release in releases],
        "passed_over": [release.passed_over for release in releases],
        "quota_spent": [release.quota_spent for release in releases],
        "isolated_reasons": [release.isolated_reason for release in releases],
        "failure_codes": [failure and failure.code for failure in last],
        "failure_http_statuses": [failure and failure.http_status for failure in last],
        "failure_log_ids": [failure and failure.log_id for failure in last],
    }


def _samples(releases: Sequence[Release]) -> Mapping[str, object]:
    samples = [(release.open_id, sample) for release in releases for sample in release.samples]
    return {
        "sample_open_ids": [open_id for open_id, _ in samples],
        "sample_video_ids": [sample.video_id for _, sample in samples],
        "sample_videos": [sample.videos for _, sample in samples],
    }
