"""Statements about many accounts, where one of them may spoil it for the others."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from time import monotonic
from typing import Final, TypeVar

import asyncpg

from refresher.domain.errors import DatabaseBusy, StatementFailed
from refresher.domain.model import OpenId
from refresher.domain.parts import parts_of

#: Hears of an account and of what stands in its way.
Refused = Callable[[OpenId, Exception], None]
Item = TypeVar("Item")
Row = TypeVar("Row")

#: An item's own failure, rather than that of a database that is away.
REFUSALS: Final = (DatabaseBusy, StatementFailed, asyncpg.PostgresError)


async def in_parts(
    items: Sequence[Item],
    unit: Callable[[Sequence[Item]], Awaitable[Sequence[Row]]],
    refused: Callable[[Item, Exception], None],
    split_seconds: float = inf,
) -> Sequence[Row]:
    """The unit's rows for all items in one go, where that fails in parts.

    After `split_seconds` what fails is split no further; its items are left out unheard of.

    An item that a trigger, a constraint or a lock stands in the way of is left out, and `refused`
    hears of it. Raises `DatabaseUnavailable`, and what the unit raises for no items at all.
    """
    until = monotonic() + split_seconds
    try:
        return await unit(items)
    except REFUSALS:
        await unit(())
    return await _of_parts(items, unit, refused, until)


async def _of_parts(
    items: Sequence[Item],
    unit: Callable[[Sequence[Item]], Awaitable[Sequence[Row]]],
    refused: Callable[[Item, Exception], None],
    until: float,
) -> Sequence[Row]:
    rows: list[Row] = []
    for part in parts_of(items):
        try:
            rows += await unit(part)
        except REFUSALS as error:
            if len(part) == 1:
                refused(part[0], error)
            elif monotonic() < until:
                rows += await _of_parts(part, unit, refused, until)
    return rows
