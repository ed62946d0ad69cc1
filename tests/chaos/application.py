"""The application: it adds and deletes rows, and its users authorize the app again."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from refresher.emulator.options import DEFAULT_SCOPE
from tests.chaos.plan import ACCOUNTS
from tests.chaos.stage import Stage
from tests.chaos.world import ACCESS_TOKEN_TTL_SECONDS, new_token

#: How often an operator looks for parked accounts, and how long a user takes to act.
REAUTHORIZE_SECONDS = 2.0

INSERT_ACCOUNT = """
INSERT INTO refresher.accounts
    (open_id, access_token, access_token_expires_at, refresh_token, refresh_token_expires_at, scope)
VALUES ($1, $2, $3, $4, $5, $6)
"""
UPDATE_ACCOUNT = """
UPDATE refresher.accounts
SET access_token = $2, access_token_expires_at = $3, refresh_token = $4,
    refresh_token_expires_at = $5, scope = $6
WHERE open_id = $1
"""
#: All columns that an ORM would map: those that docs/tables.md names.
READ_VIDEOS = """
SELECT video_id, cover_image_url, cover_expires_at, refreshed_at, missing_since, gone_at
FROM refresher.videos
WHERE open_id = $1
"""
SAVE_VIDEOS = """
UPDATE refresher.videos AS v
SET cover_image_url = s.cover_image_url, cover_expires_at = s.cover_expires_at,
    refreshed_at = s.refreshed_at, missing_since = s.missing_since, gone_at = s.gone_at
FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::timestamptz[])
     AS s (video_id, cover_image_url, cover_expires_at, refreshed_at, missing_since, gone_at)
WHERE v.open_id = $1 AND v.video_id = s.video_id
"""
EMPTY_VIDEOS = """
UPDATE refresher.videos SET cover_image_url = NULL WHERE open_id = $1 AND video_id = ANY($2::text[])
"""
INSERT_VIDEOS = """
INSERT INTO refresher.videos (open_id, video_id)
SELECT open_id, unnest($2::text[]) FROM refresher.accounts WHERE open_id = $1
ON CONFLICT DO NOTHING
"""
DELETE_VIDEOS = "DELETE FROM refresher.videos WHERE open_id = $1 AND video_id = ANY($2::text[])"


class Application:
    """It remembers in `videos`, by account, what it has stored."""

    def __init__(self, world: Stage, seed: int) -> None:
        self.world = world
        self.videos: dict[str, list[str]] = {}
        self.chance = random.Random(f"application {seed}")
        self._accounts = itertools.count()
        self._ids = itertools.count(7_000_000_000_000_000_000)
        self._authorizing: set[str] = set()
        #: The tokens that it stored last. The daemon may have stored newer ones.
        self._stored: dict[str, tuple[object, ...]] = {}

    @property
    def accounts(self) -> list[str]:
        return list(self.videos)

    def account(self, number: int) -> str:
        """The account that has this number in the plan."""
        return self.accounts[number % len(self.videos)]

    def choose(self, open_id: str, number: int, choice: float) -> list[str]:
        """`number` neighbouring videos of it. `choice`, 0 to 1, says where they begin."""
        videos = self.videos[open_id]
        first = int(choice * len(videos))
        return videos[first : first + number]

    async def populate(self) -> None:
        for videos in ACCOUNTS:
            await self.add_account(videos)

    async def add_account(self, videos: int) -> None:
        open_id = f"account-{next(self._accounts)}"
        tokens = self._stored[open_id] = self.authorized(open_id)
        self.videos[open_id] = []
        await self.world.transact((INSERT_ACCOUNT, open_id, *tokens))
        await self.add_videos(open_id, videos)

    async def delete_account(self, open_id: str) -> None:
        """Delete its rows. TikTok still has it."""
        del self.videos[open_id]
        await self.world.transact(("DELETE FROM refresher.accounts WHERE open_id = $1", open_id))

    async def authorize_again(self, open_id: str) -> None:
        """The user authorizes the app again: old tokens die, and the new ones are stored."""
        if open_id in self._authorizing:
            return
        self._authorizing.add(open_id)
        try:
            tokens = self._stored[open_id] = self.authorized(open_id)
            await self.world.transact((UPDATE_ACCOUNT, open_id, *tokens))
        finally:
            self._authorizing.discard(open_id)

    async def save_old_tokens(self, open_id: str) -> None:
        """Store the old pair again, as a job does that copies stale rows."""
        if open_id not in self._authorizing:
            await self.world.transact((UPDATE_ACCOUNT, open_id, *self._stored[open_id]))

    async def read_videos(self, open_id: str) -> Sequence[Sequence[object]]:
        """All its rows, as an ORM reads them. Empty while the database is away."""
        return [tuple(row) for row in await self.world.fetch(READ_VIDEOS, open_id) or ()]

    async def save_videos(self, open_id: str, rows: Sequence[Sequence[object]]) -> None:
        """Store all columns as they were read."""
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            await self.world.transact((SAVE_VIDEOS, open_id, *columns))

    async def empty_videos(self, open_id: str, ids: Sequence[str]) -> None:
        await self.world.transact((EMPTY_VIDEOS, open_id, list(ids)))

    async def add_videos(self, open_id: str, number: int, *, exist: bool = True) -> None:
        await self.insert(open_id, self.new_videos(open_id, number, exist=exist))

    def new_videos(self, open_id: str, number: int, *, exist: bool = True) -> list[str]:
        """IDs of videos that only TikTok has, if they `exist` there."""
        ids = [str(next(self._ids)) for _ in range(number)]
        self.world.owners.update(dict.fromkeys(ids, open_id))
        for video_id in ids if exist else ():
            self.world.emulator.add_video(open_id, video_id)
        return ids

    async def insert(self, open_id: str, ids: Sequence[str]) -> None:
        if open_id in self.videos:
            self.videos[open_id] += [i for i in ids if i not in self.videos[open_id]]
            await self.world.transact((INSERT_VIDEOS, open_id, list(ids)))

    async def delete(self, open_id: str, ids: Sequence[str]) -> None:
        if open_id not in self.videos:
            return
        self.videos[open_id] = [i for i in self.videos[open_id] if i not in ids]
        await self.world.transact((DELETE_VIDEOS, open_id, list(ids)))

    async def reauthorize_parked(self, stop: asyncio.Event) -> None:
        """Until `stop`, let the users of parked accounts authorize again."""
        while not stop.is_set():
            await asyncio.sleep(self.chance.uniform(0.5, 1) * REAUTHORIZE_SECONDS)
            for open_id in await self._said_to_be_parked():
                if open_id in self.videos and not stop.is_set():
                    await self.authorize_again(open_id)

    async def _said_to_be_parked(self) -> list[str]:
        rows = await self.world.fetch(
            "SELECT open_id FROM refresher.accounts"
            " WHERE state LIKE 'needs_%' AND state_reason <> '' ORDER BY open_id"
        )
        return [row["open_id"] for row in rows or ()]

    def authorized(self, open_id: str) -> tuple[str, datetime, str, datetime, str]:
        access_token, refresh_token = new_token("act"), new_token("rft")
        expires_at = time.time() + ACCESS_TOKEN_TTL_SECONDS
        self.world.journal.note("authorized", open_id)
        self.world.emulator.add_account(
            open_id,
            access_token,
            access_token_expires_at=expires_at,
            refresh_token=refresh_token,
        )
        now = datetime.now(UTC)
        return (
            access_token,
            datetime.fromtimestamp(expires_at, UTC),
            refresh_token,
            now + timedelta(days=300),
            DEFAULT_SCOPE,
        )
