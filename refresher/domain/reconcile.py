"""What an answer means for each video that was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from refresher.domain.due import DuePolicy, account_share, due_after_refresh, wait_after_miss
from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import read_cover
from refresher.domain.model import OpenId, Video, VideoId, Write

MOST_MISSES: Final = 10_000  # the column is a smallint


@dataclass(slots=True)
class Reconciled:
    """The writes of one answer and what became of each requested ID.

    `rejections` names the videos whose cover cannot be stored, with the reason.
    """

    writes: list[Write] = field(default_factory=list)
    refreshed: int = 0
    unchanged: int = 0
    missing: int = 0
    rejections: list[tuple[VideoId, str]] = field(default_factory=list)


def reconcile(
    policy: DuePolicy,
    open_id: OpenId,
    asked: Sequence[Video],
    answer: Mapping[str, object],
    now: datetime,
) -> Reconciled:
    """Hold an answer (video ID to cover URL) against the videos asked for.

    Videos nobody asked for are ignored. Nothing stored is emptied or shortened: a write carries a
    cover only when it outlives the stored one. No write at all where nothing changes.
    """
    share = account_share(open_id)
    result = Reconciled()
    for video in asked:
        if video.video_id not in answer:
            result.missing += 1
            _append(result, _write_after_miss(policy, video, now, present=False))
            continue
        try:
            cover = read_cover(answer[video.video_id], now, policy.fallback_ttl)
        except CoverUnusable as reason:
            result.rejections.append((video.video_id, str(reason)))
            _append(result, _write_after_miss(policy, video, now, present=True))
            continue
        if video.cover_expires_at is not None and cover.expires_at <= video.cover_expires_at:
            result.unchanged += 1
            _append(result, _write_after_miss(policy, video, now, present=True))
            continue
        result.refreshed += 1
        due_at = due_after_refresh(policy, share, now, cover.expires_at)
        result.writes.append(Write(video.video_id, due_at, cover))
    return result


def _append(result: Reconciled, write: Write | None) -> None:
    if write is not None:
        result.writes.append(write)


def _write_after_miss(
    policy: DuePolicy, video: Video, now: datetime, *, present: bool
) -> Write | None:
    """A miss only moves `due_at`. A top-up asks early: it proves a change, but counts no repeat."""
    missing = not present
    if video.missing == missing and video.due_at > now:
        return None
    misses = min(video.misses + 1, MOST_MISSES) if video.missing == missing else 1
    return Write(
        video.video_id,
        due_at=now + wait_after_miss(misses, present=present),
        misses=misses,
        missing=missing,
        gone=missing and misses >= policy.missing_limit,
    )
