"""The pool, and which of the driver's errors mean "away" rather than "wrong"."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool

#: Claim, write-back, release, audit and summary at once, and one to spare for /readyz.
POOL_SIZE: Final = 6
CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 30.0
LOCK_TIMEOUT: Final = "5s"
#: For statements over all rows. (None would mean the pool's own time-out to asyncpg.)
SCAN_SECONDS: Final = 86_400.0

#: The revision this code was written for; a later one only adds (expand and contract).
SCHEMA_REVISION: Final = "0001"
SQL_REVISION: Final = "SELECT max(version_num) FROM refresher.alembic_version"

# SQLSTATE classes of a server that is starting, stopping, full, interrupted or standby: connection
# exception, insufficient resources, operator intervention; and one that takes no connections.
AWAY_CLASSES: Final = ("08", "53", "57")
AWAY_CODES: Final = ("25006", "55000")
# Transaction rollback (a deadlock), lock not available.
BUSY: Final = ("40", "55P03")
# Wrong password or role, no such database, a connection setting that the server does not know.
REFUSED: Final = ("28", "3D", "42704", "22023")


class DatabaseRefusedError(DatabaseUnavailable):
    """The database does not let us in: at start the operator's mistake, later to be waited out."""


class SchemaNotMigratedError(Exception):
    """The database lacks the schema this code needs."""


@asynccontextmanager
async def connected(database_url: str, *, application_name: str) -> AsyncIterator[Pool]:
    """A pool that opens its connections when they are needed: it starts without a database, too."""
    pool = asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=POOL_SIZE,
        timeout=CONNECT_SECONDS,
        command_timeout=STATEMENT_SECONDS,
        # Compiling a statement takes longer than running any of ours; a lock that lasts is left to
        # whoever holds it.
        server_settings={
            "application_name": application_name,
            "jit": "off",
            "lock_timeout": LOCK_TIMEOUT,
        },
    )
    await pool
    try:
        yield pool
    finally:
        pool.terminate()


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
    with available():
        try:
            revision = await pool.fetchval(SQL_REVISION)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            revision = None
    if revision is None or revision < SCHEMA_REVISION:
        raise SchemaNotMigratedError(
            f"schema refresher: expected revision {SCHEMA_REVISION} or newer, not "
            f"{revision or 'an empty database'}; run refresher migrate"
        )
