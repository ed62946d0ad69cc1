"""Numbers and times as operators read them."""

from datetime import datetime
from typing import Final

UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """The two largest units: `5 h 12 min`."""
    words: list[str] = []
    left = max(0, round(seconds))
    for unit, size in UNITS:
        count, left = divmod(left, size)
        if count or words:
            words.append(f"{count:,} {unit}" if count else "")
    return " ".join(filter(None, words[:2])) or "0 s"


def since(now: datetime, then: datetime) -> str:
    """How long ago; a time in the future counts as just now."""
    return span((now - then).total_seconds())


def moment(when: datetime) -> str:
    """To the second."""
    return when.isoformat(sep=" ", timespec="seconds")


def seen_from(now: datetime, when: datetime) -> str:
    """The moment, and how far it is away."""
    seconds = (when - now).total_seconds()
    if abs(seconds) < 1:
        return f"{moment(when)} (now)"
    away = f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"
    return f"{moment(when)} ({away})"


def number(value: float) -> str:
    """Whole, with thousands apart."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """Cut, so that 100 % is said of all of them only."""
    # Rounded before, as 0.57 * 10,000 is 5,699.99….
    return f"{int(round(share * 10_000, 9)) / 100:g} %"


def counted(count: int, noun: str) -> str:
    """`1 account`, `42 accounts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
