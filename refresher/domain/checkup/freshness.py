"""Judges whether settings and quota can keep the stored covers alive."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.checkup.facts import Covers, Lives, Pause
from refresher.domain.checkup.findings import Finding, fine, problem, skipped, warning
from refresher.domain.quota import (
    CROWDED,
    Demand,
    Limit,
    limit_of_app,
    limit_of_token,
    needed_by_all,
    needed_by_largest,
)
from refresher.domain.spans import span

#: The last share of a life that lead and spread may use.
USABLE: Final = 1 / 3
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
    limit = limit_of_token(demand.pace, needed_by_largest(demand))
    if limit is None:
        yield fine("no limit for a token")
        return
    if not demand.most_videos:
        yield fine("no active account has a video to ask for")
        return
    yield _compared(limit, "keep fewer of its videos")


def app_quota(demand: Demand) -> Iterator[Finding]:
    needed = needed_by_all(demand)
    limit = limit_of_app(demand.pace, demand.found_per_minute, needed)
    if limit is None:
        yield fine(
            f"no limit for the app; {needed.when_due:,.1f} requests a minute are needed as covers"
            " fall due"
        )
        return
    fewer = "keep fewer covers; refresher simulate --from-database says how many it keeps alive"
    yield _compared(limit, fewer)


def _compared(limit: Limit, fewer: str) -> Finding:
    remedy = f"{limit.remedy}; else {fewer}"
    if limit.is_deadly:
        return problem(limit.told, remedy)
    return warning(limit.told, remedy) if limit.share > CROWDED else fine(limit.told)
