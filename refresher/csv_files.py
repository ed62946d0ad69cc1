"""The CSV files of `accounts import` and `videos import`: rows checked, errors with their line."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedReader, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Final, TextIO

from refresher.domain.cells import (
    ACCESS_TOKEN,
    BLANKS,
    REFRESH_TOKEN,
    Rounding,
    bare_token,
    cell_value,
    rounding,
    shown,
    time_value,
    video_id_digits,
)
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
ACCOUNT_NEEDS: Final = ("open_id", "access_token")
VIDEO_COLUMNS: Final = ("open_id", "video_id", "cover_image_url")
VIDEO_NEEDS: Final = ("open_id", "video_id")
COLUMN_NAME: Final = re.compile(r"[a-z_;| ]{0,60}", re.IGNORECASE)
#: What a column of tokens holds, and what it holds where two columns are exchanged.
KINDS: Final = {
    "access_token": ("an access token", REFRESH_TOKEN, "a refresh token"),
    "refresh_token": ("a refresh token", ACCESS_TOKEN, "an access token"),
}
LONGEST_VIDEO_ID: Final = 20
LONGEST_OPEN_ID: Final = 200

STANDARD_INPUT: Final = Path("-")
SEPARATORS: Final = ",;\t"
SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?[,;\s]*', re.IGNORECASE)
UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: How many wrong lines are named.
MOST_NAMED: Final = 20


class BadFileError(Exception):
    """A CSV file that cannot be imported; each complaint names file, line, value and what was due.

    `more` lines are wrong beside those that the complaints name.
    """

    def __init__(self, *complaints: str, more: int = 0) -> None:
        self.complaints = (*complaints, *([f"wrong lines beside these: {more}"] if more else []))
        super().__init__("; ".join(self.complaints))


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


@dataclass(slots=True)
class Doubts:
    """What an import mentions and does all the same; with `strict` it is refused."""

    strict: bool = False
    mention: Callable[[str], None] = lambda _: None

    def about(self, path: Path, line: int, doubt: str) -> None:
        """Raises `BadFileError` where doubts are not allowed."""
        if self.strict:
            raise BadFileError(f"{named(path)}:{line}: {doubt}")
        self.mention(f"{named(path)}:{line}: {doubt}")


def read_accounts(path: Path, *, doubts: Doubts | None = None) -> Iterator[AccountRow]:
    """The accounts of a file, or of standard input for `-`.

    All of it is read and checked; from the first wrong row on, none is given out. Raises
    `BadFileError`.
    """
    with _opened(path, ACCOUNT_COLUMNS, ACCOUNT_NEEDS, doubts or Doubts()) as sheet:
        for line, cells in sheet.rows():
            open_id, access, access_ends, refresh, refresh_ends, scope = cells
            try:
                row = AccountRow(
                    line,
                    _open_id(open_id),
                    _token("access_token", access),
                    _time("access_token_expires_at", access_ends),
                    _optional_token("refresh_token", refresh),
                    _time("refresh_token_expires_at", refresh_ends),
                    _scope(scope),
                )
            except ValueError as error:
                sheet.wrong(line, str(error))
                continue
            if sheet.is_good:
                yield row


def read_videos(
    path: Path,
    now: datetime,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    doubts: Doubts | None = None,
) -> Iterator[VideoRow]:
    """The videos of a file, as `read_accounts`; `on_progress` hears of the lines read."""
    doubts = doubts or Doubts()
    rounded = _Rounded()
    raw_open_id, open_id = "", ""
    with _opened(path, VIDEO_COLUMNS, VIDEO_NEEDS, doubts) as sheet:
        for line, cells in sheet.rows():
            try:
                # Nearly always that of the row before.
                if cells[0] != raw_open_id or not open_id:
                    raw_open_id, open_id = cells[0], ""
                    open_id = _open_id(raw_open_id)
                video_id = _video_id(cells[1])
                url = _cover_url(cells[2]) if cells[2] else None
                expires_at = _named_expiry(url, now) if url else None
            except (ValueError, CoverUnusable) as error:
                sheet.wrong(line, str(error))
                continue
            rounded.look(line, cells[1], video_id)
            if sheet.is_good:
                yield VideoRow(line, open_id, video_id, url, expires_at)
            on_progress(line)
        if sheet.is_good:
            rounded.tell(path, doubts)


def named(path: Path) -> str:
    """A file in a message."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def count_lines(path: Path) -> int | None:
    """How many lines a file has, for a progress bar; None for `-`. Raises `BadFileError`."""
    if path == STANDARD_INPUT:
        return None
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from None


@dataclass(slots=True)
class _Rounded:
    """IDs that a spreadsheet or a float seems to have rounded.

    Those that end as the rounded ones do are counted apart by how often others do.
    """

    rows: int = 0
    found: dict[Rounding, tuple[int, int, str]] = field(default_factory=dict)

    def look(self, line: int, cell: str, video_id: str) -> None:
        self.rows += 1
        if video_id[-1] != "0" and cell == video_id:  # nearly all of them
            return
        kind = rounding(cell, video_id)
        if kind is not None:
            count, first_line, first = self.found.get(kind, (0, line, video_id))
            self.found[kind] = (count + 1, first_line, first)

    def tell(self, path: Path, doubts: Doubts) -> None:
        told = [seen for kind, seen in self.found.items() if seen[0] * kind.by_chance > self.rows]
        if told:
            line, video_id = min((line, video_id) for _, line, video_id in told)
            doubts.about(
                path,
                line,
                f"video_id: {video_id} looks rounded by a spreadsheet "
                f"({sum(count for count, _, _ in told)} in all): format the column as text and "
                "export it again",
            )


class _Sheet:
    """An open file behind its header."""

    def __init__(
        self,
        path: Path,
        file: TextIO,
        columns: Sequence[str],
        needed: Sequence[str],
        doubts: Doubts,
    ) -> None:
        self._path = path
        self._complaints: list[str] = []
        self._wrong = 0
        line, self._before, separator = _first_line(path, file)
        header_line = self._before + 1
        # Nothing of it is passed on by the csv module where a quote is not closed.
        self._lines = csv.reader(
            chain([line], file),
            delimiter=separator or _separator(line, columns),
            strict=True,
            skipinitialspace=True,
        )
        header = [cell.strip(BLANKS) for cell in self._next() or []]
        while header and not header[-1]:
            header.pop()
        names = [name.lower() for name in header]
        if not set(needed) <= set(names) or any(names.count(name) > 1 for name in columns):
            raise BadFileError(_wrong_header(path, header_line, header, columns, needed))
        others = [name for name in header if name.lower() not in columns]
        if others:
            told = ", ".join(map(shown, others))
            doubts.about(path, header_line, f"no column of {','.join(columns)}, ignored: {told}")
        self._width = len(header)
        self._needed = names.index(needed[0])
        self._places = [names.index(name) if name in names else -1 for name in columns]

    @property
    def is_good(self) -> bool:
        return not self._wrong

    def wrong(self, line: int, complaint: str) -> None:
        self._wrong += 1
        if self._wrong <= MOST_NAMED:
            self._complaints.append(f"{named(self._path)}:{line}: {complaint}")

    def rows(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Lines and cells in the order of the columns, empty where there is no such column.

        Raises `BadFileError` at the end, with all that went wrong.
        """
        width, needed, places = self._width, self._needed, self._places
        in_order = places == list(range(width))
        ended = self._lines.line_num
        while (cells := self._next()) is not None:
            line, ended = self._before + ended + 1, self._lines.line_num
            # Rows of nothing but separators, and separators at the end of rows.
            if len(cells) != width or not cells[needed].strip(BLANKS):
                while len(cells) > width and not cells[-1].strip(BLANKS):
                    cells.pop()
                if not any(cell.strip(BLANKS) for cell in cells):
                    continue
                if len(cells) != width:
                    self.wrong(line, f"expected {width} columns, not {len(cells)}")
                    continue
            yield line, cells if in_order else [cells[at] if at >= 0 else "" for at in places]
        if self._wrong:
            raise BadFileError(*self._complaints, more=max(0, self._wrong - MOST_NAMED))

    def _next(self) -> list[str] | None:
        try:
            return next(self._lines, None)
        except csv.Error as error:
            self.wrong(self._before + self._lines.line_num, str(error))
            raise BadFileError(*self._complaints, more=max(0, self._wrong - MOST_NAMED)) from None


@contextmanager
def _opened(
    path: Path, columns: Sequence[str], needed: Sequence[str], doubts: Doubts
) -> Iterator[_Sheet]:
    encoding = "UTF-8"
    try:
        with _binary(path) as binary:
            encoding = _encoding(path, binary)
            codec = {"UTF-8": "utf-8-sig"}.get(encoding, encoding)
            with TextIOWrapper(binary, codec, newline="") as file:
                yield _Sheet(path, file, columns, needed, doubts)
    except OSError as error:
        raise BadFileError(f"{named(path)}: {error.strerror}") from None
    except UnicodeError:
        raise BadFileError(f"{named(path)}: expected text in {encoding}") from None


def _binary(path: Path) -> AbstractContextManager[BufferedReader]:
    if path == STANDARD_INPUT:
        # A reader of its own for the same descriptor.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return path.open("rb")


def _encoding(path: Path, binary: BufferedReader) -> str:
    start = binary.peek(4)[:4]
    if start in WORKBOOKS:
        raise BadFileError(f"{named(path)}: expected CSV, not a workbook: save it as CSV UTF-8")
    return "UTF-16" if start.startswith(UTF_16) else "UTF-8"


def _first_line(path: Path, file: TextIO) -> tuple[str, int, str | None]:
    """The header's line, how many lines come before it, and the separator where they name one."""
    separator = None
    before = 0
    while line := file.readline():
        if "\0" in line:
            raise BadFileError(
                f"{named(path)}: expected text in UTF-8, or in UTF-16 with a byte order mark"
            )
        told = SEPARATOR_LINE.fullmatch(line)
        if told and separator is None:
            separator = told[1]
            if separator not in SEPARATORS:
                raise BadFileError(
                    f"{named(path)}:{before + 1}: expected sep= and a comma, a semicolon or a tab, "
                    f"not {separator!r}"
                )
        elif line.strip(BLANKS + SEPARATORS + "\r\n"):
            break
        before += 1
    return line, before if line else 0, separator


def _separator(header: str, columns: Sequence[str]) -> str:
    """That by which most columns are found, a comma where none is better."""

    def found(separator: str) -> int:
        try:
            cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:  # said when the line is read in earnest
            return 0
        return sum(cell.strip(f"{BLANKS}\r\n").lower() in columns for cell in cells)

    return max(SEPARATORS, key=found)


def _wrong_header(
    path: Path, line: int, header: Sequence[str], columns: Sequence[str], needed: Sequence[str]
) -> str:
    # A first row in the place of the header may hold a token: only what looks like a name.
    told = ",".join(cell if COLUMN_NAME.fullmatch(cell) else "…" for cell in header)[:200]
    optional = ",".join(column for column in columns if column not in needed)
    return (
        f"{named(path)}:{line}: expected the columns {','.join(needed)} (and perhaps {optional}), "
        f"separated by commas, semicolons or tabs, not {told!r}"
    )


def _named_expiry(url: str, now: datetime) -> datetime | None:
    seconds = named_expiry(url, now.timestamp())
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _value(column: str, cell: str) -> str:
    try:
        return cell_value(cell)
    except ValueError as error:
        # What follows the name of a secret and a colon would be taken for the secret.
        told = f"{error} (column {column})" if column in KINDS else f"{column}: {error}"
        raise ValueError(told) from None


def _open_id(cell: str) -> str:
    value = _value("open_id", cell)
    if not 0 < len(value) <= LONGEST_OPEN_ID or not value.isprintable():
        raise ValueError(f"open_id: expected 1 to {LONGEST_OPEN_ID} characters, not {shown(value)}")
    if value.startswith((ACCESS_TOKEN, REFRESH_TOKEN)):
        raise ValueError("open_id: expected an open_id, not a token")
    return value


def _video_id(cell: str) -> str:
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


def _token(column: str, cell: str) -> str:
    token = _optional_token(column, cell)
    if token is None:
        raise ValueError(f"expected a token in column {column}, not an empty or unprintable value")
    return token


def _optional_token(column: str, cell: str) -> str | None:
    value = _value(column, cell) if cell else ""
    if not value:
        return None
    # Only with a blank in it there is something before it.
    if not usable_token(value) and not usable_token(value := bare_token(value)):
        raise ValueError(f"expected a token in column {column}, not an empty or unprintable value")
    kind, other_prefix, other = KINDS[column]
    if value.startswith(other_prefix):
        raise ValueError(
            f"expected {kind} in column {column}, not {other}: are the two columns exchanged?"
        )
    return value


def _scope(cell: str) -> str | None:
    value = _value("scope", cell)
    if not value.isprintable():
        raise ValueError(f"scope: expected printable characters, not {shown(value)}")
    return value or None


def _time(column: str, cell: str) -> datetime | None:
    if not cell:
        return None
    try:
        value = cell_value(cell)
        return time_value(value) if value else None
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _cover_url(cell: str) -> str | None:
    value = _value("cover_image_url", cell)
    try:
        return usable_url(value) if value else None
    except CoverUnusable as reason:
        raise CoverUnusable(f"cover_image_url: {reason}") from None
