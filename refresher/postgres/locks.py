"""Who holds the lock that a statement of ours waits for."""

from typing import Final

from refresher.domain.model import Holder
from refresher.postgres.database import Pool, acquired
from refresher.postgres.statements import statement

LOCK_HOLDER: Final = statement("lock_holder")


async def holder(pool: Pool, name: str) -> Holder | None:
    """Who holds the lock that the session of this name waits for; None if it waits for none.

    Raises `DatabaseUnavailable`.
    """
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*LOCK_HOLDER(session_name=name))
    return Holder(row["pid"], row["application_name"], row["since"]) if row else None
