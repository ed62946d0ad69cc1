"""What a cell of a spreadsheet means: its value, or why there is none."""

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

#: Blanks and invisible characters that come along when one copies a cell.
BLANKS: Final = (
    " \t\u00a0\u1680\u202f\u205f\u3000\u200e\u200f\u2060\ufeff"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d"
)
#: Characters with which something begins that is put around a value.
DRESSED: Final = frozenset("='\"`#\\\u201c\u201d\u201e\u2018\u2019\u201a\u00ab")
QUOTES: Final = ("''", '""', "``", "\u201c\u201d", "\u201e\u201c", "\u2018\u2019", "\u201a\u2018")
TEXT_FORMULA: Final = re.compile(r'="(.*)"', re.DOTALL)
SHEET_ERROR: Final = re.compile(r"#(?:#+|[A-ZÀ-Þ][A-ZÀ-Þ0-9/]*[!?]?)")
#: With which a spreadsheet begins a formula.
FORMULA_BEGINNINGS: Final = ("=", "+", "-", "@", "\t", "\r")
#: NULL as PostgreSQL and MySQL write it into files.
NULL: Final = r"\N"

BEARER: Final = re.compile(rf"bearer[{BLANKS}]+", re.IGNORECASE)
ACCESS_TOKEN, REFRESH_TOKEN = "act.", "rft."
TOKEN: Final = re.compile(r"bearer\b|act\.|rft\.|clt\.|gAAAA", re.IGNORECASE)

SCIENTIFIC: Final = re.compile(r"\d+(?:[.,]\d+)?[eE]\+?\d+")
WHOLE: Final = re.compile(r"(\d+)[.,]0+")
#: A spreadsheet keeps so many digits of a number and replaces the others by zeros.
SHEET_DIGITS: Final = 15
#: Up to here a float keeps a whole number exactly.
FLOAT_EXACT: Final = 2**53

ISO_TIME: Final = re.compile(
    r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)(?:[Tt ]\d\d[\d:.,]*(?:[Zz]|[+-][\d:]+)?)?",
    re.ASCII,
)
ZONE: Final = re.compile(r" *(?:UTC|GMT|[Zz])$")
OFFSET: Final = re.compile(r" +(?=[+-]\d\d(?::?\d\d)?$)")
MAIL_TIME: Final = re.compile(
    r"(?:[A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)? (?:GMT|UTC|UT|[+-]\d{4})"
)
LOCAL_TIME: Final = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})"
    r"(?:,?[ T]+(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?(?: ?([AaPp])\.?[Mm]\.?)?)?"
)
LONGEST_TIME: Final = 60
#: Seconds, milliseconds and microseconds since 1970, told apart by their digits: 2001 to 2286.
EPOCH_TIME: Final = re.compile(r"(\d+)(?:[.,]0+)?", re.ASCII)
EPOCH_UNITS: Final = {10: 1, 13: 1_000, 16: 1_000_000}
MONTHS: Final = 12


def cell_value(text: str) -> str:
    """A cell without what spreadsheets and people put around a value; empty for NULL.

    Raises `ValueError` for a formula or an error, which a spreadsheet has put in place of a value.
    """
    if text.isalnum():  # nearly all cells
        return text
    text = text.strip(BLANKS)
    return _undressed(text) if text and text[0] in DRESSED else text


def _undressed(text: str) -> str:
    if text == NULL:
        return ""
    if as_text := TEXT_FORMULA.fullmatch(text):
        return as_text[1].strip(BLANKS)
    if text[0] == "=":
        raise ValueError("expected a value, not a formula")
    if SHEET_ERROR.fullmatch(text):
        raise ValueError(
            f"expected a value, not {text[:20]!r}, which a spreadsheet has put in its place: "
            "format the column as text"
        )
    for opening, closing in QUOTES:
        if len(text) > 1 and text[0] == opening and text[-1] == closing:
            return text[1:-1].strip(BLANKS)
    # An apostrophe tells a spreadsheet that the cell is text.
    return text.removeprefix("'").strip(BLANKS)


def safe_cell(text: str) -> str:
    """The text for a spreadsheet, which would take some beginnings for a formula.

    `cell_value` undoes it, so what is exported can be imported.
    """
    return f"'{text}" if text.startswith(FORMULA_BEGINNINGS) else text


def shown(text: str) -> str:
    """The text for a complaint, but not if a token is in it."""
    return "a token" if TOKEN.search(text) else repr(text[:50])


def bare_token(text: str) -> str:
    """A token without the `Bearer` that comes before it in a header line."""
    return cell_value(text[found.end() :]) if (found := BEARER.match(text)) else text


def video_id_digits(text: str) -> str:
    """The digits of an ID. Raises `ValueError` if a spreadsheet has rounded it."""
    if whole := WHOLE.fullmatch(text):
        return whole[1]
    if SCIENTIFIC.fullmatch(text):
        raise ValueError(
            f"expected 1 to 20 digits, not {text[:50]!r}: a spreadsheet has rounded it; format the "
            "column as text and export it again"
        )
    return text


class Rounding(Enum):
    """How an ID ends that lost its last digits.

    If more than one ID in `by_chance` of a file ends so, that is no chance. Of IDs that nobody has
    rounded, far fewer do: one in 100,000, in 10,000 and in 1,024.
    """

    FIVE_ZEROS = 1_000
    FOUR_ZEROS = 100
    FLOAT = 99

    @property
    def by_chance(self) -> int:
        return self.value


def rounding(cell: str, video_id: str) -> Rounding | None:
    """How an ID, in a cell like this, may have been rounded; None for most."""
    if len(video_id) <= SHEET_DIGITS:
        return None
    if video_id.endswith("00000"):
        return Rounding.FIVE_ZEROS
    if video_id.endswith("0000"):  # of 19 digits a spreadsheet keeps 15
        return Rounding.FOUR_ZEROS
    number = int(video_id)
    as_fraction = WHOLE.search(cell) is not None
    exact = number > FLOAT_EXACT and int(float(number)) == number
    return Rounding.FLOAT if as_fraction and exact else None


def time_value(text: str) -> datetime:
    """A point in time as spreadsheets and databases write it; UTC if it names no zone.

    ISO 8601 and similar forms; seconds, milliseconds and microseconds since 1970; the form in
    mails; and dates that can be read in one way only. Raises `ValueError` for all else.
    """
    try:
        time = datetime.fromisoformat(text) if ISO_TIME.fullmatch(text) else _written_time(text)
        if time.year in {MINYEAR, MAXYEAR}:
            time = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, _UnclearError) else ""
        raise ValueError(f"expected an ISO 8601 time, not {shown(text)}{reason}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class _UnclearError(ValueError):
    """Something more is wrong than that it is not ISO 8601."""


def _epoch_time(digits: str) -> datetime:
    unit = EPOCH_UNITS.get(len(digits))
    if unit is None or digits[0] == "0":
        raise _UnclearError(": since 1970 it is 10 digits of seconds, 13 of milliseconds")
    return datetime.fromtimestamp(int(digits) / unit, UTC)


def _written_time(text: str) -> datetime:
    if len(text) > LONGEST_TIME:
        raise ValueError
    if digits := EPOCH_TIME.fullmatch(text):
        return _epoch_time(digits[1])
    if MAIL_TIME.fullmatch(text):
        return parsedate_to_datetime(text)
    plain = OFFSET.sub("", ZONE.sub("", text))
    zoned = plain if plain == text or "+" in plain[10:] or "-" in plain[10:] else f"{plain}+00:00"
    if ISO_TIME.fullmatch(zoned):
        return datetime.fromisoformat(zoned)
    local = LOCAL_TIME.fullmatch(plain)
    if local is None:
        raise ValueError
    first, separator, second, third, hour, minute, seconds, half = local.groups()
    year, month, day = _date(first, separator, second, third)
    hours = int(hour or 0)
    if half:
        if not 1 <= hours <= MONTHS:
            raise ValueError
        hours = hours % 12 + (12 if half in "Pp" else 0)
    return datetime(year, month, day, hours, int(minute or 0), int(seconds or 0), tzinfo=UTC)


def _date(first: str, separator: str, second: str, third: str) -> tuple[int, int, int]:
    if len(first) == len("2026"):
        return int(first), int(second), int(third)
    if len(third) != len("2026"):
        raise _UnclearError(": a year has four digits")
    one, two, year = int(first), int(second), int(third)
    # With dots the day comes first.
    if separator == "." or one == two or one > MONTHS:
        return year, two, one
    if two > MONTHS:
        return year, one, two
    raise _UnclearError(": day and month could be either")
