"""How long what attached tables have told waits to be applied, or to be carried to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

WAITING_TOLD: Final = statement("waiting_told")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attached table."""

    name: str
    #: 0: nothing of it waits.
    waiting_seconds: float


async def read_waiting(pool: Pool) -> Sequence[Waiting]:
    """All attached tables, by name. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*WAITING_TOLD(), timeout=REPORT_SECONDS)
    return [Waiting(**dict(row)) for row in rows]
