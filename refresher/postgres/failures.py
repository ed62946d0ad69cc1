"""Which of the driver's errors mean "away" rather than "wrong"."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed

# A server that does not let us in just now: connection exception, insufficient resources, operator
# intervention, system error, internal error; a database that takes no connections.
AWAY: Final = ("08", "53", "57", "58", "XX", "55000")
# Wrong password or role, no such database, no right to it, a setting that the server does not know.
REFUSED: Final = ("28", "3D", "42501", "42704", "22023")
# Transaction rollback (a deadlock), lock not available.
BUSY: Final = ("40", "55P03")
# An application's trigger, constraint or cast can raise any SQLSTATE for a row. These are taken for
# the server's own word all the same, as is whatever ends the session: no room (disk, memory,
# connections), a disk that fails, a prepared statement that a pooler gave to somebody else.
NO_ROWS_MATTER: Final = ("53000", "53100", "53200", "53300", "58030", "26000", "42P05")
# What rows rarely raise and a whole database does: the classes of `AWAY`, what is left of "no
# room", read-only after a failover, no right, a table or schema that is not there while a backup is
# being restored. Said of no rows it is the database's matter, which whoever writes many rows at
# once finds out.
DOUBTFUL: Final = (*AWAY, "25006", "42501", "3F000", "42P01")
NO_RIGHT: Final = "42501"
# What makes the idle connections suspect, too: the server has gone, was told to end this one, or
# has become somebody's standby.
LOST: Final = ("08", "57P", "25006")

#: All that the driver raises for a server that it cannot talk to.
DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


#: What a trigger raises, and a constraint: a row's own matter.
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
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(LOST)
    return not isinstance(error, ValueError)


@contextmanager
def available() -> Iterator[None]:
    """Turns errors of a statement that may mean a database that is away into `DatabaseUnavailable`.

    Into `StatementFailed` where that is not sure.
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
        # A ValueError is a wrong argument; what remains says that the connection is closed.
        if isinstance(error, ValueError):
            raise
        raise DatabaseUnavailable(first_line(error)) from error
    except asyncpg.InternalClientError as error:
        # No host that takes writes, or none that speaks PostgreSQL's protocol.
        raise DatabaseUnavailable(first_line(error)) from error


def _kind(error: asyncpg.PostgresError) -> type[DatabaseUnavailable] | None:
    """None: nothing that a database would be away for."""
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
