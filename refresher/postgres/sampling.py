"""How much of a table a sample reads."""

from typing import TYPE_CHECKING, Final

from refresher.postgres.database import REPORT_SECONDS
from refresher.postgres.naming import named, schema_of
from refresher.postgres.statements import statement

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: From fewer pages, a sample may happen to bring nothing.
PAGES_SAMPLED: Final = 20

SIZES: Final = statement("sizes")


async def sample_percent(connection: "Pooled", table: str, rows: int) -> float:
    """The share of a table's pages, in percent, that brings about so many rows, or more."""
    ours = named(table, schema_of(connection))
    (size,) = await connection.fetch(*SIZES(table=ours), timeout=REPORT_SECONDS)
    share: float = max(rows / max(1.0, size["rows"]), PAGES_SAMPLED / max(1.0, size["pages"]))
    return min(100.0, 100.0 * share)
