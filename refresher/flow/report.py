"""What the log says about an account: how its work ended, and what stands in its way."""

from collections.abc import Sequence
from math import inf
from typing import Final

from refresher.domain.answers import Affects, Failure, Reaction
from refresher.domain.model import ChunkWrite, Holder, Park, Release, Released
from refresher.events import (
    ACCOUNT_ABANDONED,
    ACCOUNT_ISOLATED,
    ACCOUNT_PARKED,
    ACCOUNT_RECOVERED,
    ACCOUNT_REFRESHED,
    ACCOUNT_REFUSED,
    ACCOUNT_THROTTLED,
    CHUNK_BLOCKED,
    CHUNK_FREED,
    RELEASE_BLOCKED,
    RELEASE_FREED,
)
from refresher.flow.work import Work
from refresher.logs import emit

#: Which failure of an account the log tells of: a refused credential, else a day's quota, else 429.
TOLD_LATER: Final = {Reaction.WAIT: 1, Reaction.PAUSE: 2, Reaction.RENEW: 3}


def report(work: Work, release: Release, released: Released | None) -> None:
    """Say how the work of an account ended; `released` is None where its lease runs out."""
    if release.park and released and released.parked:
        _report_park(work, release.park)
    elif release.pause_seconds:
        _report_pause(work, release)
    if released:
        _report_isolation(work, release, released)
    elif not work.abandon_quietly:
        emit(ACCOUNT_ABANDONED, open_id=work.claim.open_id)
    if work.claim.videos and (work.tally.refreshed or not release.park):
        _report_videos(work, released)


def _report_park(work: Work, park: Park) -> None:
    failure = _telling_failure(work)
    emit(
        ACCOUNT_PARKED,
        open_id=work.claim.open_id,
        state=park.state,
        reason=park.reason,
        log_id=failure.error.log_id if failure else "",
    )


def _report_pause(work: Work, release: Release) -> None:
    failure = _telling_failure(work)
    emit(
        ACCOUNT_THROTTLED,
        open_id=work.claim.open_id,
        pause_seconds=round(release.pause_seconds, 1),
        code=failure.error.code if failure else "",
        quota="day" if release.quota_spent else "minute",
        log_id=failure.error.log_id if failure else "",
    )


def _report_videos(work: Work, released: Released | None) -> None:
    emit(
        ACCOUNT_REFRESHED,
        open_id=work.claim.open_id,
        requests=work.tally.requests,
        videos=work.tally.ids,
        refreshed=work.tally.refreshed,
        unchanged=work.tally.unchanged,
        missing=work.tally.missing,
        rejected=work.tally.rejected,
        postponed=work.postponed,
        wake_in_seconds=_wake_in_seconds(released),
        took_seconds=round(work.clock() - work.started, 3),
    )


def _report_isolation(work: Work, release: Release, released: Released) -> None:
    """Once when it begins, and once when it ends without a park."""
    claim, since = work.claim, work.claim.isolated_since
    if since is None and release.isolated_reason and released.isolated:
        failed = [failure for failure in work.failures if failure.reaction is Reaction.RETRY]
        error = failed[-1].error
        emit(
            ACCOUNT_ISOLATED,
            open_id=claim.open_id,
            code=error.code,
            http_status=error.status,
            log_id=error.log_id,
            failures=release.failures,
            retry_in_seconds=round(release.retry_seconds, 1),
        )
    elif since is not None and not release.isolated_reason and not released.parked:
        isolated_seconds = round((work.now() - since).total_seconds(), 1)
        emit(ACCOUNT_RECOVERED, open_id=claim.open_id, isolated_seconds=isolated_seconds)


def report_blocked_chunks(
    open_id: str, chunks: Sequence[ChunkWrite], holder: Holder | None, seconds: float
) -> None:
    emit(
        CHUNK_BLOCKED,
        open_id=open_id,
        videos=sum(chunk.videos for chunk in chunks),
        holder_pid=holder and holder.pid,
        holder_application=holder and holder.application_name,
        holder_since=_since(holder),
        waited_seconds=seconds,
    )


def report_freed_chunks(open_id: str, seconds: float) -> None:
    emit(CHUNK_FREED, open_id=open_id, waited_seconds=seconds)


def report_blocked_release(
    open_id: str, _: Sequence[Release], holder: Holder | None, seconds: float
) -> None:
    emit(
        RELEASE_BLOCKED,
        open_id=open_id,
        holder_pid=holder and holder.pid,
        holder_application=holder and holder.application_name,
        holder_since=_since(holder),
        waited_seconds=seconds,
    )


def report_freed_release(open_id: str, seconds: float) -> None:
    emit(RELEASE_FREED, open_id=open_id, waited_seconds=seconds)


def report_refused_extension(open_id: str, error: Exception) -> None:
    emit(
        ACCOUNT_REFUSED,
        open_id=open_id,
        at="renewal",
        reason=str(error).partition("\n")[0],
        retry_in_seconds=None,
    )


def report_refused_pair(open_id: str, error: Exception) -> None:
    emit(
        ACCOUNT_REFUSED,
        open_id=open_id,
        at="token",
        reason=str(error).partition("\n")[0],
        retry_in_seconds=None,
    )


def report_stuck_release(open_id: str, seconds: float) -> None:
    emit(
        ACCOUNT_REFUSED,
        open_id=open_id,
        at="release",
        reason="its row is locked, or a trigger suppresses the UPDATE",
        retry_in_seconds=round(seconds, 1),
    )


def _since(holder: Holder | None) -> str | None:
    return holder.since.isoformat() if holder and holder.since else None


def _telling_failure(work: Work) -> Failure | None:
    telling = [failure for failure in work.failures if failure.meaning.affects is Affects.ACCOUNT]
    return min(telling, key=lambda failure: TOLD_LATER.get(failure.reaction, 0), default=None)


def _wake_in_seconds(released: Released | None) -> float | None:
    """None: not known, parked, or nothing left to ask for."""
    if released is None or released.parked or released.wake_in_seconds == inf:
        return None
    return round(max(0.0, released.wake_in_seconds), 1)
