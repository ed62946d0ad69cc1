"""Results on their way into the database."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, Protocol

from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed, is_away
from refresher.domain.model import ChunkWrite, Holder, OpenId, Sample, VideoId
from refresher.domain.reconcile import Reconciled
from refresher.events import CHUNK_UNSAVED, VIDEO_REJECTED
from refresher.flow.batcher import LINGER_SECONDS, Batcher
from refresher.flow.flushes import checking, outlasting
from refresher.flow.lock_waits import SAID_SECONDS, LockWaits, Turns
from refresher.flow.report import report_blocked_chunks, report_freed_chunks
from refresher.flow.stop import Stop
from refresher.flow.under_way import UnderWay
from refresher.flow.work import Work
from refresher.logs import emit

WRITE_BACK_ROWS: Final = 2000
#: A write-back that takes longer holds up the sending: answers could not be stored.
SLOW_WRITE_BACK_SECONDS: Final = 3.0


class WriteBack(Protocol):
    """Stores results. Raises `DatabaseUnavailable`."""

    async def write(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]: ...
    async def write_part(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]: ...
    async def write_alone(
        self, chunks: Sequence[ChunkWrite], lock_seconds: float, name: str
    ) -> Sequence[int]: ...
    async def holder(self, name: str) -> Holder | None: ...


#: Hears of covers that were stored: the account, and its videos.
Announce = Callable[[OpenId, Sequence[VideoId]], None]


def announce_nothing(_open_id: OpenId, _video_ids: Sequence[VideoId]) -> None:
    """Where nobody asked for it."""


class Results:
    """Writes back what was answered, many chunks at once."""

    def __init__(
        self,
        write_back: WriteBack,
        turns: Turns,
        *,
        under_way: UnderWay,
        hosts: CoverHosts,
        stop: Stop,
        wake: asyncio.Event,
        announce: Announce,
    ) -> None:
        #: Chunks that were answered and are not stored yet.
        self.unsaved = 0
        self._under_way = under_way
        self._hosts = hosts
        self._wake = wake
        self._announce = announce
        self._outage = outage = turns.outage
        give_up = stop.given_up
        self._write_back = Batcher(
            outlasting(outage, give_up, write_back.write),
            flush_part=outlasting(outage, give_up, write_back.write_part),
            check=checking(outage, give_up, write_back.write),
            clock=turns.clock,
            size=WRITE_BACK_ROWS,
            linger_seconds=LINGER_SECONDS,
            weigh=lambda chunk: chunk.videos,
            at_once=2,
        )
        self._lock_waits = LockWaits(
            write_back.write_alone,
            turns,
            blocked=report_blocked_chunks,
            freed=report_freed_chunks,
        )

    async def run(self) -> None:
        """Write batch after batch, until cancelled."""
        await self._write_back.run()

    @property
    def lock_waits(self) -> Collection[asyncio.Task[None]]:
        """What waits for locks."""
        return self._lock_waits.tasks

    @property
    def can_store(self) -> bool:
        """What is fetched now can be stored soon: the database is there, and takes write-backs."""
        return not (self._outage.lasts or self.stalls())

    def stalls(self) -> bool:
        """A write-back hangs: what is fetched now could not be stored."""
        return self._write_back.busy_seconds() > SLOW_WRITE_BACK_SECONDS

    async def store(self, work: Work, reconciled: Reconciled) -> None:
        """Write back what became of a chunk. `work` learns what could not be stored.

        Raises what refuses the rows.
        """
        claim = work.claim
        for video_id, reason in reconciled.rejections:
            emit(VIDEO_REJECTED, open_id=claim.open_id, video_id=video_id, reason=reason)
        work.tally.count(reconciled)
        if not reconciled.writes:
            return
        write = ChunkWrite(claim.open_id, claim.lease_epoch, reconciled.writes, claim.ctids)
        self.unsaved += 1
        try:
            written = await self._write(work, write)
        except StatementFailed:
            raise  # the rows are the reason
        except DatabaseUnavailable:
            written = 0  # the grace time is over
        finally:
            self.unsaved -= 1
        new = [write for write in reconciled.writes if write.urls]
        for each in new if written else ():
            self._announce(claim.open_id, each.video_ids)
        if unwritten := write.videos - written:
            work.unsaved = True
            work.tally.refreshed = max(0, work.tally.refreshed - unwritten)
            emit(CHUNK_UNSAVED, open_id=claim.open_id, videos=unwritten)
        else:
            # One of each: those of an answer hardly ever come from different owners.
            self._hosts.note(write.urls[0] for write in new)
            work.samples += [Sample(w.video_ids[0], len(w.video_ids)) for w in new]

    async def _write(self, work: Work, write: ChunkWrite) -> int:
        """How many rows were written. What waits for a lock waits by itself."""
        if not self._lock_waits.has(write.open_id):
            with suppress(DatabaseBusy):
                return await self._write_back.submit(write)
        waits_long = asyncio.get_running_loop().call_later(SAID_SECONDS, self._set_aside, work)
        try:
            with self._under_way.lock_wait():
                return await self._lock_waits.submit(write)
        except Exception as error:
            if is_away(error):
                raise
            # The batcher finds out whether the rows are the reason.
            return await self._write_back.submit(write)
        finally:
            waits_long.cancel()

    def _set_aside(self, work: Work) -> None:
        """Ask for no more of what cannot be stored: others go first."""
        work.waits()
        work.halt.set()
        work.load.drop()
        self._wake.set()
