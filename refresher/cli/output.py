"""What commands print on standard error, and the two ways in which a command fails."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

#: The variable of a secret, or its file, in a complaint: the text after it is a sentence, of ours
#: or of the operating system, and not the secret.
COMPLAINT: Final = re.compile(r"(\b(?i:refresher)_[A-Za-z_]+: )(?=expected |[A-Z][a-z/]+ [a-z])")

#: The width of a table that goes into a file or to another program: no line may be folded.
WIDE: Final = 1000


class Misuse(Exception):
    """The operator asked for something impossible; the message says why."""


class Incomplete(Exception):
    """The command did what it could, but something is left; the message, if any, says what."""


def say(message: str) -> None:
    """Print one line on standard error, without secrets."""
    print(f"refresher: {one_line(message)}", file=sys.stderr)


def one_line(message: str) -> str:
    """The message in one line, without secrets."""
    from refresher.logs import redacted_text

    names_and_texts = COMPLAINT.split(message)
    names_and_texts[::2] = map(redacted_text, names_and_texts[::2])
    return " ".join("".join(names_and_texts).split())


def printable(text: str) -> str:
    """Foreign text for a terminal: without control characters, which could rewrite the screen."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def unmarked(text: str) -> Text:
    """Foreign text for a table: `printable`, and its square brackets are no markup."""
    from rich.text import Text

    return Text(printable(text))


def encodable(text: str, *, output: bool = False) -> bool:
    """Whether text can be sent to the database; or to standard output, as that is set."""
    try:
        text.encode((sys.stdout.encoding if output else None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """A line for each name and value; the values stand below each other."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(printable(f"{name:<{width}}  {value}").rstrip())


def terminal_width() -> int | None:
    """Of standard output, as tables are fitted to it; None: it is no terminal."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def print_table(table: Table) -> None:
    """Fitted to a terminal. Elsewhere no line is folded, and none ends in spaces."""
    from rich.console import Console

    if terminal_width() is not None:
        Console(highlight=False).print(table)
        return
    console = Console(width=WIDE, highlight=False)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")), flush=True)


def short(moment: datetime | None) -> str:
    """The moment to the second; empty for None."""
    return moment.isoformat(sep=" ", timespec="seconds") if moment else ""
