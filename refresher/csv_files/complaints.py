"""What we say about a file: why it is refused, and what is doubtful in it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STANDARD_INPUT: Final = Path("-")
#: How many wrong lines are named.
MOST_NAMED: Final = 20


class BadFileError(Exception):
    """A CSV file that cannot be imported.

    Each complaint names file, line, value and what was expected. `more` lines are wrong, too.
    """

    def __init__(self, *complaints: str, more: int = 0) -> None:
        self.complaints = (*complaints, *([f"wrong lines beside these: {more}"] if more else []))
        super().__init__("; ".join(self.complaints))


@dataclass(slots=True)
class Doubts:
    """What is doubtful in a file."""

    #: Refuse the file. Otherwise the doubt is mentioned, and the file imported.
    strict: bool = False
    mention: Callable[[str], None] = lambda _: None

    def about(self, path: Path, line: int, doubt: str) -> None:
        """Raises `BadFileError` with `strict`."""
        if self.strict:
            raise BadFileError(f"{named(path)}:{line}: {doubt}")
        self.mention(f"{named(path)}:{line}: {doubt}")


def named(path: Path) -> str:
    """The name of a file in a message."""
    return "standard input" if path == STANDARD_INPUT else str(path)
