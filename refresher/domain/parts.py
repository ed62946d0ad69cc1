"""Splitting items that failed together, to find those that fail by themselves."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeVar

Item = TypeVar("Item")

#: If a lock is in the way, each part that fails has waited for it: few levels of splitting save
#: more time than few statements.
PARTS: Final = 8


def parts_of(items: Sequence[Item], number: int = PARTS) -> list[Sequence[Item]]:
    """The items in at most so many parts, of lengths that differ by one at most."""
    number = min(number, len(items))
    bounds = [part * len(items) // max(1, number) for part in range(number + 1)]
    return [items[first:last] for first, last in pairwise(bounds)]
