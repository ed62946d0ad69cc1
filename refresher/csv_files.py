"""The CSV files of `accounts import` and `videos import`: rows checked, errors with their line."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from refresher.domain.errors import CoverUnusable
from refresher.domain.expiry import named_expiry, usable_url
from refresher.domain.model import usable_token

ACCOUNT_COLUMNS: Final = (
    "open_id",
    "access_token",
    "access_token_expires_at",
    "refresh_token",
    "refresh_token_expires_at",
    "scope",
)
VIDEO_COLUMNS: Final = ("open_id", "video_id", "cover_image_url")
COLUMN_NAME: Final = re.compile(r"[a-z_; ]{0,60}", re.IGNORECASE)
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
                _token("refresh_token", value) if (value := row.get("refresh_token")) else None,
                _time("refresh_token_expires_at", row.get("refresh_token_expires_at")),
                _scope(row.get("scope") or None),
            )


def read_videos(
    path: Path, now: datetime, on_progress: Callable[[int], None] = lambda _: None
) -> Iterator[VideoRow]:
    """The videos of a file; `on_progress` hears of the lines read. Raises `BadFileError`."""
    for line, row in _rows(path, VIDEO_COLUMNS, required=("open_id", "video_id")):
        with _complaints_about(path, line):
            url = _cover_url(row.get("cover_image_url"))
            yield VideoRow(
                line,
                _open_id(row["open_id"]),
                _video_id(row["video_id"]),
                url,
                _named_expiry(url, now) if url else None,
            )
        on_progress(line)


def _named_expiry(url: str, now: datetime) -> datetime | None:
    seconds = named_expiry(url, now.timestamp())
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def count_lines(path: Path) -> int:
    """How many lines a file has, for a progress bar. Raises `BadFileError`."""
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from None


def _rows(
    path: Path, columns: Sequence[str], required: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            _check_header(path, header, columns, required)
            ended = lines.line_num
            for cells in lines:
                line, ended = ended + 1, lines.line_num
                if len(cells) not in {0, len(header)}:
                    raise BadFileError(
                        f"{path}:{line}: expected {len(header)} columns, not {len(cells)}"
                    )
                if cells:
                    yield line, dict(zip(header, cells, strict=True))
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadFileError(f"{path}: expected text in UTF-8") from None
    except csv.Error as error:
        raise BadFileError(f"{path}:{lines.line_num}: {error}") from None


def _check_header(
    path: Path, header: Sequence[str], columns: Sequence[str], required: Sequence[str]
) -> None:
    known, complete = set(header) <= set(columns), set(required) <= set(header)
    if not (known and complete and len(set(header)) == len(header)):
        # A first row in the place of the header may hold a token: only what looks like a name.
        shown = ",".join(cell if COLUMN_NAME.fullmatch(cell) else "…" for cell in header)[:200]
        optional = ",".join(column for column in columns if column not in required)
        raise BadFileError(
            f"{path}:1: expected the columns {','.join(required)} (and perhaps {optional}), "
            f"separated by commas, not {shown!r}"
        )


@contextmanager
def _complaints_about(path: Path, line: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, CoverUnusable) as error:
        raise BadFileError(f"{path}:{line}: {error}") from None


def _open_id(value: str) -> str:
    if not 0 < len(value) <= LONGEST_OPEN_ID or not value.isprintable():
        raise ValueError(f"open_id: expected 1 to {LONGEST_OPEN_ID} characters, not {value[:50]!r}")
    return value


def _video_id(value: str) -> str:
    if not (value.isascii() and value.isdecimal() and len(value) <= LONGEST_VIDEO_ID):
        raise ValueError(f"video_id: expected 1 to {LONGEST_VIDEO_ID} digits, not {value[:50]!r}")
    return value


def _token(column: str, value: str) -> str:
    if not usable_token(value):
        raise ValueError(f"expected a token in column {column}, not an empty or unprintable value")
    return value


def _scope(value: str | None) -> str | None:
    if value is not None and not value.isprintable():
        raise ValueError(f"scope: expected printable characters, not {value[:50]!r}")
    return value


def _time(column: str, value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{column}: expected an ISO 8601 time, not {value[:50]!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _cover_url(value: str | None) -> str | None:
    if not value:
        return None
    try:
        return usable_url(value)
    except CoverUnusable as reason:
        raise CoverUnusable(f"cover_image_url: {reason}") from None
