"""Single fields of an answer, and foreign text."""

from typing import Final

import msgspec

#: What decoding raises for bytes that are not what they should be.
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
LONGEST_TEXT: Final = 200

_decode_anything = msgspec.json.Decoder().decode


def anything(raw: msgspec.Raw) -> object:
    """What a field holds; None also where it is left out or cannot be decoded."""
    try:
        return _decode_anything(raw)
    except UNDECODABLE:
        return None


def text(raw: msgspec.Raw) -> str:
    """A field's text; empty for anything else."""
    value = anything(raw)
    return value if isinstance(value, str) else ""


def short(text: str) -> str:
    """Foreign text that is to be logged and stored: of a bounded length, and without NUL."""
    return text[:LONGEST_TEXT].replace("\0", "")
