"""A statement about many accounts that fails because of one of them is tried in parts."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from time import monotonic
from typing import Final, TypeVar

import asyncpg

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseBusy, StatementFailed
from refresher.domain.model import OpenId
from refresher.domain.parts import parts_of

#: Is told of an account and of the error that stopped it.
Refused = Callable[[OpenId, Exception], None]
Item = TypeVar("Item")
Row = TypeVar("Row")

#: These may be the fault of one item. All others mean that the database is away.
REFUSALS: Final = (DatabaseBusy, StatementFailed, asyncpg.PostgresError)


async def in_parts(
    items: Sequence[Item],
    unit: Callable[[Sequence[Item]], Awaitable[Sequence[Row]]],
    refused: Callable[[Item, Exception], None],
    split_seconds: float = inf,
    clock: Clock = monotonic,
) -> Sequence[Row]:
    """The rows of `unit` for all items: in one go, and if that fails in parts.

    Where a trigger, a constraint or a lock stops an item, its rows are missing, and `refused` hears
    of it. After `split_seconds` parts that fail are split no further: the rows of their items are
    missing, too, and `refused` does not hear of them.

    Raises `DatabaseUnavailable`, and what `unit` raises for no items at all.
    """
    ends_at = clock() + split_seconds
    try:
        return await unit(items)
    except REFUSALS:
        await unit(())
    return await _of_parts(items, unit, refused, lambda: clock() < ends_at)


async def _of_parts(
    items: Sequence[Item],
    unit: Callable[[Sequence[Item]], Awaitable[Sequence[Row]]],
    refused: Callable[[Item, Exception], None],
    may_split: Callable[[], bool],
) -> Sequence[Row]:
    rows: list[Row] = []
    for part in parts_of(items):
        try:
            rows += await unit(part)
        except REFUSALS as error:
            if len(part) == 1:
                refused(part[0], error)
            elif may_split():
                rows += await _of_parts(part, unit, refused, may_split)
    return rows
