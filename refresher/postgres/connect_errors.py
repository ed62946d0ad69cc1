"""What the errors of connecting mean, and what may be wrong."""

import socket
import ssl
from typing import Final

import asyncpg

from refresher.domain.connection_string import ConnectionString
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.postgres.failures import (
    BUSY,
    DOUBTFUL,
    NO_ROWS_MATTER,
    REFUSED,
    ConnectionsUsedUpError,
    DatabaseRefusedError,
    ReadOnlyError,
    StandbyError,
    first_line,
)

#: How a pooler says that it does not pass on what we ask for at the start.
STARTUP: Final = "startup parameter"

#: What comes of a port where something else listens, or nobody wants to speak TLS.
SPEAKS_OTHERWISE: Final = (
    ssl.SSLError,
    ConnectionResetError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.ConnectionDoesNotExistError,
)


def kind_of_all(kinds: set[type[DatabaseUnavailable]]) -> type[DatabaseUnavailable]:
    """Of several hosts that have failed, each in its way."""
    if ConnectionsUsedUpError in kinds:
        return ConnectionsUsedUpError  # those we have will do
    if ReadOnlyError in kinds:
        kinds = kinds - {StandbyError}  # promoted, it is as the other is
    # Where one is away, to wait may help.
    return next(iter(kinds)) if len(kinds) == 1 else DatabaseUnavailable


def kind_of(error: Exception) -> type[DatabaseUnavailable]:
    """Refused is what stays so until somebody changes something."""
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


def reason_of(error: Exception, wanted: ConnectionString) -> str:
    """What the driver says, and what is behind it where people usually err."""
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
