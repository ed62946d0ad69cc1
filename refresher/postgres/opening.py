"""Opens one connection to one host, as the server or the pooler there allows."""

import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from refresher.domain.connection_string import ConnectionString, Host
from refresher.postgres.failures import DatabaseRefusedError
from refresher.postgres.naming import Connection, connection_class
from refresher.postgres.tls import tls_arguments

#: For one host to let us in.
CONNECT_SECONDS: Final = 5.0
#: For a free place in the pool and a new connection, whichever host it leads to.
ACQUIRE_SECONDS: Final = 10.0
#: For the server to confirm that a statement which ran out of time is cancelled. We do not wait
#: longer for a server that says nothing.
RELEASE_SECONDS: Final = 2.0
#: Our statements take milliseconds. When the other end of a connection is gone, we notice after
#: this time. Longer than the lock time-out, whose error says more.
STATEMENT_SECONDS: Final = 10.0
LOCK_TIMEOUT: Final = "5s"
IDLE_TIMEOUT: Final = "60s"
#: With these a scan, too, notices within about a minute that the other end is gone. Each with
#: libpq's name for it; 0 keeps the system's value.
KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 30, "keepalives_idle"),
    ("TCP_KEEPINTVL", 10, "keepalives_interval"),
    ("TCP_KEEPCNT", 3, "keepalives_count"),
    ("TCP_USER_TIMEOUT", 60_000, "tcp_user_timeout"),
)
#: Where servers on this machine have their sockets.
SOCKET_FOLDERS: Final = (Path("/run/postgresql"), Path("/var/run/postgresql"), Path("/tmp"))  # noqa: S108

# Not in a file: we send it over the simple protocol, which prepares nothing. That protocol has no
# parameters and answers with the number of rows only.
SQL_IS_PROCESS: Final = "SELECT WHERE pg_backend_pid() = {}"
IS_PROCESS: Final = "SELECT 1"
# How a pooler refuses a connection that asks for settings, or a statement prepared by name.
POOLED: Final = ("08P01", "0A000", "26000", "42P05")


class Opener:
    """Opens connections to hosts of one connection string.

    A pooler such as PgBouncer gives each transaction to another server process. Behind one we
    cannot keep prepared statements or choose settings. We recognize a pooler on each new
    connection: another process answers than the one that greeted us.

    Its methods raise the driver's errors, `LocalFileError` and `DatabaseRefusedError`.
    """

    def __init__(self, wanted: ConnectionString, *, schema: str, application_name: str) -> None:
        """`schema`: of the cell that our SQL is for."""
        self._wanted = wanted
        self._class = connection_class(schema)
        self._user = wanted.user or _system_user()
        self._name = application_name
        # Until the first answer we assume a pooler, as it would keep what we prepare.
        self._pooled = True

    async def fitting(self, options: Mapping[str, Any], host: Host) -> Connection:
        """A connection with our settings; a plain one behind a pooler."""
        connection, as_pooled = await self._open(options, host)
        self._pooled = await _is_pooled(connection)
        if self._pooled == as_pooled:
            return connection
        await connection.close(timeout=RELEASE_SECONDS)
        connection, _ = await self._open(options, host)
        return connection

    async def plain(self, options: Mapping[str, Any], host: Host) -> Connection:
        """A connection that every server and pooler understands."""
        return await self._connect(host, {}, statement_cache_size=0, **options)

    def attempt_seconds(self) -> float:
        """How long one host may take to let us in."""
        asked = int(self._wanted.parameters.get("connect_timeout", 0))
        share = ACQUIRE_SECONDS / len(self._wanted.hosts)
        if asked > 0:
            return min(asked, share)
        return min(CONNECT_SECONDS, share)

    def place(self, host: Host) -> str:
        """Host, port and database, as errors name them."""
        return f"{host.name or 'localhost'}:{host.port}/{self._database}"

    async def _open(self, options: Mapping[str, Any], host: Host) -> tuple[Connection, bool]:
        """A connection, and whether it is made for a pooler."""
        if not self._pooled:
            try:
                return await self._full(options, host), False
            except asyncpg.PostgresError as error:
                if error.sqlstate not in POOLED:
                    raise
            self._pooled = True
        return await self.plain(options, host), True

    async def _full(self, options: Mapping[str, Any], host: Host) -> Connection:
        settings = {
            # To compile a statement takes longer than to run any of ours.
            "jit": "off",
            "lock_timeout": LOCK_TIMEOUT,
            # A machine that vanishes in a transaction must not keep its locks until TCP gives up.
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        }
        return await self._connect(host, settings, **options)

    async def _connect(self, host: Host, settings: dict[str, str], **options: Any) -> Connection:
        # We pass all that asyncpg would look for in the environment, so that it does not look.
        wanted = self._wanted.parameters
        host = _reached(host)
        connection: Connection = await asyncpg.connect(
            host=host.name,
            port=host.port,
            user=self._user,
            password=self._wanted.password,
            passfile=wanted.get("passfile"),
            database=self._database,
            krbsrvname=wanted.get("krbsrvname"),
            server_settings={**settings, **self._startup()},
            target_session_attrs=SessionAttribute.any,
            timeout=self.attempt_seconds(),
            **({"ssl": False} if host.is_socket else tls_arguments(wanted)),
            **{
                "command_timeout": STATEMENT_SECONDS,
                "connection_class": self._class,
                **options,
            },
        )
        with terminated_on_error(connection):
            _keep_alive(connection, wanted)
        return connection

    def _startup(self) -> dict[str, str]:
        wanted = self._wanted.parameters
        name = wanted.get("application_name") or wanted.get("fallback_application_name")
        options = {"options": wanted["options"]} if "options" in wanted else {}
        return {"application_name": name or self._name, **options}

    @property
    def _database(self) -> str:
        return self._wanted.database or self._user


@contextmanager
def terminated_on_error(connection: Connection) -> Iterator[None]:
    """Terminates the connection when what we do with it fails or is cancelled."""
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


def _reached(host: Host) -> Host:
    """Where no host is named: the folder of this machine's socket, or TCP if there is no socket.

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


async def _is_pooled(connection: Connection) -> bool:
    with terminated_on_error(connection):
        answer = await connection.execute(SQL_IS_PROCESS.format(connection.get_server_pid()))
    return answer != IS_PROCESS


def _keep_alive(connection: Connection, wanted: Mapping[str, str]) -> None:
    # The driver has no public way to its socket. If it ever hides it, we do without.
    transport = getattr(connection, "_transport", None)
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
