"""The session that each replica keeps open: when it ends, its leases need not be waited for.

A replica that is killed, or whose machine restarts, ends its connections, and the server sees that
at once. It holds an advisory lock on one of them, the one that listens, so others can tell that the
lock is free. A paused replica keeps its lock, and one that is cut off keeps it until the server
notices: then the lease decides, as it does behind a pooler in transaction mode, where no replica
has a session of its own.
"""

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Final

from asyncpg import Record

from refresher.domain.clocks import Clock
from refresher.domain.errors import StatementFailed
from refresher.domain.model import OpenId
from refresher.postgres.database import Pool, acquired
from refresher.postgres.failures import available
from refresher.postgres.naming import Connection
from refresher.postgres.parts import Refused, in_parts
from refresher.postgres.statements import Bound, statement

#: How often it is looked whether other sessions have ended.
LOOK_SECONDS: Final = 1.0
#: When the server or a pooler was restarted all sessions end, and their replicas come back, some
#: later than others. So whoever has a new session judges no other one for as long as a lease lasts,
#: and for so long at most.
SETTLING_SECONDS: Final = 15.0
#: The server's advisory locks have keys of 64 bits.
KEY_BITS: Final = 63

HOLD_SESSION: Final = statement("hold_session")
SAY_SESSION: Final = statement("say_session")
SESSIONS: Final = statement("sessions")
ENDED_SESSIONS: Final = statement("ended_sessions")
LEASES_OF: Final = statement("leases_of")
END_LEASES: Final = statement("end_leases")
FORGET_SESSION: Final = statement("forget_session")


class Sessions:
    """The session of this replica, and what it knows of those of others.

    Its methods raise `DatabaseUnavailable`.
    """

    def __init__(
        self, pool: Pool, replica: str, version: str, *, lease_seconds: float, clock: Clock
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._version = version
        self._settling_seconds = min(lease_seconds, SETTLING_SECONDS)
        self._clock = clock
        #: What our row names; None: nothing, or what was taken back.
        self._said: int | None = None
        #: Where that is held, and since when; None: it is not.
        self._connection: Connection | None = None
        self._held_since = inf
        #: The sessions that had ended at the last look.
        self._ended: Collection[int] = ()

    @asynccontextmanager
    async def held(self, connection: Connection) -> AsyncIterator[None]:
        """Meanwhile the connection is this replica's session: its end means that we are gone.

        It must lead to one server process, without a pooler that lends it to others. A role without
        the rights for it has no session.
        """
        session = secrets.randbits(KEY_BITS)
        await connection.execute(*HOLD_SESSION(session=session))
        try:
            await self._say(session)
        except StatementFailed:
            pass  # the heartbeat, which writes the same row, says so
        else:
            self._said, self._connection, self._held_since = session, connection, self._clock()
        try:
            yield
        finally:
            self._connection = None

    async def look(self) -> Mapping[int, str]:
        """The sessions of replicas that are gone, with their names.

        A session counts as ended when two looks in a row have found it so. While we have none
        ourselves we judge nobody, and take back what our own row still names.
        """
        before, self._ended = self._ended, ()
        connection = self._connection
        if connection is None:
            await self._take_back()
            return {}
        if self._clock() - self._held_since < self._settling_seconds:
            return {}
        # On our session, as the pool may lead to another server by now, where nobody holds a lock.
        # And the pool is for the work: it has no connection to spare while the database is away.
        with available():
            rows = await connection.fetch(*SESSIONS(replica=self._replica))
            replicas = {row["session"]: row["replica"] for row in rows}
            if replicas:
                rows = await connection.fetch(*ENDED_SESSIONS(sessions=list(replicas)))
                self._ended = {row["session"] for row in rows}
        return {session: replicas[session] for session in self._ended if session in before}

    async def end_leases(self, replica: str, session: int, refused: Refused) -> int | None:
        """End the leases of a replica that is gone; how many. None: another replica has done so.

        `refused` hears of accounts whose lease a trigger, a constraint or a lock kept from being
        ended: they wait for it.
        """
        if not await self._fetched(FORGET_SESSION(replica=replica, session=session)):
            return None
        rows = await self._fetched(LEASES_OF(replica=replica))
        leased = [OpenId(row["open_id"]) for row in rows]

        async def end(open_ids: Sequence[OpenId]) -> Sequence[Record]:
            return await self._fetched(END_LEASES(replica=replica, open_ids=open_ids))

        return len(await in_parts(leased, end, refused)) if leased else 0

    async def _take_back(self) -> None:
        """A replica that lives without its session must not count as gone."""
        if self._said is not None:
            await self._fetched(FORGET_SESSION(replica=self._replica, session=self._said))
            self._said = None

    async def _say(self, session: int) -> None:
        async with acquired(self._pool) as connection:
            await connection.execute(
                *SAY_SESSION(replica=self._replica, version=self._version, session=session)
            )

    async def _fetched(self, asked: Bound) -> Sequence[Record]:
        async with acquired(self._pool) as connection:
            rows: Sequence[Record] = await connection.fetch(*asked)
        return rows
