"""Reads PostgreSQL's times in Python. Times beyond Python's calendar become its first or last one.

So a strange value that an application stores cannot break a statement for all other rows.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from refresher.postgres.naming import Connection

#: As the server counts: microseconds since then.
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)
FIRST_NUMBER: Final = (FIRST - EPOCH) // MICROSECOND
LAST_NUMBER: Final = (LAST - EPOCH) // MICROSECOND
INFINITY: Final = 2**63 - 1
MINUS_INFINITY: Final = -(2**63)


async def set_time_codec(connection: "Connection") -> None:
    """Read and write every `timestamptz` of the connection so, infinity too. Takes a round trip."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=as_stored,
        decoder=as_read,
    )


def as_read(stored: tuple[int]) -> datetime:
    """An aware time, in UTC."""
    (number,) = stored
    if number >= LAST_NUMBER:
        return LAST
    return EPOCH + number * MICROSECOND if number > FIRST_NUMBER else FIRST


def as_stored(moment: datetime) -> tuple[int]:
    """The ends of the calendar become infinity, as with the driver itself."""
    number = (moment - EPOCH) // MICROSECOND
    if number >= LAST_NUMBER:
        return (INFINITY,)
    return (number if number > FIRST_NUMBER else MINUS_INFINITY,)
