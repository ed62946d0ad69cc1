"""A forecast of the stored fleet in words."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from refresher.domain.spans import counted, span
from refresher.simulation.need import Need
from refresher.simulation.outlook import Outlook, Prospect
from refresher.simulation.report import percent

#: Accounts that are named; JSON has all.
NAMED: Final = 10

CANNOT_KNOW: Final = (
    "videos and accounts that come or go",
    "429s, outages and wrong answers of TikTok, and quota that others use",
    "tokens that are refused or cannot be renewed, consents that are taken back",
    "when parked, paused and isolated accounts are worked again, and who gets a new token",
    "how fast machines and the database are, and whether a daemon runs",
)

Rows = Sequence[Sequence[str]]


def plain(told: Outlook) -> dict[str, Any]:
    """For programs: all of it, times in ISO 8601."""
    return {**_plain(asdict(told)), "cannot_know": list(CANNOT_KNOW)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(name, value) for name, value in values.items()}


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list):
        return [_plain_value(name, each) for each in value]
    if name.endswith(("_at", "_since", "now")) and value is not None:
        return datetime.fromtimestamp(value, UTC).isoformat()
    return value


def verdict(told: Outlook) -> str:
    """What will become of the covers, in one line."""
    today, horizon = told.today, span(told.seconds)
    before = "" if told.paused_since is None else "Everything is paused. "
    before += f"Dead now: {counted(told.dead_now, 'cover')}. " if told.dead_now else ""
    if today.first_death_at is None:
        some = any(unasked.covers for unasked in told.unasked.values())
        cover = "cover that can be asked for" if some else "cover"
        return f"{before}No {'other ' if told.dead_now else ''}{cover} will die within {horizon}."
    covers = "More covers" if told.dead_now else "Covers"
    left = span(today.first_death_at - told.now)
    return (
        f"{before}{covers} die from {_moment(today.first_death_at)} on (in {left}): at the worst "
        f"{today.most_dead:,} of {counted(told.covers, 'cover')} are dead at once, "
        f"of {counted(today.accounts, 'account')}."
    )


def assumed(told: Outlook) -> str | None:
    """What must be put right for the rest to be true; None where nothing is known to be wrong."""
    tokens = told.tokens
    if tokens.client_refused_at is not None:
        refused_at = _moment(tokens.client_refused_at)
        return (
            f"It assumes that the app credentials, which TikTok refused at {refused_at}, will work "
            "again: no access token is renewed until then."
        )
    if tokens.accounts:
        accounts, covers = counted(tokens.accounts, "account"), counted(tokens.covers, "cover")
        return (
            f"It assumes that the token renewal of {accounts} with {covers}, which fails now, will "
            "work again."
        )
    return None


def quotas(told: Outlook) -> Rows:
    """Today's quota, and beside it the other one. The first row has the headings."""
    prospects = [("today", told.today)]
    if told.other:
        prospects.append((_other_name(told), told.other))
    columns = [_column(told, prospect) for _, prospect in prospects]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return [("", *(name for name, _ in prospects)), *rows]


def _other_name(told: Outlook) -> str:
    return "half of it" if told.halved else "with --limit"


def _column(told: Outlook, prospect: Prospect) -> dict[str, str]:
    horizon, day = span(told.seconds), prospect.valid_share_after_24_hours
    limits = (prospect.limit_per_token, prospect.limit_per_app)
    return {
        "requests a minute: of a token": _limit(limits[0]),
        "requests a minute: of the app": _limit(limits[1]),
        "first death": _moment(prospect.first_death_at) or "none",
        "dead at once, at the worst": f"{prospect.most_dead:,}",
        f"deaths within {horizon}": f"{prospect.deaths:,}",
        "accounts that lose covers": f"{prospect.accounts:,}",
        "valid covers at the worst": percent(prospect.lowest_valid_share),
        **({} if day is None else {"valid covers after 24 h": percent(day)}),
        f"valid covers after {horizon}": percent(prospect.last_valid_share),
    }


def losers(told: Outlook) -> Rows:
    """The accounts that lose most under today's quota, else under the other one, with headings.

    Nothing where no account loses a cover.
    """
    prospect = told.today if told.today.losses or not told.other else told.other
    if not prospect.losses:
        return []
    name = "today" if prospect is told.today else _other_name(told)
    rows = [
        (loss.open_id, f"{loss.deaths:,}", _moment(loss.first_death_at))
        for loss in prospect.losses[:NAMED]
    ]
    return [(f"accounts that lose most ({name})", "deaths", "first death"), *rows]


def facts(told: Outlook) -> Iterator[tuple[str, str]]:
    """What else an operator should know: name and text."""
    if told.remedy:
        yield "to do", told.remedy
    need = told.need
    yield "quota needed", _when_due(need)
    yield "at the least", _least(need)
    for kind, unasked in told.unasked.items():
        first = unasked.first_death_at
        dies = f", the first dies at {_moment(first)}" if first else ""
        covers, accounts = counted(unasked.covers, "cover"), counted(unasked.accounts, "account")
        yield "cannot be asked for", f"{covers} of {accounts} {kind}{dies}: no matter of quota"
    consents = told.consents
    first = consents.first_ends_at
    ends = f", the first at {_moment(first)}; {counted(consents.covers, 'cover')}" if first else ""
    yield "consents", f"{counted(consents.accounts, 'consent')} end within 30 d{ends}"
    lives = "to the full hour and 24 h" if told.ttl == "hourly" else span(told.ttl)
    yield "covers live", f"{lives}, {'as observed' if told.ttl_observed else 'assumed'}"
    yield "asked for", f"{_lead(told)} before they die"
    yield "based on", _basis(told)


def _basis(told: Outlook) -> str:
    fleet = f"{counted(told.covers, 'cover')} of {counted(told.accounts, 'account')}"
    if told.sampled is None:
        return f"all {fleet}"
    return f"estimated from {counted(told.sampled, 'video')} for {fleet}"


def _lead(told: Outlook) -> str:
    """As it is with covers that live so long, which may be shorter than as set."""
    least, most = span(told.least_lead_seconds), span(told.most_lead_seconds)
    return least if least == most else f"{least} to {most}"


def _when_due(need: Need) -> str:
    return (
        f"{need.when_due:,.1f} requests a minute as covers fall due (see doctor), "
        f"{need.busiest_token_when_due:,.1f} with the busiest token"
    )


def _least(need: Need) -> str:
    return (
        f"{need.on_average:,.1f} on average, {need.at_peak:,.1f} at peak "
        f"({need.at_peak * 60:,.0f} an hour), {need.busiest_token:,.1f} with the busiest token: "
        "each cover asked for just before it dies"
    )


def _limit(limit: int) -> str:
    return f"{limit:,}" if limit else "no limit"


def _moment(unix_time: float | None) -> str:
    if unix_time is None:
        return ""
    return datetime.fromtimestamp(unix_time, UTC).isoformat(sep=" ", timespec="seconds")
