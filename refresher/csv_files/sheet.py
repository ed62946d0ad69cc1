"""A CSV file: its encoding, its separator, its header and its lines."""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import BufferedReader, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Final, TextIO

from refresher.csv_files.complaints import MOST_NAMED, STANDARD_INPUT, BadFileError, Doubts, named
from refresher.domain.spreadsheet import BLANKS, shown

COLUMN_NAME: Final = re.compile(r"[a-z_;| ]{0,60}", re.IGNORECASE)
SEPARATORS: Final = ",;\t"
SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?[,;\s]*', re.IGNORECASE)
UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def count_lines(path: Path) -> int | None:
    """How many lines a file has, for a progress bar; None for `-`. Raises `BadFileError`."""
    if path == STANDARD_INPUT:
        return None
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from None


class Sheet:
    """An open file whose header has been read."""

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
        # Strict: without it, the csv module ignores a quote that is not closed.
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
        """Line numbers and cells, in the order of `columns`; empty cells for missing columns.

        Raises `BadFileError` at the end, with all complaints.
        """
        width, needed, places = self._width, self._needed, self._places
        in_order = places == list(range(width))
        ended = self._lines.line_num
        while (cells := self._next()) is not None:
            line, ended = self._before + ended + 1, self._lines.line_num
            # Rows may be nothing but separators, or have some at their end.
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
def opened(
    path: Path, columns: Sequence[str], needed: Sequence[str], doubts: Doubts
) -> Iterator[Sheet]:
    encoding = "UTF-8"
    try:
        with _binary(path) as binary:
            encoding = _encoding(path, binary)
            codec = {"UTF-8": "utf-8-sig"}.get(encoding, encoding)
            with TextIOWrapper(binary, codec, newline="") as file:
                yield Sheet(path, file, columns, needed, doubts)
    except OSError as error:
        raise BadFileError(f"{named(path)}: {error.strerror}") from None
    except UnicodeError:
        raise BadFileError(f"{named(path)}: expected text in {encoding}") from None


def _binary(path: Path) -> AbstractContextManager[BufferedReader]:
    if path == STANDARD_INPUT:
        # A second reader for the same descriptor.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return path.open("rb")


def _encoding(path: Path, binary: BufferedReader) -> str:
    start = binary.peek(4)[:4]
    if start in WORKBOOKS:
        raise BadFileError(f"{named(path)}: expected CSV, not a workbook: save it as CSV UTF-8")
    return "UTF-16" if start.startswith(UTF_16) else "UTF-8"


def _first_line(path: Path, file: TextIO) -> tuple[str, int, str | None]:
    """The line of the header, how many lines come before it, and the separator if one is named."""
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
    """The separator that finds most columns; a comma if none is better."""

    def found(separator: str) -> int:
        try:
            cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:  # we complain when we read the header itself
            return 0
        return sum(cell.strip(f"{BLANKS}\r\n").lower() in columns for cell in cells)

    return max(SEPARATORS, key=found)


def _wrong_header(
    path: Path, line: int, header: Sequence[str], columns: Sequence[str], needed: Sequence[str]
) -> str:
    # A row in place of the header may hold a token: show only cells that look like names.
    told = ",".join(cell if COLUMN_NAME.fullmatch(cell) else "…" for cell in header)[:200]
    optional = ",".join(column for column in columns if column not in needed)
    return (
        f"{named(path)}:{line}: expected the columns {','.join(needed)} (and perhaps {optional}), "
        f"separated by commas, semicolons or tabs, not {told!r}"
    )
