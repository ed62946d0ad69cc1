"""A slow walk through all accounts that mends what drifted, so that none sleeps for ever."""

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from refresher.domain.model import OpenId
from refresher.domain.pacing import LONGEST_RETRY_SECONDS
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.parts import REFUSALS, Refused, in_parts
from refresher.postgres.statements import Bound, statement

AUDIT_SECONDS: Final = 10.0
#: Steps of one walk. With a step every ten seconds it takes an hour, with more replicas less.
WALK_STEPS: Final = 360
#: A step reads no more videos than this. So a walk over ten million takes five hours.
VIDEOS_READ: Final = 5_000

AUDIT: Final = statement("audit")
AUDIT_WALK: Final = statement("audit_walk")
AUDIT_PART: Final = statement("audit_part")


async def audit_step(
    pool: Pool,
    *,
    managed: bool = False,
    accounts: int = 0,
    refused: Refused = lambda _, __: None,
) -> Sequence[tuple[OpenId, float | None]]:
    """One step of the walk. Returns the accounts that would have slept too long, and how long.

    In seconds; None means for ever. `managed`: accounts must wake for their tokens, too.
    `accounts`: about how many there are, of which a step is a part; 0: not known, so the step is
    small. `refused` hears of accounts that a trigger, a constraint or a lock kept from being
    written.

    Raises `DatabaseUnavailable`.
    """
    walk = {"accounts": accounts, "walk_steps": WALK_STEPS, "videos_read": VIDEOS_READ}
    mend = {"longest_retry_seconds": LONGEST_RETRY_SECONDS, "managed": managed}
    try:
        rows = await _fetch(pool, AUDIT(**walk, **mend))
    except REFUSALS:
        batch = await _fetch(pool, AUDIT_WALK(**walk))

        async def audit_part(open_ids: Sequence[OpenId]) -> Sequence[Record]:
            return await _fetch(
                pool, AUDIT_PART(open_ids=open_ids, videos_read=VIDEOS_READ, **mend)
            )

        rows = await in_parts([OpenId(row["open_id"]) for row in batch], audit_part, refused)
    return [(OpenId(row["open_id"]), row["overslept_seconds"]) for row in rows]


async def _fetch(pool: Pool, asked: Bound) -> Sequence[Record]:
    async with acquired(pool) as connection:
        rows: Sequence[Record] = await connection.fetch(*asked, timeout=REPORT_SECONDS)
    return rows
