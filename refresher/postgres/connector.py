"""Opens connections, each as the server or the pooler at the other end allows."""

import asyncio
import os
import pwd
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from refresher.domain.connection_string import (
    EXPECTED_URL,
    ConnectionString,
    ConnectionStringError,
    Host,
    read_connection_string,
)
from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.connect_errors import kind_of, kind_of_all, reason_of
from refresher.postgres.failures import (
    DRIVER_ERRORS,
    ConnectionsUsedUpError,
    DatabaseRefusedError,
    ReadOnlyError,
    StandbyError,
)
from refresher.postgres.staggered import first_of
from refresher.postgres.statements import statement
from refresher.postgres.times import set_time_codec
from refresher.postgres.tls import LocalFileError, tls_arguments

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

CONNECT_SECONDS: Final = 5.0
#: For a free place in the pool and a new connection, to whichever of several hosts.
ACQUIRE_SECONDS: Final = 10.0
#: After a statement that ran out of time: for the server to hear that it is cancelled, and to say
#: so. A server that does not is not waited for.
RELEASE_SECONDS: Final = 2.0
#: Our statements take milliseconds; on a connection whose other end is gone this is how long it
#: takes to notice. Longer than the lock time-out, which tells more.
STATEMENT_SECONDS: Final = 10.0
LOCK_TIMEOUT: Final = "5s"
IDLE_TIMEOUT: Final = "60s"
#: Where no more connections are to be had, for so long those we have take turns before another is
#: asked for.
FULL_SECONDS: Final = 30.0
#: So that a scan, too, notices within about a minute that the other end is gone. Each with libpq's
#: name for it; 0 leaves it to the system.
KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 30, "keepalives_idle"),
    ("TCP_KEEPINTVL", 10, "keepalives_interval"),
    ("TCP_KEEPCNT", 3, "keepalives_count"),
    ("TCP_USER_TIMEOUT", 60_000, "tcp_user_timeout"),
)
#: Where servers on this machine have their sockets.
SOCKET_FOLDERS: Final = (Path("/run/postgresql"), Path("/var/run/postgresql"), Path("/tmp"))  # noqa: S108
#: Of several hosts the next is asked, too, when one has been silent for so long: a pooler whose
#: server is dead still lets us in, and says nothing more.
SILENT_SECONDS: Final = 0.5
#: How long a host may take to answer a new connection, while a statement on an old one waits,
#: before the others are looked at, too; and before it counts as silent where none of them is
#: another server that takes writes.
AT_ONCE_SECONDS: Final = 0.2
ANSWER_SECONDS: Final = 1.0

# Not in a file: over the simple protocol, which prepares nothing, there are no parameters, and an
# answer is its number of rows.
SQL_IS_PROCESS: Final = "SELECT WHERE pg_backend_pid() = {}"
IS_PROCESS: Final = "SELECT 1"
SERVER: Final = statement("server")
LASTING_READ_ONLY: Final = statement("lasting_read_only")
READ_ONLY: Final = (
    "takes no writes: default_transaction_read_only is on for the role, the database or the server"
)
# How a pooler answers a connection that asks for settings, or prepares statements by name.
POOLED: Final = ("08P01", "0A000", "26000", "42P05")


@dataclass(slots=True)
class Look:
    """When a host was looked at, in monotonic seconds, and whether it answered so far."""

    begun_at: float
    answered: bool = False


class Connector:
    """Opens connections, each as the server at the other end allows.

    A pooler such as PgBouncer hands each transaction to another server process: statements cannot
    be prepared for the next time, and settings are not for a client to choose. It is recognized by
    the process that answers, on every connection anew.

    Raises `DatabaseUnavailable` that names the place, and `DatabaseRefusedError` for a string that
    cannot be read.
    """

    def __init__(self, database_url: str, *, application_name: str) -> None:
        self._wanted = _read(database_url)
        self._hosts = self._wanted.hosts
        self._user = self._wanted.user or _system_user()
        self._name = application_name
        # Until we know better: a pooler would keep what we prepare.
        self._pooled = True
        #: How many connections the pool has that this one opens them for.
        self.held: Callable[[], int] = int
        self._full_until = 0.0
        usual = "read-write" if len(self._hosts) > 1 else "any"
        self._target = self._wanted.parameters.get("target_session_attrs", usual)
        self._looking = asyncio.Lock()
        self._looks: dict[Host, Look] = {}
        self._host_of: WeakKeyDictionary[Connection, Host] = WeakKeyDictionary()
        self._server_of: dict[Host, float] = {}
        self._opening: set[asyncio.Future[None]] = set()

    async def __call__(self, dsn: str | None = None, **options: Any) -> Connection:  # noqa: ARG002
        """As `asyncpg.connect`, for a pool; where to connect to we know better."""
        if self.held() and monotonic() < self._full_until:
            raise ConnectionsUsedUpError("no more connections are to be had")
        opening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening.add(opening)
        try:
            found = await self._reach(partial(self._fitting, options))
            await _closed_unless(found, set_time_codec(found))
        except ConnectionsUsedUpError:
            self._full_until = monotonic() + FULL_SECONDS
            raise
        finally:
            self._opening.remove(opening)
            opening.set_result(None)
        return found

    async def opened(self, seconds: float) -> None:
        """Wait until those that are being opened now are open, or not to be had."""
        if self._opening:
            await asyncio.wait(set(self._opening), timeout=seconds)

    async def plain(self, **options: Any) -> Connection:
        """A connection that any server and pooler understands."""
        return await self._reach(partial(self._plain, options))

    @property
    def has_choice(self) -> bool:
        """Whether there are several hosts, of which one is meant that takes writes."""
        return len(set(self._hosts)) > 1 and self._target != "any"

    def host_of(self, opened: Connection | None) -> Host | None:
        """Where a connection of ours leads to."""
        return self._host_of.get(opened) if opened else None

    async def look_at(self, host: Host) -> bool:
        """Whether a host, for which a statement of ours waits, lets us in and takes writes.

        One that does not while another server does is left: all connections to it are cut. All
        that wait share a look, and at most two a second begin.
        """
        async with self._looking:
            look = self._looks.get(host)
            if look is None or monotonic() - look.begun_at >= SILENT_SECONDS:
                # It counts even where the statement ends before it.
                look = self._looks[host] = Look(monotonic())
                look.answered = await self._answers_or_is_left(host)
            return look.answered

    async def _answers_or_is_left(self, host: Host) -> bool:
        async with asyncio.TaskGroup() as group:
            own = group.create_task(self._answers(host))
            await asyncio.wait({own}, timeout=AT_ONCE_SECONDS)
            if own.done() and own.result():
                return True
            other = await self._finds_another(host)
            if other is None or other == self._server_of.get(host):
                # The same server behind another pooler: this one may only be busy.
                await own
            if own.done() and own.result():
                return True
            own.cancel()
        if other is not None:
            self._leave(host)
        return False

    async def _answers(self, host: Host) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._try(partial(self._plain, {}), host)
        except ConnectionsUsedUpError:
            return True  # it has no place for one more look: it is alive
        except (DatabaseUnavailable, TimeoutError):
            return False
        found.terminate()
        return True

    async def _finds_another(self, host: Host) -> float | None:
        """The server that takes writes at another host than this one: the first from then on."""
        others = [
            partial(self._try, partial(self._plain, {}), other)
            for other in self._hosts
            if other != host
        ]
        try:
            found: Connection | None = await first_of(
                others, after_seconds=SILENT_SECONDS, discard=asyncpg.Connection.terminate
            )
        except* DatabaseUnavailable:
            found = None
        if found is None:
            return None
        found.terminate()
        return self._server_of[self._host_of[found]]

    def _leave(self, host: Host) -> None:
        """Close all connections to the host, those in use, too: they wait for what cannot come."""
        for opened, at in tuple(self._host_of.items()):
            if at == host:
                opened.terminate()

    async def _reach(self, open_at: Callable[[Host], Awaitable[Connection]]) -> Connection:
        """The first host that answers and may be written to, beginning with the last that did."""
        try:
            return await first_of(
                [partial(self._try, open_at, host) for host in self._hosts],
                after_seconds=SILENT_SECONDS,
                discard=asyncpg.Connection.terminate,
            )
        except* DatabaseUnavailable as errors:
            failures = [each for each in errors.exceptions if isinstance(each, DatabaseUnavailable)]
        kind = kind_of_all({type(failure) for failure in failures})
        raise kind("; ".join(map(str, failures))) from failures[-1]

    async def _try(
        self, open_at: Callable[[Host], Awaitable[Connection]], host: Host
    ) -> Connection:
        with self._named(host):
            async with asyncio.timeout(self._attempt_seconds()):
                found = await open_at(host)
                await _closed_unless(found, self._check_writes(found, host))
        self._host_of[found] = host
        self._hosts = (host, *(other for other in self._hosts if other != host))
        return found

    def _attempt_seconds(self) -> float:
        asked = int(self._wanted.parameters.get("connect_timeout", 0))
        share = ACQUIRE_SECONDS / len(self._hosts)
        if asked > 0:
            return min(asked, share)
        return min(CONNECT_SECONDS, share)

    async def _check_writes(self, found: Connection, host: Host) -> None:
        """Of several hosts we mean the one that takes writes, unless the URL says otherwise."""
        if self._target == "any":
            return
        (server,) = await found.fetch(*SERVER())
        if server["is_standby"]:
            raise StandbyError("is a standby")
        if server["is_read_only"] and self._target == "read-write":
            lasts = await found.fetchval(*LASTING_READ_ONLY())
            raise (ReadOnlyError if lasts else DatabaseUnavailable)(READ_ONLY)
        self._server_of[host] = server["started_at"]

    async def _fitting(self, options: Mapping[str, Any], host: Host) -> Connection:
        found, as_pooled = await self._open(options, host)
        self._pooled = await _is_pooled(found)
        if self._pooled == as_pooled:
            return found
        await found.close(timeout=RELEASE_SECONDS)
        found, _ = await self._open(options, host)
        return found

    async def _open(self, options: Mapping[str, Any], host: Host) -> tuple[Connection, bool]:
        """A connection, and whether it is made for a pooler."""
        if not self._pooled:
            try:
                return await self._full(options, host), False
            except asyncpg.PostgresError as error:
                if error.sqlstate not in POOLED:
                    raise
            self._pooled = True
        return await self._plain(options, host), True

    async def _full(self, options: Mapping[str, Any], host: Host) -> Connection:
        # Compiling a statement takes longer than running any of ours; a lock that lasts is left to
        # whoever holds it.
        # A machine that vanishes amid a transaction must not keep its locks until TCP gives up.
        settings = {
            "jit": "off",
            "lock_timeout": LOCK_TIMEOUT,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        }
        return await self._connect(host, settings, **options)

    async def _plain(self, options: Mapping[str, Any], host: Host) -> Connection:
        return await self._connect(host, {}, statement_cache_size=0, **options)

    async def _connect(self, host: Host, settings: dict[str, str], **options: Any) -> Connection:
        """All that asyncpg would look for in the environment is said, so that it does not look."""
        wanted = self._wanted.parameters
        host = _reached(host)
        found: Connection = await asyncpg.connect(
            host=host.name,
            port=host.port,
            user=self._user,
            password=self._wanted.password,
            passfile=wanted.get("passfile"),
            database=self._database,
            krbsrvname=wanted.get("krbsrvname"),
            server_settings={**settings, **self._startup()},
            target_session_attrs=SessionAttribute.any,
            timeout=self._attempt_seconds(),
            **({"ssl": False} if host.is_socket else tls_arguments(wanted)),
            **{"command_timeout": STATEMENT_SECONDS, **options},
        )
        try:
            _keep_alive(found, wanted)
        except BaseException:
            found.terminate()
            raise
        return found

    def _startup(self) -> dict[str, str]:
        wanted = self._wanted.parameters
        name = wanted.get("application_name") or wanted.get("fallback_application_name")
        options = {"options": wanted["options"]} if "options" in wanted else {}
        return {"application_name": name or self._name, **options}

    @property
    def _database(self) -> str:
        return self._wanted.database or self._user

    @contextmanager
    def _named(self, host: Host) -> Iterator[None]:
        """Errors of connecting as ours, with the place and what may be wrong."""
        place = f"{host.name or 'localhost'}:{host.port}/{self._database}"
        try:
            yield
        except (DatabaseRefusedError, DatabaseUnavailable) as error:
            raise type(error)(f"{place}: {error}") from error
        except DRIVER_ERRORS as error:
            raise kind_of(error)(f"{place}: {reason_of(error, self._wanted)}") from error
        except LocalFileError as error:
            raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {error}") from None
        except ValueError:
            # A host that is no name; the words of the error may quote more than that.
            raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {EXPECTED_URL}") from None


def ignored_parameters(database_url: str) -> tuple[str, ...]:
    """Of the string and the environment what is left out of a connection, as it cannot matter.

    Raises `DatabaseRefusedError`.
    """
    return _read(database_url).ignored


def _read(database_url: str) -> ConnectionString:
    try:
        return read_connection_string(database_url, os.environ)
    except ConnectionStringError as error:
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {error}") from None


def _reached(host: Host) -> Host:
    """Where the machine itself is meant, the folder of its socket; TCP where there is none.

    The driver would choose likewise, but without TLS.
    """
    if host.name is not None:
        return host
    own = f".s.PGSQL.{host.port}"
    folders = (each for each in SOCKET_FOLDERS if os.access(each / own, os.F_OK))
    return Host(str(next(folders, "localhost")), host.port)


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise DatabaseRefusedError(
            "REFRESHER_DATABASE_URL: expected a user, as the system has no name for ours"
        ) from None


async def _closed_unless(found: Connection, done: Awaitable[None]) -> None:
    try:
        await done
    except BaseException:
        found.terminate()
        raise


async def _is_pooled(found: Connection) -> bool:
    """Whether another process answers than the one we were told at the start."""
    try:
        return await found.execute(SQL_IS_PROCESS.format(found.get_server_pid())) != IS_PROCESS
    except BaseException:
        found.terminate()
        raise


def _keep_alive(found: Connection, wanted: Mapping[str, str]) -> None:
    # The driver has no name of its own for it; where it calls it otherwise, we do without.
    transport = getattr(found, "_transport", None)
    its_socket = transport and transport.get_extra_info("socket")
    if not its_socket or its_socket.family == getattr(socket, "AF_UNIX", None):
        return
    kept_alive = int(wanted.get("keepalives", 1)) != 0
    its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(kept_alive))
    for name, usual, parameter in KEEPALIVE:
        value = int(wanted.get(parameter, usual))
        if value > 0 and (option := getattr(socket, name, None)):
            try:
                its_socket.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError as error:
                raise DatabaseRefusedError(
                    f"expected {parameter} as this system takes it, not {value}: {error.strerror}"
                ) from error
