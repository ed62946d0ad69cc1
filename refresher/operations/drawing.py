"""Draws the status page from readings."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Final, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from refresher.domain.quota import Demand
from refresher.domain.spans import number, percent, since, span
from refresher.logs import Notable
from refresher.operations.checks import Extra, Known
from refresher.operations.lists import PAGE
from refresher.operations.shared import Reading
from refresher.operations.verdicts import headline, judge
from refresher.postgres.details import EXPIRY_BOUNDS, Details, Troubled, Wanted
from refresher.postgres.snapshot import Snapshot

T = TypeVar("T")

#: What holds up an account that has something due.
HELD_UP_BY: Final = {
    "everything_paused": "everything is paused by an operator",
    "worked": "a replica works on it now",
    "isolated": "it is isolated: it fails alone and is tried rarely",
    "token": "its access token is dead, and the next try to renew it is to come",
    "pause": "it is paused after a 429",
    "back_off": "it is in back-off after a failure",
    "asleep": "it sleeps: the audit will wake it",
    "slot": "it waits for a slot under the rate limit",
    "turn": "it waits for its turn",
}
#: The states of accounts in trouble, in words.
STATES: Final = {
    "needs_reauthorization": "the user must authorize again",
    "needs_scope": "the user must grant the scope",
    "dead_token": "the access token is dead and was not renewed",
    "isolated": "fails alone, is tried rarely",
    "paused": "paused by an operator",
}
#: Below tables of accounts. The numbers of the whole fleet are counted anew where they do not hold.
COUNTED_WHEN: Final = (
    "Videos as counted at the account's last release or audit. Of one that is worked all the time, "
    "that may be long ago."
)
#: What covers need is no longer told past this age: limits may have been changed since.
DEMAND_STALE_SECONDS: Final = 600.0
LEVELS: Final = {"ok": "OK", "warn": "Look", "bad": "Bad"}
#: Characters of a log entry's field that are shown.
FIELD_LENGTH: Final = 160
ALWAYS: Final = {"timestamp", "level", "event"}


class Drawing:
    """Draws pages. `now` is on the clock of the readings."""

    def __init__(self, known: Known, versions: Mapping[str, str]) -> None:
        """`versions` of the static files: a browser asks again for one that has changed."""
        self._known = known
        self._templates = _templates()
        self._templates.globals.update(known=known, versions=versions)

    def overview(
        self,
        fleet: Reading[Snapshot] | None,
        details: Reading[Details] | None,
        demand: Reading[Demand | None] | None,
        now: float,
        notable: Sequence[Notable],
    ) -> str:
        """The page at /."""
        page = self._templates.get_template("overview.html")
        if fleet is None:
            return page.render(fleet=None, notable=notable)
        age_seconds = now - fleet.read_at
        extra = Extra(_value(details), _value(_young(demand, now)))
        checks = judge(fleet.value, age_seconds, self._known, extra)
        return page.render(
            fleet=fleet.value,
            reading=f"{fleet.read_at:.3f}",
            age_seconds=age_seconds,
            shown_at=fleet.value.taken_at + timedelta(seconds=age_seconds),
            checks=checks,
            headline=headline(checks),
            details=extra.details,
            details_age_seconds=now - details.read_at if details else None,
            bars=_bars(details.value.expiring) if details else (),
            notable=notable,
        )

    def accounts(
        self,
        rows: Reading[Sequence[Troubled]],
        fleet: Reading[Snapshot],
        now: float,
        wanted: Wanted,
    ) -> str:
        """A page of the list. A row more than a page says that there is a next one."""
        shown = rows.value[:PAGE]
        page = self._templates.get_template("accounts.html")
        return page.render(
            accounts=shown,
            wanted=wanted,
            following=shown[-1].open_id if len(rows.value) > PAGE else None,
            age_seconds=now - rows.read_at,
            shown_at=fleet.value.taken_at + timedelta(seconds=now - fleet.read_at),
            kinds=fleet.value.kinds,
        )


def _young(reading: Reading[T] | None, now: float) -> Reading[T] | None:
    return reading if reading and now - reading.read_at < DEMAND_STALE_SECONDS else None


def _value(reading: Reading[T] | None) -> T | None:
    return reading.value if reading else None


def _bars(expiring: Sequence[int]) -> Sequence[tuple[str, int, float]]:
    """Words, covers and the length of each bar in percent."""
    most = max(*expiring, 1)
    return [
        (words, covers, round(100 * covers / most, 1))
        for words, covers in zip(_bar_words(), expiring, strict=True)
    ]


@cache
def _bar_words() -> Sequence[str]:
    bounds = list(EXPIRY_BOUNDS)
    between = [
        f"{span(lower)} to {span(upper)}" if lower else f"under {span(upper)}"
        for lower, upper in pairwise(bounds)
    ]
    return ["may have expired", *between, f"over {span(bounds[-1])}"]


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        percent=percent,
        span=span,
        stamp=_stamp,
        clock=_clock,
        fields=_fields,
    )
    environment.globals.update(
        since=since,
        held_up_by=HELD_UP_BY,
        states=STATES,
        levels=LEVELS,
        counted_when=COUNTED_WHEN,
    )
    return environment


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _fields(entry: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The fields of a log entry that say something; of a traceback its last line."""
    return [
        (name, text)
        for name, value in entry.items()
        if name not in ALWAYS and (text := _line("" if value is None else str(value)))
    ]


def _line(text: str) -> str:
    last = text.strip().rpartition("\n")[2]
    return last if len(last) <= FIELD_LENGTH else f"{last[:FIELD_LENGTH]}…"
