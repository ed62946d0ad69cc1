"""Videos that an operator wants to be asked for again."""

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import groupby
from typing import Final

from asyncpg import Record

from refresher.domain.model import OpenId, VideoId
from refresher.domain.retried import Retried
from refresher.postgres.database import Pool, acquired
from refresher.postgres.explain import accounts_of_video
from refresher.postgres.listing import Row, list_videos
from refresher.postgres.statements import statement

#: Rows in a transaction.
RETRIED_AT_ONCE: Final = 1_000

RETRY_VIDEOS: Final = statement("retry_videos")


async def find_videos(
    pool: Pool, video_ids: Collection[str], account: OpenId | None
) -> Sequence[Row]:
    """The videos with these IDs: of the account, else of all accounts that have one of them."""
    if account is not None:
        accounts = {account}
    else:
        accounts = {
            open_id for video_id in video_ids for open_id in await accounts_of_video(pool, video_id)
        }
    return [
        row
        for open_id in sorted(accounts)
        async for page in list_videos(pool, account=open_id)
        for row in page
        if row["video_id"] in video_ids
    ]


async def retry_all(pool: Pool, pages: AsyncIterator[Sequence[Row]], *, managed: bool) -> Retried:
    """Make the listed videos due now, and no longer gone; `managed`: we renew access tokens."""
    retried = Retried()
    async for page in pages:
        for open_id, rows in groupby(page, key=lambda row: row["open_id"]):
            video_ids = [row["video_id"] for row in rows]
            for start in range(0, len(video_ids), RETRIED_AT_ONCE):
                row = await _retry(pool, open_id, video_ids[start : start + RETRIED_AT_ONCE])
                if row:
                    retried = retried.plus(
                        row["videos"],
                        inactive=row["inactive"],
                        token_dead=row["token_dead"],
                        renewable=row["renewable"],
                        managed=managed,
                    )
    return retried


async def _retry(pool: Pool, open_id: OpenId, video_ids: Sequence[VideoId]) -> Record | None:
    """Ask for some videos of an account again, as for new ones; None if none is still there."""
    async with acquired(pool) as connection:
        return await connection.fetchrow(*RETRY_VIDEOS(open_id=open_id, video_ids=video_ids))
