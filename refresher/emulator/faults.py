"""What is left to chance, and which fault it brings."""

from collections.abc import Iterable
from random import Random

from refresher.emulator.options import AnyFault


class Chances:
    """Sources of chance that follow from a seed.

    They are apart from each other, so that the number of IDs asked for does not move the faults.
    """

    def __init__(self, seed: int) -> None:
        self.faults = Random(f"faults {seed}")  # noqa: S311 - to be repeatable
        self.token_faults = Random(f"token faults {seed}")  # noqa: S311 - to be repeatable
        self.slow = Random(f"slow {seed}")  # noqa: S311 - to be repeatable
        self.other = Random(f"all else {seed}")  # noqa: S311 - to be repeatable


def drawn(chance: Random, faults: Iterable[tuple[AnyFault, float]]) -> AnyFault | None:
    """The fault of one request, if any. One draw, so that shares add up and never overlap."""
    draw = chance.random()
    for fault, share in faults:
        if draw < share:
            return fault
        draw -= share
    return None
