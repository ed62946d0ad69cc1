"""Lists of accounts for many readers, without a statement for each."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from refresher.domain.clocks import Clock
from refresher.operations.shared import PATIENCE_SECONDS, Reading, Shared
from refresher.postgres.database import Pool
from refresher.postgres.details import Troubled, Wanted, list_troubled

#: Accounts on a page, and of an export at once.
PAGE: Final = 100
EXPORTED_AT_ONCE: Final = 5_000
#: How long after one statement the next one comes.
TURN_SECONDS: Final = 1.0
#: Readings that wait for their turn; a further one is refused.
WAITING: Final = 3
#: Lists that are kept for the next one who asks.
KEPT: Final = 32


class Busy(Exception):
    """Too many different lists are asked for at once."""


class Lists:
    """The accounts in trouble. All lists and exports together send one statement a second."""

    def __init__(self, pool: Pool, clock: Clock, reads: asyncio.Lock, *, managed: bool) -> None:
        """A statement is sent while it holds `reads`, which others that read may share.

        `managed`: we renew access tokens.
        """
        self._managed = managed
        self._pool = pool
        self._clock = clock
        self._reads = reads
        self._kept: OrderedDict[Wanted, Shared[Sequence[Troubled]]] = OrderedDict()
        self._turn = asyncio.Lock()
        self._next_at = float("-inf")
        self._waiting = 0
        self._exporting = False

    async def latest(self, wanted: Wanted) -> Reading[Sequence[Troubled]] | None:
        """One account more than a page if there are more; None if there is no answer so far.

        Raises `Busy`.
        """
        if wanted not in self._kept:
            if self._waiting >= WAITING:
                raise Busy
            self._kept[wanted] = Shared(
                partial(self._read, wanted, PAGE + 1),
                self._clock,
                first_patience_seconds=WAITING * TURN_SECONDS + PATIENCE_SECONDS,
            )
        self._kept.move_to_end(wanted)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return await self._kept[wanted].latest()

    async def export(self, wanted: Wanted) -> AsyncGenerator[Sequence[Troubled], None]:
        """All of them, part by part. Raises `Busy` while another export runs.

        Raises `DatabaseUnavailable`.
        """
        if self._exporting:
            raise Busy
        self._exporting = True
        try:
            rows: Sequence[Troubled] = []
            while not rows or len(rows) == EXPORTED_AT_ONCE:
                after = rows[-1].open_id if rows else wanted.after
                part = Wanted(wanted.state, wanted.reason, after)
                rows = await self._read(part, EXPORTED_AT_ONCE)
                yield rows
                if not rows:
                    return
        finally:
            self._exporting = False

    async def _read(self, wanted: Wanted, page: int) -> Sequence[Troubled]:
        async with self._turns(), self._reads:
            return await list_troubled(self._pool, wanted, page, managed=self._managed)

    @asynccontextmanager
    async def _turns(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(self._next_at - self._clock())
                self._next_at = self._clock() + TURN_SECONDS
                yield
        finally:
            self._waiting -= 1
