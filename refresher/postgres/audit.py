"""A slow walk through all accounts that puts right what drifted, so that none sleeps for ever."""

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from refresher.domain.model import OpenId
from refresher.domain.pacing import LONGEST_RETRY_SECONDS
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.parts import REFUSALS, Refused, in_parts
from refresher.postgres.statements import Bound, statement

AUDIT_SECONDS: Final = 10.0
#: Steps of one walk: with a step every ten seconds it takes an hour, less with more replicas.
WALK_STEPS: Final = 360
#: And longer where a step would have to read more videos: five hours for ten million.
VIDEOS_READ: Final = 5_000

AUDIT: Final = statement("audit")
AUDIT_WALK: Final = statement("audit_walk")
AUDIT_PART: Final = statement("audit_part")


async def audit_step(
    pool: Pool,
    *,
    managed: bool = False,
    refused: Refused = lambda _, __: None,
) -> Sequence[tuple[OpenId, float | None]]:
    """One step of the walk; the accounts that would have slept too long, None for ever.

    `managed`: an account must wake for its token, too. `refused` hears of accounts whose rows could
    not be written for what a trigger, a constraint or a lock of theirs does.

    Raises `DatabaseUnavailable`.
    """
    walk = {"walk_steps": WALK_STEPS, "videos_read": VIDEOS_READ}
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
