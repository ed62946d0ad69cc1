"""Judges whether settings and quota can keep the stored covers alive."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from refresher.domain.checkup.facts import Covers, Demand, Lives, Pause
from refresher.domain.checkup.findings import Finding, fine, problem, skipped, warning
from refresher.domain.claiming import chunks_of
from refresher.domain.due import DuePolicy, due_after_refresh
from refresher.domain.spans import span

#: Above this share of a limit, one bad hour is not made up for.
CROWDED: Final = 0.8
#: The last share of a life that lead and spread may use.
USABLE: Final = 1 / 3
#: Any moment would do.
SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE_SECONDS: Final = 60.0


#: Where to look for the reason.
HELD_UP: Final = "see refresher status, and ask refresher explain about one of them"


def covers(covers: Covers) -> Iterator[Finding]:
    if covers.expired:
        told = f"{covers.expired:,} covers have expired that could have been kept alive"
        yield problem(told, HELD_UP)
    else:
        yield fine("no cover has expired that could have been kept alive")


def backlog(covers: Covers) -> Iterator[Finding]:
    """What has been due for longer than the lead has expired, or never had a cover."""
    told = f"{covers.due:,} videos are due, the first for {span(covers.overdue_seconds)}"
    if covers.due and covers.overdue_seconds > covers.lead_seconds:
        yield problem(f"{told}: longer than the lead, {span(covers.lead_seconds)}", HELD_UP)
    else:
        yield fine(told if covers.due else "nothing is due")


def paused(pause: Pause) -> Iterator[Finding]:
    if pause.seconds is None:
        yield fine("operators have not paused everything")
        return
    told = f"everything has been paused for {span(pause.seconds)}: no cover is asked for"
    tell = problem if pause.expired else warning
    yield tell(told, "refresher resume --all lets the work go on")


def lead(lives: Lives) -> Iterator[Finding]:
    if not lives.sampled:
        yield skipped("no cover is stored yet")
        return
    reach = (lives.policy.lead + lives.policy.spread).total_seconds()
    seen = f"{span(lives.usual_seconds)}, one in twenty under {span(lives.short_seconds)}"
    if lives.policy.lead.total_seconds() >= lives.short_seconds:
        yield warning(
            f"covers live {seen}: shorter than the lead, {span(reach)} with the spread",
            "lower REFRESHER_LEAD_SECONDS: only the last third of a life is used of it",
        )
    elif reach > USABLE * lives.short_seconds:
        yield fine(f"covers live {seen}; lead and spread are cut to the last third of that")
    else:
        yield fine(f"covers live {seen}; {span(reach)} of it is lead and spread")


def token_quota(demand: Demand) -> Iterator[Finding]:
    """The account with the most videos is the first that a token's limit does not keep alive."""
    if not demand.pace.limit_per_token:
        yield fine("no limit for a token")
        return
    need = _per_minute(chunks_of(demand.most_videos), 1.0, demand)
    yield _compared(
        need,
        MINUTE_SECONDS / demand.pace.step_seconds,
        f"by account {demand.largest} with {demand.most_videos:,} videos",
        "keep fewer of its videos, or ask TikTok for more quota",
    )


def app_quota(demand: Demand) -> Iterator[Finding]:
    need = _per_minute(demand.chunks, 0.5, demand)
    limit = _app_limit(demand)
    if limit is None:
        yield fine(f"no limit for the app; {need:,.1f} requests a minute are needed")
        return
    yield _compared(
        need,
        limit,
        "by all accounts together",
        "keep fewer covers or ask TikTok for more quota; refresher simulate --from-database"
        " says how many it keeps alive",
    )


def _app_limit(demand: Demand) -> float | None:
    """The lower of the limit that is set and the one that was found."""
    pace, found = demand.pace, demand.app.found_per_minute
    limits = [MINUTE_SECONDS / pace.app_step_seconds] if pace.limit_per_app else []
    return min([*limits, *([] if found is None else [found])], default=None)


def _per_minute(chunks: int, account_spread: float, demand: Demand) -> float:
    """The requests a minute that ask for each chunk once in a life, as it falls due."""
    period = _period_seconds(demand.policy, account_spread, demand.life_seconds)
    return MINUTE_SECONDS * chunks / period


def _period_seconds(policy: DuePolicy, account_spread: float, life_seconds: float) -> float:
    expires_at = SOME_TIME + timedelta(seconds=life_seconds)
    due_at = due_after_refresh(policy, account_spread, SOME_TIME, expires_at)
    return (due_at - SOME_TIME).total_seconds()


def _compared(need: float, limit: float, whose: str, remedy: str) -> Finding:
    told = f"{need:,.1f} of {limit:,.0f} requests a minute are needed {whose}: {need / limit:.0%}"
    if need > limit:
        return problem(f"{told}. Covers will die", remedy)
    return warning(told, remedy) if need > CROWDED * limit else fine(told)
