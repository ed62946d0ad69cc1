"""The CSV files of `accounts import` and `videos import`: rows checked, errors with their line."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import named_expiry, usable_url

ACCOUNT_COLUMNS: Final = (
    "open_id",
    "access_token",
    "access_token_expires_at",
    "refresh_token",
    "refresh_token_expires_at",
    "scope",
)
VIDEO_COLUMNS: Final = ("open_id", "video_id", "cover_image_url")
LONGEST_VIDEO_ID: Final = 20
LONGEST_OPEN_ID: Final = 200


class BadFileError(Exception):
    """A CSV file that cannot be imported; the message names file, line, value and what was due."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    line: int
    open_id: str
    access_token: str = field(repr=False)
    access_token_expires_at: datetime | None
    refresh_token: str | None = field(repr=False)
    refresh_token_expires_at: datetime | None
    scope: str | None


@dataclass(frozen=True, slots=True)
class VideoRow:
    """`cover_expires_at` is None where the URL names no expiry: its age is not known."""

    line: int
    open_id: str
    video_id: str
    cover_image_url: str | None
    cover_expires_at: datetime | None


def read_accounts(path: Path) -> Iterator[AccountRow]:
    """The accounts of a file. Raises `BadFileError`."""
    for line, row in _rows(path, ACCOUNT_COLUMNS, required=("open_id", "access_token")):
        with _complaints_about(path, line):
            yield AccountRow(
                line,
                _open_id(row["open_id"]),
                _token("access_token", row["access_token"]),
                _time("access_token_expires_at", row.get("access_token_expires_at")),
                _token("refresh_token", row.get("refresh_token") or None),
                _time("refresh_token_expires_at", row.get("refresh_token_expires_at")),
                row.get("scope") or None,
            )


def read_videos(
    path: Path, now: datetime, on_progress: Callable[[int], None] = lambda _: None
) -> Iterator[VideoRow]:
    """The videos of a file; `on_progress` hears of the lines read. Raises `BadFileError`."""
