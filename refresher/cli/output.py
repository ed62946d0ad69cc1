"""What commands say on standard error, and the two ways in which a command ends badly."""

import re
import sys
from datetime import datetime
from typing import Final

#: A complaint names the variable of a secret, or its file: what follows is a sentence of ours or of
#: the operating system, not its value.
COMPLAINT: Final = re.compile(r"(\b(?i:refresher)_[A-Za-z_]+: )(?=expected |[A-Z][a-z/]+ [a-z])")

#: Columns of a table that goes into a file or to another program: no line may be folded.
WIDE: Final = 1000


class Misuse(Exception):
    """What the operator asked for cannot be done; the message says why."""


class Incomplete(Exception):
    """The command did what it could, and something is left; the message, if any, says what."""


def say(message: str) -> None:
    """Print one line on standard error, without secrets."""
    from refresher.logs import redacted_text

    names_and_texts = COMPLAINT.split(message)
    names_and_texts[::2] = map(redacted_text, names_and_texts[::2])
    print(f"refresher: {' '.join(''.join(names_and_texts).split())}", file=sys.stderr)


def short(moment: datetime | None) -> str:
    """The moment to the second; empty for None."""
    return moment.isoformat(sep=" ", timespec="seconds") if moment else ""
