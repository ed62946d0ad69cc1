"""What the driver's errors of a statement mean: is the database away, busy, or is it the row?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed

# The server does not let us in just now: connection exception, insufficient resources, operator
# intervention, system error, internal error; a database that takes no connections.
AWAY: Final = ("08", "53", "57", "58", "XX", "55000")
# Wrong password or role, no such database, no right to it, a setting that the server does not know.
REFUSED: Final = ("28", "3D", "42501", "42704", "22023")
# Transaction rollback (a deadlock), lock not available.
BUSY: Final = ("40", "55P03")
# An application's trigger, constraint or cast can raise any SQLSTATE for a row. We still take these
# as the server's own: no room (disk, memory, connections), a disk that fails, a prepared statement
# that a pooler gave to somebody else. So we do with every error that ends the session.
NO_ROWS_MATTER: Final = ("53000", "53100", "53200", "53300", "58030", "26000", "42P05")
# A row rarely raises these, a database in trouble does: the classes of `AWAY`, the rest of "no
# room", read-only after a failover, no right, a table or schema that is missing while a backup is
# being restored. A statement about no rows tells which: if it fails, too, it is the database.
DOUBTFUL: Final = (*AWAY, "25006", "42501", "3F000", "42P01")
NO_RIGHT: Final = "42501"
# After these we do not trust the idle connections either: the server is gone, was told to end this
# connection, or has become a standby.
LOST: Final = ("08", "57P", "25006")

#: All that the driver raises for a server that it cannot talk to.
DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

#: What triggers and constraints raise: the problem is the row.
ROWS_REFUSED: Final = (asyncpg.RaiseError, asyncpg.IntegrityConstraintViolationError)


class DatabaseRefusedError(DatabaseUnavailable):
    """The database does not let us in: at start the operator's mistake, later to be waited out."""


class RightMissingError(DatabaseRefusedError, StatementFailed):
    """A statement was not allowed: to the role, or by row-level security for one of its rows."""


class ReadOnlyError(DatabaseRefusedError):
    """The role or the database is set to read only, on whichever server."""


class StandbyError(DatabaseUnavailable):
    """The host takes no writes as long as it is a standby."""


class ConnectionsUsedUpError(DatabaseUnavailable):
    """The server, the database or the role has as many connections as it may have."""


def is_lost(error: BaseException) -> bool:
    """Whether the error says that this connection, and perhaps the server behind it, is gone."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(LOST)
    return not isinstance(error, ValueError)


@contextmanager
def available() -> Iterator[None]:
    """Turns the driver's errors into `DatabaseUnavailable` where the database is away.

    Into `StatementFailed` where that is not sure. Errors of a row or of a wrong argument pass.
    """
    try:
        yield
    except TimeoutError as error:
        raise StatementFailed(str(error) or "no answer in time") from error
    except OSError as error:
        raise DatabaseUnavailable(str(error) or type(error).__name__) from error
    except asyncpg.PostgresError as error:
        kind = _kind(error)
        if kind is None:
            raise
        raise kind(first_line(error)) from error
    except asyncpg.ClientConfigurationError as error:
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {first_line(error)}") from error
    except asyncpg.InterfaceError as error:
        # A ValueError is a wrong argument; all others say that the connection is closed.
        if isinstance(error, ValueError):
            raise
        raise DatabaseUnavailable(first_line(error)) from error
    except asyncpg.InternalClientError as error:
        # The other end does not speak PostgreSQL's protocol.
        raise DatabaseUnavailable(first_line(error)) from error


def _kind(error: asyncpg.PostgresError) -> type[DatabaseUnavailable] | None:
    """None where the error says nothing against the database."""
    sqlstate = error.sqlstate or ""
    # The driver's own errors have no severity: they say that the connection is gone.
    severity = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    if severity != "ERROR" or sqlstate in NO_ROWS_MATTER:
        return DatabaseUnavailable
    if sqlstate.startswith(BUSY):
        return DatabaseBusy
    if sqlstate == NO_RIGHT:
        return RightMissingError
    return StatementFailed if sqlstate.startswith(DOUBTFUL) else None


def first_line(error: BaseException) -> str:
    """The message without DETAIL and HINT, which may quote a row."""
    return (str(error).splitlines() or [type(error).__name__])[0]
