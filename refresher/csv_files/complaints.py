"""What is said of a file: why it is refused, and what is doubtful about it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STANDARD_INPUT: Final = Path("-")
#: How many wrong lines are named.
MOST_NAMED: Final = 20


class BadFileError(Exception):
    """A CSV file that cannot be imported; each complaint names file, line, value and what was due.

    `more` lines are wrong beside those that the complaints name.
    """

    def __init__(self, *complaints: str, more: int = 0) -> None:
        self.complaints = (*complaints, *([f"wrong lines beside these: {more}"] if more else []))
        super().__init__("; ".join(self.complaints))


@dataclass(slots=True)
class Doubts:
    """What an import mentions and does all the same; with `strict` it is refused."""

    strict: bool = False
    mention: Callable[[str], None] = lambda _: None

    def about(self, path: Path, line: int, doubt: str) -> None:
        """Raises `BadFileError` where doubts are not allowed."""
        if self.strict:
            raise BadFileError(f"{named(path)}:{line}: {doubt}")
        self.mention(f"{named(path)}:{line}: {doubt}")


def named(path: Path) -> str:
    """A file in a message."""
    return "standard input" if path == STANDARD_INPUT else str(path)
