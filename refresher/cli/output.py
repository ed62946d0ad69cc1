"""What the commands say, and the ways a command fails."""

import re
import sys
from datetime import datetime
from typing import Final, NoReturn

from refresher import logs

EXIT_INCOMPLETE: Final = 1
EXIT_USAGE: Final = 2

#: A complaint names the variable of a secret, or its file: what follows is a sentence of ours or of
#: the operating system, not its value.
COMPLAINT: Final = re.compile(r"(\b(?i:refresher)_[A-Za-z_]+: )(?=expected |[A-Z][a-z/]+ [a-z])")

WIDE: Final = 1000


def fail(message: str) -> NoReturn:
    say(message)
    sys.exit(EXIT_USAGE)


def say(message: str) -> None:
    names_and_texts = COMPLAINT.split(message)
    names_and_texts[::2] = map(logs.redacted_text, names_and_texts[::2])
    print(f"refresher: {' '.join(''.join(names_and_texts).split())}", file=sys.stderr)


def short(moment: datetime | None) -> str:
    return moment.isoformat(sep=" ", timespec="seconds") if moment else ""
