"""Errors of the whole program that the operator can fix. Loaded only when an error is raised."""

from collections.abc import Sequence
from typing import Final

from refresher.csv_files.complaints import BadFileError
from refresher.domain.errors import DatabaseUnavailable, TokenUnreadable
from refresher.postgres.database import SchemaNotMigratedError, SchemaTooNewError
from refresher.postgres.failures import ROWS_REFUSED, first_line
from refresher.settings import SettingsError

#: Errors that the operator can fix: one line, no traceback.
OPERATOR_ERRORS: Final = (
    SettingsError,
    BadFileError,
    DatabaseUnavailable,
    SchemaNotMigratedError,
    SchemaTooNewError,
    TokenUnreadable,
    OSError,
)


def complaints(error: Exception) -> Sequence[str]:
    """What to tell the operator, line by line; empty if the operator cannot fix it."""
    if isinstance(error, BadFileError):
        return error.complaints
    if isinstance(error, DatabaseUnavailable):
        return [f"database: {error}"]
    if isinstance(error, OPERATOR_ERRORS):
        return [str(error)]
    if isinstance(error, ROWS_REFUSED):
        reason = first_line(error)
        return [f"database: {reason} (a trigger or constraint of yours on schema refresher?)"]
    return []
