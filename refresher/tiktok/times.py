"""Times in the headers of an answer."""

import re
from calendar import timegm
from collections.abc import Mapping
from email.utils import parsedate_tz
from typing import Final

LONGEST_RETRY_AFTER_SECONDS: Final = 100_000


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The wait that an answer wishes for, in seconds; None for a value that makes no sense.

    Not documented and never seen from this API. A date counts from the answer's own date; `now` is
    Unix time, for answers without one.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,5}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    moment = _http_date(value)
    if moment is None:
        return None
    seconds = max(0.0, moment - sent_at(headers, now))
    return seconds if seconds < LONGEST_RETRY_AFTER_SECONDS else None


def sent_at(headers: Mapping[str, str], now: float) -> float:
    """When the answer was sent, by the server's clock: ours may be wrong. `now` without a date."""
    told = _http_date(headers.get("Date", ""))
    return now if told is None else told


def _http_date(text: str) -> float | None:
    """Unix time of an HTTP date, of the obsolete forms, too."""
    try:
        parsed = parsedate_tz(text)
        return timegm(parsed[:9]) - (parsed[9] or 0) if parsed else None
    except (ValueError, OverflowError, IndexError, TypeError):  # the parser's own on odd texts
        return None
