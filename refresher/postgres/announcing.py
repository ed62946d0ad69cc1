"""Announces to applications that listen which covers have changed, beside the write-backs.

At most once, and never at the expense of a write-back: what cannot be announced is not announced.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from refresher.domain.announced import payloads
from refresher.domain.model import OpenId, VideoId
from refresher.postgres.database import Pool, acquired
from refresher.postgres.failures import first_line
from refresher.postgres.statements import statement

#: At most so many changed covers wait to be announced; what comes beyond is not.
MOST_WAITING: Final = 100_000
#: For the statement. It may wait behind others who notify.
ANNOUNCE_SECONDS: Final = 5.0

QUEUE_FULL: Final = "PostgreSQL's notification queue is half full: who listens and does not read?"
TOO_MANY: Final = "more covers change than can be announced"

ANNOUNCE_COVERS: Final = statement("announce_covers")


class Announcer:
    """The covers that were stored and are still to be announced."""

    def __init__(self, pool: Pool, failed: Callable[[int, str], None]) -> None:
        """`failed` hears how many covers were not announced and why, once until it works again."""
        self._pool = pool
        self._failed = failed
        self._some = asyncio.Event()
        self._waiting: defaultdict[OpenId, list[VideoId]] = defaultdict(list)
        self._videos = 0
        self._said = False

    def note(self, open_id: OpenId, video_ids: Sequence[VideoId]) -> None:
        """These covers were stored. Returns at once."""
        if self._videos >= MOST_WAITING:
            self._fail(len(video_ids), TOO_MANY)
            return
        self._waiting[open_id] += video_ids
        self._videos += len(video_ids)
        self._some.set()

    async def run(self) -> None:
        """Announce, until cancelled. Raises nothing else."""
        while True:
            await self._some.wait()
            self._some.clear()
            waiting, videos = self._waiting, self._videos
            self._waiting, self._videos = defaultdict(list), 0
            texts = [text for each in waiting.items() for text in payloads(*each)]
            try:
                announced = await self._announce(texts)
            except Exception as error:  # noqa: BLE001 - it must not end the others
                self._fail(videos, first_line(error))
            else:
                if announced:
                    self._said = False
                else:
                    self._fail(videos, QUEUE_FULL)

    async def _announce(self, texts: Sequence[str]) -> bool:
        async with acquired(self._pool) as connection:
            sent = await connection.fetchval(
                *ANNOUNCE_COVERS(payloads=texts), timeout=ANNOUNCE_SECONDS
            )
        return bool(sent) or not texts

    def _fail(self, videos: int, reason: str) -> None:
        if not self._said:
            self._said = True
            self._failed(videos, reason)
