"""Which videos spoil a chunk: halves are asked until each bad video was refused alone."""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: After so many were refused alone and no part was answered, the refusals are not about them.
HOPELESS: Final = 2


class Bisection(Generic[T]):
    """Finds the bad ones among `suspects`, which were refused as a whole. Ask one part at a time.

    `bad` are those refused alone, so a single suspect is bad at once. Each other suspect is in one
    part that was answered. One bad among n takes ceil(log2 n) + 2 requests at most, and each
    further one 2 ceil(log2 n). All together take less than 2 n + ceil(log2 n) in any case.
    """

    def __init__(self, suspects: Sequence[T]) -> None:
        self.bad: list[T] = []
        self._answered = False
        # The last one is asked next. A first half is flagged: its second half lies right below it.
        self._unasked: list[tuple[Sequence[T], bool]] = []
        self._asked: tuple[Sequence[T], bool] = (suspects, False)
        self._refused(suspects)

    @property
    def hopeless(self) -> bool:
        """Everything seems to be refused: `bad` proves nothing, and going on is a waste."""
        return len(self.bad) >= HOPELESS and not self._answered

    def next_part(self) -> Sequence[T] | None:
        """The part to ask now; None when all is known. Call `tell` before the next one."""
        if not self._unasked:
            return None
        self._asked = self._unasked.pop()
        return self._asked[0]

    def tell(self, *, refused: bool) -> None:
        """What became of the part that `next_part` returned last."""
        part, is_first_half = self._asked
        if refused:
            self._refused(part)
            return
        self._answered = True
        if is_first_half:
            second_half, _ = self._unasked.pop()
            self._narrow(second_half)

    def _refused(self, part: Sequence[T]) -> None:
        if len(part) > 1:
            self._narrow(part)
            return
        self.bad.extend(part)
        if len(self.bad) == 1:
            self._join_unasked()

    def _narrow(self, part: Sequence[T]) -> None:
        """Take a part apart that must hold a bad one; a single one is asked alone."""
        half = len(part) // 2
        self._unasked.append((part[half:], False))
        if half:
            self._unasked.append((part[:half], True))

    def _join_unasked(self) -> None:
        """Ask all the others in one request: mostly only one is bad."""
        others = [suspect for part, _ in self._unasked for suspect in part]
        self._unasked = [(others, False)] if others else []
