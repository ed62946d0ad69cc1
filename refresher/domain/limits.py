"""The largest numbers that a setting or an option may have."""

from typing import Final

HIGHEST_LIMIT: Final = 1_000_000
YEAR_SECONDS: Final = 86_400 * 365
