"""The pool, and which of the driver's errors mean "away" rather than "wrong"."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
    Pooled = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

#: Claim, two write-backs, release, audit and summary at once, and one to spare for /readyz; what an
#: account needs by itself waits its turn.
POOL_SIZE: Final = 7
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
#: For statements that read what all accounts store.
REPORT_SECONDS: Final = 60.0
#: For statements over all rows. (None would mean the pool's own time-out to asyncpg.)
SCAN_SECONDS: Final = 86_400.0
#: So that a scan, too, notices within about a minute that the other end is gone.
KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 60_000),
)

#: The revision this code was written for; a later one only adds (expand and contract).
SCHEMA_REVISION: Final = "0005"
SQL_REVISION: Final = "SELECT max(version_num) FROM refresher.alembic_version"

# Over the simple protocol, which prepares nothing, an answer is its number of rows.
SQL_IS_PROCESS: Final = "SELECT WHERE pg_backend_pid() = {}"
IS_PROCESS: Final = "SELECT 1"

# SQLSTATE classes of a server that is starting, stopping, full, interrupted or broken: connection
# exception, insufficient resources, operator intervention, system error, internal error.
AWAY_CLASSES: Final = ("08", "53", "57", "58", "XX")
# Read-only after a failover; a database that takes no connections; a transaction that was idle or
# open for too long; a prepared statement that a pooler gave to somebody else; a schema that is not
# there while a backup is being restored.
AWAY_CODES: Final = (
    "25006", "55000", "25P03", "25P04", "26000", "42P05", "3F000", "42P01",
)  # fmt: skip
# Transaction rollback (a deadlock), lock not available.
BUSY: Final = ("40", "55P03")
# Wrong password or role, no such database, no right to it, a setting that the server does not know.
REFUSED: Final = ("28", "3D", "42501", "42704", "22023")
# What makes the idle connections suspect, too: the server has gone, was told to end this one, or
# has become somebody's standby.
LOST: Final = ("08", "57P", "25006")
# How a pooler answers a connection that asks for settings, or prepares statements by name.
POOLED: Final = ("08P01", "0A000", "26000", "42P05")

EXPECTED_URL: Final = "expected a URL as postgresql://user@host:5432/database"

#: All that the driver raises for a server that it cannot talk to.
DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class DatabaseRefusedError(DatabaseUnavailable):
    """The database does not let us in: at start the operator's mistake, later to be waited out."""


class SchemaNotMigratedError(Exception):
    """The database lacks the schema this code needs."""


@asynccontextmanager
async def connected(database_url: str, *, application_name: str) -> AsyncIterator[Pool]:
    """A pool that opens its connections when they are needed: it starts without a database, too."""
    pool = asyncpg.create_pool(
        connect=Connector(database_url, application_name=application_name),
        min_size=0,
        max_size=POOL_SIZE,
        # Nothing we do outlives its transaction, so there is nothing to reset.
        reset=_nothing,
    )
    await pool
    try:
        yield pool
    finally:
        pool.terminate()


@asynccontextmanager
async def connection(pool: Pool, seconds: float = ACQUIRE_SECONDS) -> AsyncIterator["Pooled"]:
    """A connection for a few statements, each of which has a time-out.

    Raises `DatabaseUnavailable`. After an error that casts doubt on them, idle connections are not
    used again: new ones find the server that has taken over.
    """
    with available():
        taken = await pool.acquire(timeout=seconds)
        try:
            yield taken
        except DRIVER_ERRORS as error:
            if _is_lost(error):
                await _forsake(pool)
            raise
        finally:
            # One that cannot be given back is closed; what it was used for stands.
            with suppress(*DRIVER_ERRORS):
                await pool.release(taken, timeout=RELEASE_SECONDS)


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(LOST)
    return not isinstance(error, ValueError)


async def _forsake(pool: Pool) -> None:
    """Close idle connections without a word to the server, the others when they are given back."""
    await pool.expire_connections()
    # Left to the pool, each would be closed politely, which a dead server keeps waiting.
    for holder in getattr(pool, "_holders", ()):
        if holder.is_idle():
            holder.terminate()


class Connector:
    """Opens connections, each as the server at the other end allows.

    A pooler such as PgBouncer hands each transaction to another server process: statements cannot
    be prepared for the next time, and settings are not for a client to choose. It is recognized by
    the process that answers, on every connection anew.
    """

    def __init__(self, database_url: str, *, application_name: str) -> None:
        self._urls = urls_of_hosts(database_url)
        self._name = application_name
        # Until we know better: a pooler would keep what we prepare.
        self._pooled = True

    async def __call__(self, dsn: str | None = None, **options: Any) -> Connection:  # noqa: ARG002
        """As `asyncpg.connect`, for a pool; where to connect to we know better."""
        found, as_pooled = await self._open(**options)
        self._pooled = await _is_pooled(found)
        if self._pooled == as_pooled:
            return found
        await found.close(timeout=RELEASE_SECONDS)
        found, _ = await self._open(**options)
        return found

    async def _open(self, **options: Any) -> tuple[Connection, bool]:
        """A connection, and whether it is made for a pooler."""
        if not self._pooled:
            try:
                return await self._full(**options), False
            except asyncpg.PostgresError as error:
                if error.sqlstate not in POOLED:
                    raise
            self._pooled = True
        return await self.plain(**options), True

    async def _full(self, **options: Any) -> Connection:
        # Compiling a statement takes longer than running any of ours; a lock that lasts is left to
        # whoever holds it.
        # A machine that vanishes amid a transaction must not keep its locks until TCP gives up.
        settings = {
            "application_name": self._name,
            "jit": "off",
            "lock_timeout": LOCK_TIMEOUT,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        }
        return await self._reach(settings, **options)

    async def plain(self, **options: Any) -> Connection:
        """A connection that any server and pooler understands."""
        settings = {"application_name": self._name}
        return await self._reach(settings, statement_cache_size=0, **options)

    async def _reach(self, server_settings: dict[str, str], **options: Any) -> Connection:
        """The first host that answers and may be written to, beginning with the last that did."""
        failure: Exception | None = None
        for url in self._urls:
            try:
                found: Connection = await asyncpg.connect(
                    url,
                    timeout=min(CONNECT_SECONDS, ACQUIRE_SECONDS / (len(self._urls) + 1)),
                    server_settings=server_settings,
                    target_session_attrs=self._target(url),
                    **{"command_timeout": STATEMENT_SECONDS, **options},
                )
            except asyncpg.InterfaceError:
                raise  # the URL itself is wrong
            except DRIVER_ERRORS as error:
                failure = error
                continue
            except ValueError:
                # A port that is no number, a host that is no name; its words may quote a password.
                raise asyncpg.ClientConfigurationError(EXPECTED_URL) from None
            self._urls = (url, *(other for other in self._urls if other != url))
            _keep_alive(found)
            return found
        raise failure or AssertionError

    def _target(self, url: str) -> SessionAttribute | None:
        """Of several hosts we mean the one that takes writes, unless the URL says otherwise."""
        chosen = "target_session_attrs=" in url or "PGTARGETSESSIONATTRS" in os.environ
        return None if chosen or len(self._urls) == 1 else SessionAttribute.read_write


def urls_of_hosts(database_url: str) -> tuple[str, ...]:
    """A URL for each host: each gets a time-out of its own, so that a dead one is passed by."""
    parts = urlsplit(database_url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return (database_url,)
    return tuple(
        urlunsplit(parts._replace(netloc=f"{login}{at}{host}")) for host in hosts.split(",")
    )


async def _is_pooled(found: Connection) -> bool:
    """Whether another process answers than the one we were told at the start."""
    try:
        return await found.execute(SQL_IS_PROCESS.format(found.get_server_pid())) != IS_PROCESS
    except BaseException:
        found.terminate()
        raise


def _keep_alive(found: Connection) -> None:
    # The driver has no name of its own for it; where it calls it otherwise, we do without.
    transport = getattr(found, "_transport", None)
    its_socket = transport and transport.get_extra_info("socket")
    if not its_socket or its_socket.family == getattr(socket, "AF_UNIX", None):
        return
    its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if option := getattr(socket, name, None):
            its_socket.setsockopt(socket.IPPROTO_TCP, option, value)


async def _nothing(_connection: object) -> None:
    pass


@contextmanager
def available() -> Iterator[None]:
    """Turns the errors of a database that is away into `DatabaseUnavailable`."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise DatabaseUnavailable(str(error) or "no answer in time") from error
    except asyncpg.PostgresError as error:
        kind = _kind(error.sqlstate or "")
        if kind is None:
            raise
        raise kind(first_line(error)) from error
    except asyncpg.ClientConfigurationError as error:
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {first_line(error)}") from error
    except asyncpg.InterfaceError as error:
        # A ValueError is a wrong argument; what remains says that the connection is closed.
        if isinstance(error, ValueError):
            raise
        raise DatabaseUnavailable(first_line(error)) from error
    except asyncpg.InternalClientError as error:
        # No host that takes writes, or none that speaks PostgreSQL's protocol.
        raise DatabaseUnavailable(first_line(error)) from error


def _kind(sqlstate: str) -> type[DatabaseUnavailable] | None:
    if sqlstate.startswith(BUSY):
        return DatabaseBusy
    if sqlstate.startswith(REFUSED):
        return DatabaseRefusedError
    if sqlstate.startswith(AWAY_CLASSES) or sqlstate in AWAY_CODES:
        return DatabaseUnavailable
    return None


def first_line(error: BaseException) -> str:
    """The message without DETAIL and HINT, which may quote a row."""
    return (str(error).splitlines() or [type(error).__name__])[0]


async def check_migrated(pool: Pool) -> None:
    """Raises `SchemaNotMigratedError`, or `DatabaseUnavailable`."""
    async with connection(pool) as asked:
        try:
            revision = await asked.fetchval(SQL_REVISION)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            revision = None
    if revision is None or revision < SCHEMA_REVISION:
        raise SchemaNotMigratedError(
            f"schema refresher: expected revision {SCHEMA_REVISION} or newer, not "
            f"{revision or 'an empty database'}; run refresher migrate"
        )
