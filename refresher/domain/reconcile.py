"""What an answer means for each video that was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from refresher.domain.cover_hosts import host_of
from refresher.domain.due import (
    DuePolicy,
    account_spread,
    due_after_refresh,
    stable_fraction,
    wait_after_miss,
    wait_after_refusal,
)
from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import all_url_characters, read_cover, usual_expiry
from refresher.domain.model import OpenId, Video, VideoId, Write

#: As long as all covers live as long as they say.
NONE_GROWN: Final[Mapping[str, float]] = MappingProxyType({})
MOST_MISSES: Final = 10_000  # the column is a smallint


@dataclass(slots=True)
class Reconciled:
    """The writes of one answer, and what became of each requested ID."""

    writes: list[Write] = field(default_factory=list)
    refreshed: int = 0
    unchanged: int = 0
    missing: int = 0
    #: Videos whose cover cannot be stored, with the reason.
    rejections: list[tuple[VideoId, str]] = field(default_factory=list)


def reconcile(
    policy: DuePolicy,
    open_id: OpenId,
    asked: Sequence[Video],
    answer: Mapping[str, object],
    now: datetime,
    *,
    grown: Mapping[str, float] = NONE_GROWN,
) -> Reconciled:
    """Compare an answer (video ID to cover URL) with the videos asked for.

    Videos that nobody asked for are ignored. A write holds a cover only if it lives longer than the
    stored one, so nothing stored is emptied or shortened. Where nothing changes there is no write.
    `grown`: by how many seconds the lead of a host has grown.
    """
    spread = account_spread(open_id)
    result = Reconciled()
    answered_at, fallback_seconds = now.timestamp(), policy.fallback_ttl.total_seconds()
    # Covers of an answer mostly die in the same second.
    alike: dict[float | tuple[float, float], Write] = {}
    usual = answer if all_url_characters(answer) else {}
    for video in asked:
        url = usual.get(video.video_id)
        expires_at = usual_expiry(url, answered_at) if url else None
        if not url or not expires_at or expires_at <= (video.cover_expires_at or 0.0):
            cover = _cover(video, answer, answered_at, fallback_seconds, result)
            if cover is None:
                missed = _write_after_miss(policy, video, now, present=video.video_id in answer)
                result.writes += [missed] if missed else []
                continue
            url, expires_at = cover
        result.refreshed += 1
        more = grown.get(host_of(url), 0.0) if grown else 0.0
        key = (expires_at, more) if more else expires_at
        write = alike.get(key)
        if write is None:
            moment = datetime.fromtimestamp(expires_at, UTC)
            due_at = due_after_refresh(policy, spread, now, moment, more)
            write = alike[key] = Write([], due_at, moment)
            result.writes.append(write)
        write.video_ids.append(video.video_id)
        write.urls.append(url)
    return result


def refused_alone(asked: Sequence[Video], code: str, now: datetime) -> Reconciled:
    """What to write for videos that were each refused in a request of their own.

    The reason is stored, so each is asked for alone from now on, ever more rarely.
    """
    result = Reconciled()
    for video in asked:
        result.rejections.append((video.video_id, code))
        misses = min(video.misses + 1, MOST_MISSES)
        due_at = now + wait_after_refusal(misses)
        result.writes.append(Write([video.video_id], due_at, misses=misses, refusal=code))
    return result


def put_aside(policy: DuePolicy, asked: Sequence[Video], reason: str, now: datetime) -> Reconciled:
    """What to write for a chunk in which everything is refused, even each video by itself.

    Each due video waits as after a rejected cover, but for a time of its own, so that it is in a
    chunk with other videos next time. Those that spoil chunks are asked for ever more rarely.
    """
    result = Reconciled()
    for video in asked:
        result.rejections.append((video.video_id, reason))
        write = _write_after_miss(policy, video, now, present=True)
        if write:
            fraction = stable_fraction(f"{video.video_id} {write.misses}")
            write.due_at = now + (write.due_at - now) * (1 + fraction) / 2
            result.writes.append(write)
    return result


def _cover(
    video: Video,
    answer: Mapping[str, object],
    answered_at: float,
    fallback_seconds: float,
    result: Reconciled,
) -> tuple[str, float] | None:
    """The cover to store and when it dies. None if there is none: `result` counts the reason."""
    if video.video_id not in answer:
        result.missing += 1
        return None
    try:
        url, expires_at = read_cover(answer[video.video_id], answered_at, fallback_seconds)
    except CoverUnusable as reason:
        result.rejections.append((video.video_id, str(reason)))
        return None
    if video.cover_expires_at is not None and expires_at <= video.cover_expires_at:
        result.unchanged += 1
        return None
    return url, expires_at


def _write_after_miss(
    policy: DuePolicy, video: Video, now: datetime, *, present: bool
) -> Write | None:
    """The write for a miss, which moves `due_at`; None for a top-up that shows nothing new.

    A top-up is asked for early, so another miss of the same kind does not count.
    """
    missing = not present
    if video.missing == missing and not video.due:
        return None
    misses = min(video.misses + 1, MOST_MISSES) if video.missing == missing else 1
    return Write(
        [video.video_id],
        due_at=now + wait_after_miss(misses, present=present),
        misses=misses,
        missing=missing,
        gone=missing and misses >= policy.missing_limit,
    )
