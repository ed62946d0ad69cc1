"""Statements of a batcher that wait until the database is back."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed
from refresher.flow.outage import Outage

T = TypeVar("T")
R = TypeVar("R")


def outlasting(
    outage: Outage, give_up: asyncio.Event, flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
) -> Callable[[Sequence[T]], Awaitable[Sequence[R]]]:
    """`flush`, tried until the database is back."""

    async def flush_in_the_end(items: Sequence[T]) -> Sequence[R]:
        return await outage.outlast(
            lambda: flush(items),
            give_up,
            fatal=(DatabaseBusy, StatementFailed),
            may_wait=True,
        )

    return flush_in_the_end


def checking(
    outage: Outage, give_up: asyncio.Event, flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
) -> Callable[[], Awaitable[None]]:
    """Flushes no items. What fails then is the table, not an item: it may be locked."""

    async def flush_nothing() -> None:
        try:
            await flush(())
        except StatementFailed as error:
            raise DatabaseUnavailable(str(error)) from error
        except DatabaseUnavailable:
            raise
        except Exception as error:
            raise DatabaseUnavailable(str(error).partition("\n")[0]) from error

    async def check() -> None:
        await outage.outlast(flush_nothing, give_up)

    return check
