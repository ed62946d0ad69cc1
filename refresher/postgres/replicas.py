"""The daemons that run: each says so in a row of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refresher.domain.pacing import SILENT_SECONDS
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

BEAT: Final = statement("beat")
FORGET_REPLICAS: Final = statement("forget_replicas")
SIGN_OFF: Final = statement("sign_off")
REPLICAS: Final = statement("replicas")


@dataclass(frozen=True, slots=True)
class Replica:
    """A daemon, as it said itself. Of an earlier version only the leases are known."""

    replica: str
    version: str | None
    started_at: datetime | None
    #: A replica that stops in order is not listed: an old time is of one that died or hangs.
    seen_at: datetime | None
    #: When TikTok last answered it; None: not yet.
    progress_at: datetime | None
    #: The accounts that it works now.
    leases: int

    def is_silent(self, now: datetime) -> bool:
        """Whether it should have said again by now that it runs."""
        return self.seen_at is not None and (now - self.seen_at).total_seconds() >= SILENT_SECONDS


async def beat(pool: Pool, replica: str, version: str, *, progressed: bool) -> None:
    """Say that this replica runs, and whether TikTok has answered it since it said so last.

    Raises `DatabaseUnavailable`, as every function here.
    """
    async with acquired(pool) as connection:
        await connection.execute(*BEAT(replica=replica, version=version, progressed=progressed))
        await connection.execute(*FORGET_REPLICAS(replica=replica))


async def sign_off(pool: Pool, replica: str) -> None:
    """Say that this replica has stopped. Idempotent."""
    async with acquired(pool) as connection:
        await connection.execute(*SIGN_OFF(replica=replica))


async def seen_replicas(pool: Pool) -> Sequence[Replica]:
    """All that were seen within a day, by name."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*REPLICAS(), timeout=REPORT_SECONDS)
    return [Replica(**dict(row)) for row in rows]
