"""How what was given for a setting becomes its value.

msgspec judges numbers, truths and words: it is loaded anyway. A library that checks models would
stay loaded as long as the daemon runs, and take a sixth of its memory.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Protocol, get_args, get_origin

import msgspec
from msgspec import Meta

#: What a number is called.
NUMBERS: Final = {int: "a whole number", float: "a number"}


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
class Plain:
    """Values of a type that msgspec reads: a bounded number, true or false, one of some words."""

    type: Any

    def read(self, given: object) -> object:
        text = _text(given).strip()
        value = _number(text) if get_origin(self.type) is Annotated else text
        try:
            return msgspec.convert(value, self.type, strict=False)
        except msgspec.ValidationError:
            raise ValueError(f"expected {_expected(self.type, value)}") from None


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


def _number(text: str) -> float | str:
    """As Python writes numbers: more ways than JSON's, which msgspec knows. Else the text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text.encode("ascii"))
    return text


def _expected(wanted: Any, given: float | str) -> str:
    """What something that is not of this type should have been."""
    if wanted is bool:
        return "true or false"
    if get_origin(wanted) is Literal:
        *others, last = map(repr, get_args(wanted))
        return f"{', '.join(others)} or {last}"
    number, bounds = get_args(wanted)
    try:
        value = msgspec.convert(given, number, strict=False)
    except msgspec.ValidationError:
        return NUMBERS[number]
    return _bound(value, bounds)


def _bound(value: float, bounds: Meta) -> str:
    """The bound that a number is beyond. Said so that NaN is beyond each."""
    if bounds.le is not None and not value <= bounds.le:
        return f"{bounds.le:.10g} or less"
    if bounds.ge is not None:
        return f"{bounds.ge:.10g} or more"
    return f"more than {bounds.gt:.10g}"
