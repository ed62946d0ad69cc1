"""What the operator can put right."""

from typing import Final

from refresher.csv_files import BadFileError
from refresher.domain.errors import DatabaseUnavailable, TokenUnreadable
from refresher.postgres.database import SchemaNotMigratedError
from refresher.settings import SettingsError

#: What the operator can put right: one line, no traceback.
OPERATOR_ERRORS: Final = (
    SettingsError,
    BadFileError,
    DatabaseUnavailable,
    SchemaNotMigratedError,
    TokenUnreadable,
    OSError,
)
