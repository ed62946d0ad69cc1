"""What a setting takes, and how what was given becomes its value.

Few kinds, so no library: one that checks models would stay loaded as long as the daemon runs, and
take a sixth of its memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol, TypeVar

WHOLE_NUMBER: Final = re.compile(r"\s*([+-]?\d+(?:_\d+)*)(?:\.0*)?\s*", re.ASCII)
TRUTHS: Final = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "off", "f", "false", "n", "no"), False),
}

N = TypeVar("N", int, float)


class Kind(Protocol):
    """A kind of values. `read` raises ValueError: "expected ..."."""

    def read(self, given: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that no representation shows."""

    _value: str = field(repr=False)

    def get_secret_value(self) -> str:
        return self._value


@dataclass(frozen=True, slots=True)
class _Bounded:
    """Numbers of `ge` or more, of more than `gt`, of `le` or less."""

    le: float
    ge: float = -inf
    gt: float = -inf

    def _within(self, value: N) -> N:
        # Said so that NaN is none of them.
        if not value <= self.le:
            raise ValueError(f"expected {self.le:.10g} or less")
        if not value >= self.ge:
            raise ValueError(f"expected {self.ge:.10g} or more")
        if not value > self.gt:
            raise ValueError(f"expected more than {self.gt:.10g}")
        return value


class Whole(_Bounded):
    """Whole numbers."""

    __slots__ = ()

    def read(self, given: object) -> int:
        found = WHOLE_NUMBER.fullmatch(str(given))
        try:
            value = int(found[1]) if found else None
        except ValueError:  # more digits than Python reads
            value = None
        if value is None:
            raise ValueError("expected a whole number")
        return self._within(value)


class Number(_Bounded):
    """Numbers."""

    __slots__ = ()

    def read(self, given: object) -> float:
        text = str(given)
        try:
            value = float(text.encode("ascii"))
        except ValueError:
            raise ValueError("expected a number") from None
        return self._within(value)


class Truth:
    """Yes or no."""

    def read(self, given: object) -> bool:
        try:
            return TRUTHS[str(given).lower()]
        except KeyError:
            raise ValueError("expected true or false") from None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, at least two."""

    words: tuple[str, ...]

    def read(self, given: object) -> str:
        text = _text(given)
        if text not in self.words:
            *others, last = map(repr, self.words)
            raise ValueError(f"expected {', '.join(others)} or {last}")
        return text


@dataclass(frozen=True, slots=True)
class Text:
    """Texts that `checked` takes: it returns what becomes of them, or raises ValueError."""

    checked: Callable[[str], str]

    def read(self, given: object) -> str:
        return self.checked(_text(given))


@dataclass(frozen=True, slots=True)
class SecretText:
    """Secrets that `check` lets pass: it raises ValueError."""

    check: Callable[[str], object]

    def read(self, given: object) -> Secret:
        text = _text(given)
        self.check(text)
        return Secret(text)


def _text(given: object) -> str:
    text = str(given)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text in UTF-8") from None
    return text
