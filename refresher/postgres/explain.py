"""Reads what there is to know of an account or a video, without a lock."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final, TypeVar

from asyncpg import Record

from refresher.domain.facts import AccountFacts, AppFacts, Facts, VideoFacts
from refresher.domain.model import OpenId
from refresher.domain.pacing import Pace
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

#: As the statement has it.
PARTS: Final = 4

EXPLAIN: Final = statement("explain")
ACCOUNTS_OF_VIDEO: Final = statement("accounts_of_video")

T = TypeVar("T", AccountFacts, AppFacts, VideoFacts)


async def accounts_of_video(pool: Pool, video_id: str) -> Sequence[OpenId]:
    """The accounts under which a video is stored. Raises `DatabaseUnavailable`, as all here.

    Each account is looked into: over several connections, as most of the time is spent waiting for
    pages that nobody has read lately.
    """
    parts = await asyncio.gather(*(_of_part(pool, video_id, part) for part in range(PARTS)))
    return sorted(OpenId(row["open_id"]) for rows in parts for row in rows)


async def _of_part(pool: Pool, video_id: str, part: int) -> Sequence[Record]:
    async with acquired(pool) as connection:
        asked = ACCOUNTS_OF_VIDEO(video_id=video_id, part=part)
        rows: Sequence[Record] = await connection.fetch(*asked, timeout=REPORT_SECONDS)
    return rows


async def read_facts(
    pool: Pool,
    open_ids: Sequence[str],
    video_id: str | None,
    *,
    pace: Pace,
    managed: bool,
    poll_seconds: float,
    credentials: str | None = None,
) -> Sequence[Facts]:
    """The facts of these accounts, and of this video of each; without those that are unknown.

    `managed`: we renew access tokens, with the app credentials of this fingerprint.
    """
    asked = parameters(open_ids, video_id, pace=pace, managed=managed)
    async with acquired(pool) as connection:
        rows = await connection.fetch(
            *EXPLAIN(**asked, credentials=credentials if managed else None),
            timeout=REPORT_SECONDS,
        )
    return [_facts(row, managed, poll_seconds) for row in rows]


def parameters(
    open_ids: Sequence[str], video_id: str | None, *, pace: Pace, managed: bool
) -> Mapping[str, object]:
    """What `EXPLAIN` takes of a claim, which skips nobody."""
    return {
        "open_ids": list(open_ids),
        "video_id": video_id,
        "managed": managed,
        "skipped": [],
        "step": timedelta(seconds=pace.step_seconds),
        "app_step": timedelta(seconds=pace.app_step_seconds),
        "horizon": timedelta(seconds=pace.horizon_seconds),
        "app_horizon": timedelta(seconds=pace.app_horizon_seconds),
    }


def _facts(row: Record, managed: bool, poll_seconds: float) -> Facts:  # noqa: FBT001 - as the setting
    return Facts(
        now=row["now"],
        account=_part(AccountFacts, row),
        app=_part(AppFacts, row, "app_"),
        video=_part(VideoFacts, row, "video_") if row["video_id"] else None,
        managed=managed,
        poll_seconds=poll_seconds,
    )


def _part(kind: type[T], row: Record, prefix: str = "") -> T:
    values: dict[str, Any] = {field.name: row[prefix + field.name] for field in fields(kind)}
    return kind(**values)
