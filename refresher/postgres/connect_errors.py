"""What the errors of connecting mean, and what may be wrong."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from refresher.domain.connection_string import EXPECTED_URL, ConnectionString
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.postgres.failures import (
    BUSY,
    DOUBTFUL,
    DRIVER_ERRORS,
    NO_ROWS_MATTER,
    REFUSED,
    ConnectionsUsedUpError,
    DatabaseRefusedError,
    ReadOnlyError,
    StandbyError,
    first_line,
)
from refresher.postgres.tls import LocalFileError

# So says a pooler that does not pass on what we ask for at the start.
STARTUP: Final = "startup parameter"

# Errors at a port where something else listens, or where the two sides do not agree on TLS.
SPEAKS_OTHERWISE: Final = (
    ssl.SSLError,
    ConnectionResetError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.ConnectionDoesNotExistError,
)


@contextmanager
def errors_named(place: str, wanted: ConnectionString) -> Iterator[None]:
    """Turns errors of connecting into `DatabaseUnavailable` with the place and a hint."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise type(error)(f"{place}: {error}") from error
    except DRIVER_ERRORS as error:
        raise _kind_of(error)(f"{place}: {_reason(error, wanted)}") from error
    except LocalFileError as error:
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {error}") from None
    except ValueError:
        # The host is not a valid name. The error's own words may quote more than the host.
        raise DatabaseRefusedError(f"REFRESHER_DATABASE_URL: {EXPECTED_URL}") from None


def kind_of_all(kinds: set[type[DatabaseUnavailable]]) -> type[DatabaseUnavailable]:
    """The error for all hosts together, from the kinds of their own errors."""
    if ConnectionsUsedUpError in kinds:
        return ConnectionsUsedUpError  # the connections that we have are enough
    if ReadOnlyError in kinds:
        kinds = kinds - {StandbyError}  # a standby that is promoted will be read-only, too
    # Where the kinds differ, at least one host may come back.
    return next(iter(kinds)) if len(kinds) == 1 else DatabaseUnavailable


def _kind_of(error: Exception) -> type[DatabaseUnavailable]:
    """`DatabaseRefusedError` is for what stays as it is until somebody changes something."""
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return ConnectionsUsedUpError
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        if STARTUP in str(error) or sqlstate.startswith(REFUSED):
            return DatabaseRefusedError
        if sqlstate.startswith(BUSY):
            return DatabaseBusy
        passes = sqlstate.startswith((*DOUBTFUL, *NO_ROWS_MATTER))
        return DatabaseUnavailable if passes else DatabaseRefusedError
    wrong = isinstance(error, (asyncpg.ClientConfigurationError, ssl.SSLCertVerificationError))
    return DatabaseRefusedError if wrong else DatabaseUnavailable


def _reason(error: Exception, wanted: ConnectionString) -> str:
    """What the driver says, with a hint for common mistakes."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
    return f"{text or first_line(error)}{_hint(error, wanted)}"


def _hint(error: Exception, wanted: ConnectionString) -> str:
    database = wanted.database or ""
    for fits, hint in (
        (
            isinstance(error, asyncpg.InvalidCatalogNameError) and database != database.strip(),
            ": its name ends with a blank",
        ),
        (
            isinstance(error, (socket.gaierror, asyncpg.InvalidAuthorizationSpecificationError)),
            ": are user and password percent-encoded, @ as %40, / as %2F, % as %25?",
        ),
        (
            isinstance(error, ssl.SSLCertVerificationError),
            ": expected the CA of the server as sslrootcert",
        ),
        (
            STARTUP in str(error),
            ": expected a pooler that ignores it, or the parameter left out",
        ),
        (
            isinstance(error, SPEAKS_OTHERWISE) or type(error) is ConnectionError,
            ": does PostgreSQL answer at this port, and with TLS where sslmode asks for it?",
        ),
    ):
        if fits:
            return hint
    return ""
