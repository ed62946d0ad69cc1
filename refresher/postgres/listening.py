"""Hears at once of accounts that can be claimed, where the connection carries notifications.

A pooler in transaction mode takes LISTEN and never delivers, and a host that died says nothing. So
what is sent over the pool must come back over the connection that listens. Until it does, and
whenever it does not any more, the poll finds the accounts.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.database import Pool, acquired, opened_beside
from refresher.postgres.failures import available
from refresher.postgres.naming import Connection, named, schema_of
from refresher.postgres.role import connection_limit
from refresher.postgres.sessions import Sessions
from refresher.postgres.statements import statement

#: What the triggers notify.
WAKE_CHANNEL: Final = "refresher_wake"
#: How long a notification of ours may take to come back.
PROOF_SECONDS: Final = 2.0
#: How often it is looked whether one still does.
PROVE_AGAIN_SECONDS: Final = 30.0
#: After a connection was lost, or could not be had; twice as long each further time.
CONNECT_AGAIN_SECONDS: Final = 1.0
LONGEST_CONNECT_AGAIN_SECONDS: Final = 30.0
#: After notifications did not come: a pooler stays what it is for long.
LISTEN_AGAIN_SECONDS: Final = 300.0

LOST: Final = "the connection was lost"
TWO_PHASE: Final = "max_prepared_transactions is not 0: the triggers do not notify"
NOT_DELIVERED: Final = "notifications do not arrive: is a pooler in transaction mode in between?"

NOTIFY: Final = statement("notify")
TRIGGERS_NOTIFY: Final = statement("triggers_notify")
KEEP_IDLE_SESSION: Final = statement("keep_idle_session")


async def wake_all(pool: Pool) -> None:
    """Let every replica that listens look for accounts. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        await connection.execute(*NOTIFY(channel=named(WAKE_CHANNEL, schema_of(connection))))


class UnheardError(Exception):
    """Nothing is heard on this connection; the message says why."""


class Listener:
    """Listens for one replica."""

    def __init__(
        self,
        pool: Pool,
        sessions: Sessions,
        heard: Callable[[], None],
        say: Callable[[str | None], None],
    ) -> None:
        """The connection that listens becomes our session in `sessions`.

        `heard` is called when accounts may have become due, and after each new beginning.
        `say` is told each change once: None, notifications arrive; else why they do not.
        """
        self._pool = pool
        self._sessions = sessions
        self._heard = heard
        self._say_change = say
        #: Why nothing is heard; None: it is; "": nothing was said yet.
        self._reason: str | None = ""
        #: Since when nothing was heard: how often no connection was had.
        self._unconnected = 0

    async def run(self) -> None:
        """Listen, and again where that ends, until cancelled. Raises nothing else."""
        while True:
            seconds = LISTEN_AGAIN_SECONDS
            try:
                await self._listen()
            except DatabaseUnavailable:
                self._say(LOST)
                seconds = self._connect_again_seconds()
            except UnheardError as error:
                self._say(str(error))
            except Exception as error:  # noqa: BLE001 - the poll goes on, whatever a pooler answers
                self._say(f"LISTEN was refused: {type(error).__name__}")
            await asyncio.sleep(seconds)

    async def _listen(self) -> None:
        """Until nothing is heard any more. Raises `UnheardError` or `DatabaseUnavailable`."""
        if (limit := await connection_limit(self._pool)) is not None:
            raise UnheardError(f"the role or the database may have {limit} connections only")
        async with _beside(self._pool) as (connection, lost):
            proof = Proof(self._pool, f"refresher_{secrets.token_hex(8)}")
            await proof.begin(connection)
            await connection.execute(*KEEP_IDLE_SESSION())
            async with self._sessions.held(connection):
                self._unconnected = 0
                await self._begin(connection)
                while not await _set_within(lost, PROVE_AGAIN_SECONDS):
                    if not await proof.holds():
                        break
            raise DatabaseUnavailable(LOST)

    async def _begin(self, connection: Connection) -> None:
        if not await connection.fetchval(*TRIGGERS_NOTIFY()):
            self._say(TWO_PHASE)
            return
        channel = named(WAKE_CHANNEL, schema_of(connection))
        await connection.add_listener(channel, lambda *_: self._heard())
        self._say(None)
        self._heard()  # what came before

    def _connect_again_seconds(self) -> float:
        longest = CONNECT_AGAIN_SECONDS * (1 << min(self._unconnected, 8))
        self._unconnected += 1
        return min(longest, LONGEST_CONNECT_AGAIN_SECONDS)

    def _say(self, reason: str | None) -> None:
        if reason != self._reason:
            self._reason = reason
            self._say_change(reason)


class Proof:
    """Shows that a connection hears what is sent over the pool."""

    def __init__(self, pool: Pool, channel: str) -> None:
        """`channel`: nobody else's."""
        self._pool = pool
        self._channel = channel
        self._arrived = asyncio.Event()

    async def begin(self, connection: Connection) -> None:
        """The first time. Raises `UnheardError`, or `DatabaseUnavailable`."""
        await connection.add_listener(self._channel, self._note)
        try:
            await self.repeat()
        except UnheardError:
            # The pooler's server process should not go on listening. Should another process get
            # this, it does no harm: nobody notifies the channel any more.
            await connection.remove_listener(self._channel, self._note)
            raise

    async def repeat(self) -> None:
        """Raises as `begin`."""
        self._arrived.clear()
        async with acquired(self._pool) as connection:
            await connection.execute(*NOTIFY(channel=self._channel))
        if not await _set_within(self._arrived, PROOF_SECONDS):
            raise UnheardError(NOT_DELIVERED)

    async def holds(self) -> bool:
        """Whether it still hears. While the database is away nobody knows, and it may."""
        try:
            await self.repeat()
        except UnheardError:
            return False
        except DatabaseUnavailable:
            pass  # the flow says so
        return True

    def _note(self, *_: object) -> None:
        self._arrived.set()


@asynccontextmanager
async def _beside(pool: Pool) -> AsyncIterator[tuple[Connection, asyncio.Event]]:
    """A connection beside the pool's, and what is set when it is lost."""
    connection = await opened_beside(pool)
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        with available():
            yield connection, lost
    finally:
        connection.terminate()  # not politely: that could wait for a server that is gone


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
