"""The value in a cell of each column.

Each function raises `ValueError`, or `CoverUnusable` for a cover, which says what was expected.
"""

from datetime import UTC, datetime
from typing import Final

from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import named_expiry, usable_url
from refresher.domain.model import usable_token
from refresher.domain.spreadsheet import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    bare_token,
    cell_value,
    shown,
    time_value,
    video_id_digits,
)

#: What a column of tokens holds, and what it holds if two columns are exchanged.
KINDS: Final = {
    "access_token": ("an access token", REFRESH_TOKEN, "a refresh token"),
    "refresh_token": ("a refresh token", ACCESS_TOKEN, "an access token"),
}
LONGEST_VIDEO_ID: Final = 20
LONGEST_OPEN_ID: Final = 200


def expiry_of(url: str, now: datetime) -> datetime | None:
    seconds = named_expiry(url, now.timestamp())
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _value(column: str, cell: str) -> str:
    try:
        return cell_value(cell)
    except ValueError as error:
        # Text after the name of a secret and a colon would be redacted.
        told = f"{error} (column {column})" if column in KINDS else f"{column}: {error}"
        raise ValueError(told) from None


def open_id_of(cell: str) -> str:
    value = _value("open_id", cell)
    if not 0 < len(value) <= LONGEST_OPEN_ID or not value.isprintable():
        raise ValueError(f"open_id: expected 1 to {LONGEST_OPEN_ID} characters, not {shown(value)}")
    if value.startswith((ACCESS_TOKEN, REFRESH_TOKEN)):
        raise ValueError("open_id: expected an open_id, not a token")
    return value


def video_id_of(cell: str) -> str:
    value = _value("video_id", cell)
    if value.isdecimal() and value.isascii() and len(value) <= LONGEST_VIDEO_ID:
        return value
    try:
        value = video_id_digits(value)
    except ValueError as error:
        raise ValueError(f"video_id: {error}") from None
    if not (value.isascii() and value.isdecimal() and len(value) <= LONGEST_VIDEO_ID):
        raise ValueError(f"video_id: expected 1 to {LONGEST_VIDEO_ID} digits, not {shown(value)}")
    return value


def token_of(column: str, cell: str) -> str:
    token = optional_token_of(column, cell)
    if token is None:
        raise ValueError(f"expected a token in column {column}, not an empty or unprintable value")
    return token


def optional_token_of(column: str, cell: str) -> str | None:
    value = _value(column, cell) if cell else ""
    if not value:
        return None
    # A word before the token makes it unusable: there is a blank in it.
    if not usable_token(value) and not usable_token(value := bare_token(value)):
        raise ValueError(f"expected a token in column {column}, not an empty or unprintable value")
    kind, other_prefix, other = KINDS[column]
    if value.startswith(other_prefix):
        raise ValueError(
            f"expected {kind} in column {column}, not {other}: are the two columns exchanged?"
        )
    return value


def scope_of(cell: str) -> str | None:
    value = _value("scope", cell)
    if not value.isprintable():
        raise ValueError(f"scope: expected printable characters, not {shown(value)}")
    return value or None


def time_of(column: str, cell: str) -> datetime | None:
    if not cell:
        return None
    try:
        value = cell_value(cell)
        return time_value(value) if value else None
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def cover_url_of(cell: str) -> str | None:
    value = _value("cover_image_url", cell)
    try:
        return usable_url(value) if value else None
    except CoverUnusable as reason:
        raise CoverUnusable(f"cover_image_url: {reason}") from None
