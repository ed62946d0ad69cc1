"""Opens the pool's connections, and those of commands that need no pool."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from refresher.domain.clocks import Clock
from refresher.domain.connection_string import (
    ConnectionString,
    ConnectionStringError,
    read_connection_string,
)
from refresher.domain.schema_name import USUAL_SCHEMA
from refresher.postgres.failures import ConnectionsUsedUpError, DatabaseRefusedError
from refresher.postgres.hosts import Hosts
from refresher.postgres.lookout import Lookout
from refresher.postgres.naming import Connection
from refresher.postgres.opening import Opener, terminated_on_error
from refresher.postgres.times import set_time_codec

#: When the server gives us no more connections, we do not ask for another one for so long.
FULL_SECONDS: Final = 30.0


class Connector:
    """Opens connections by a connection string, to the host that takes writes.

    Raises `DatabaseUnavailable` that names the place, and `DatabaseRefusedError` for a string that
    cannot be read.
    """

    def __init__(
        self,
        database_url: str,
        *,
        application_name: str,
        schema: str = USUAL_SCHEMA,
        clock: Clock = monotonic,
    ) -> None:
        wanted = _read(database_url)
        self._opener = Opener(wanted, schema=schema, application_name=application_name)
        self._hosts = Hosts(wanted, self._opener)
        self._clock = clock
        self._full_until = 0.0
        self._opening: set[asyncio.Future[None]] = set()
        self._beside: WeakSet[Connection] = WeakSet()
        self.lookout: Final = Lookout(self._hosts, clock)
        #: How many connections the pool has.
        self.pool_size: Callable[[], int] = int

    async def __call__(self, dsn: str | None = None, **options: Any) -> Connection:  # noqa: ARG002
        """Like `asyncpg.connect`, for a pool. `dsn` is ignored: we know better where to connect."""
        if self.pool_size() and self._clock() < self._full_until:
            raise ConnectionsUsedUpError("no more connections are to be had")
        try:
            with self._counted():
                connection = await self._hosts.connect(self._opener.fitting, options)
                with terminated_on_error(connection):
                    await set_time_codec(connection)
        except ConnectionsUsedUpError:
            self._full_until = self._clock() + FULL_SECONDS
            if not self.pool_size():
                self._give_up_beside()
            raise
        return connection

    @contextmanager
    def _counted(self) -> Iterator[None]:
        opening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening.add(opening)
        try:
            yield
        finally:
            self._opening.remove(opening)
            opening.set_result(None)

    async def opened(self, seconds: float) -> None:
        """Wait until every connection that is being opened now is open or has failed."""
        if self._opening:
            await asyncio.wait(set(self._opening), timeout=seconds)

    async def beside(self) -> Connection:
        """A connection beside the pool's, which gives it up when it has none and gets none."""
        connection = await self._hosts.connect(self._opener.fitting, {})
        self._beside.add(connection)
        return connection

    def _give_up_beside(self) -> None:
        for connection in list(self._beside):
            connection.terminate()

    async def plain(self, **options: Any) -> Connection:
        """A connection that every server and pooler understands. `options` are asyncpg's."""
        return await self._hosts.connect(self._opener.plain, options)


def ignored_parameters(database_url: str) -> tuple[str, ...]:
    """The parameters, of the string and of the environment, that have no effect on a connection.

    Raises `DatabaseRefusedError`.
    """
    return _read(database_url).ignored


def _read(database_url: str) -> ConnectionString:
    try:
        return read_connection_string(database_url, os.environ)
    except ConnectionStringError as error:
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {error}") from None
