"""Numbers and times as operators read them."""

from datetime import datetime
from typing import Final

#: Units of time, from the longest, each with the seconds that it takes.
UNITS: Final = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def number(value: float) -> str:
    """Whole, with thousands apart."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """Cut, so that 100 % is said of all of them only."""
    # Rounded before, as 0.57 * 10,000 is 5,699.99….
    return f"{int(round(share * 10_000, 9)) / 100:g} %"


def span(seconds: float) -> str:
    """A length of time in its largest unit, and the next one where that matters: 1 h 20 min."""
    seconds = max(0.0, seconds)
    for place, (unit, size) in enumerate(UNITS):
        if seconds >= size:
            whole = int(seconds // size)
            rest = _rest(seconds - whole * size, place + 1) if whole < 10 else ""  # noqa: PLR2004
            return f"{whole:,} {unit}{rest}"
    return "0 s"


def _rest(seconds: float, place: int) -> str:
    if place >= len(UNITS):
        return ""
    unit, size = UNITS[place]
    whole = int(seconds // size)
    return f" {whole} {unit}" if whole else ""


def since(now: datetime, then: datetime) -> str:
    """How long ago; a time in the future counts as just now."""
    return span((now - then).total_seconds())
