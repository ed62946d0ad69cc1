"""Of several hosts, finds the one that takes writes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import asyncpg

from refresher.domain.connection_string import ConnectionString, Host
from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.connect_errors import errors_named, kind_of_all
from refresher.postgres.failures import ReadOnlyError, StandbyError
from refresher.postgres.naming import Connection
from refresher.postgres.opening import Opener, terminated_on_error
from refresher.postgres.staggered import first_of
from refresher.postgres.statements import statement

#: When a host has been silent for so long, the next one is asked, too. A pooler whose server is
#: dead still lets us in, and says nothing more.
SILENT_SECONDS: Final = 0.5

SERVER: Final = statement("server")
LASTING_READ_ONLY: Final = statement("lasting_read_only")
READ_ONLY: Final = (
    "takes no writes: default_transaction_read_only is on for the role, the database or the server"
)

#: Opens a connection to a host: `Opener.fitting` or `Opener.plain`.
Open = Callable[[Mapping[str, Any], Host], Awaitable[Connection]]


class Hosts:
    """The hosts of a connection string, and which of our connections leads to which."""

    def __init__(self, wanted: ConnectionString, opener: Opener) -> None:
        self._wanted = wanted
        self._opener = opener
        # The one that answered last comes first.
        self._hosts = wanted.hosts
        usual = "read-write" if len(self._hosts) > 1 else "any"
        self._target = wanted.parameters.get("target_session_attrs", usual)
        self._host_of: WeakKeyDictionary[Connection, Host] = WeakKeyDictionary()
        # When the server behind a host was started: two hosts of the same time are one server.
        self._server_of: dict[Host, float] = {}

    @property
    def has_choice(self) -> bool:
        """Whether there are several hosts, and we need the one that takes writes."""
        return len(set(self._hosts)) > 1 and self._target != "any"

    async def connect(self, open_at: Open, options: Mapping[str, Any]) -> Connection:
        """A connection to the first host that answers and takes writes.

        It begins with the host that answered last. Raises `DatabaseUnavailable`, which names every
        host that was tried.
        """
        try:
            return await self._first(self._hosts, open_at, options)
        except* DatabaseUnavailable as errors:
            failures = [each for each in errors.exceptions if isinstance(each, DatabaseUnavailable)]
        kind = kind_of_all({type(failure) for failure in failures})
        raise kind("; ".join(map(str, failures))) from failures[-1]

    async def connect_to(self, host: Host) -> Connection:
        """A plain connection to this host. Raises `DatabaseUnavailable`."""
        return await self._try(self._opener.plain, {}, host)

    async def connect_to_another(self, host: Host) -> Connection | None:
        """A plain connection to any other host that takes writes; None if there is none."""
        others = [other for other in self._hosts if other != host]
        connection: Connection | None = None
        try:
            connection = await self._first(others, self._opener.plain, {})
        except* DatabaseUnavailable:
            pass
        return connection

    def host_of(self, connection: Connection) -> Host | None:
        """Where a connection of ours leads to."""
        return self._host_of.get(connection)

    def server_at(self, host: Host) -> float | None:
        """When the server there was started that last took writes: this identifies a server."""
        return self._server_of.get(host)

    def connections_to(self, host: Host) -> Collection[Connection]:
        """All connections that lead to this host, those in use, too."""
        return [connection for connection, at in self._host_of.items() if at == host]

    async def _first(
        self, hosts: Sequence[Host], open_at: Open, options: Mapping[str, Any]
    ) -> Connection:
        return await first_of(
            [partial(self._try, open_at, options, host) for host in hosts],
            after_seconds=SILENT_SECONDS,
            discard=asyncpg.Connection.terminate,
        )

    async def _try(self, open_at: Open, options: Mapping[str, Any], host: Host) -> Connection:
        with errors_named(self._opener.place(host), self._wanted):
            async with asyncio.timeout(self._opener.attempt_seconds()):
                connection = await open_at(options, host)
                with terminated_on_error(connection):
                    await self._check_writes(connection, host)
        self._host_of[connection] = host
        self._hosts = (host, *(other for other in self._hosts if other != host))
        return connection

    async def _check_writes(self, connection: Connection, host: Host) -> None:
        """Of several hosts we want the one that takes writes, unless the URL says otherwise."""
        if self._target == "any":
            return
        (server,) = await connection.fetch(*SERVER())
        if server["is_standby"]:
            raise StandbyError("is a standby")
        if server["is_read_only"] and self._target == "read-write":
            lasts = await connection.fetchval(*LASTING_READ_ONLY())
            raise (ReadOnlyError if lasts else DatabaseUnavailable)(READ_ONLY)
        self._server_of[host] = server["started_at"]
