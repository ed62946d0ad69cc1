"""Judges whether settings and quota can keep the stored covers alive."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.checkup.facts import CoverHosts, Covers, Lives, Pause, Probes
from refresher.domain.checkup.findings import Finding, fine, problem, skipped, warning
from refresher.domain.probing import are_many_refused
from refresher.domain.quota import (
    CROWDED,
    Demand,
    Limit,
    limit_of_app,
    limit_of_token,
    needed_by_all,
    needed_by_largest,
)
from refresher.domain.spans import counted, span

#: The last share of a life that lead and spread may use.
USABLE: Final = 1 / 3


#: Where to look for the reason.
HELD_UP: Final = "see refresher status, and ask refresher explain about one of them"


def covers(covers: Covers) -> Iterator[Finding]:
    if covers.expired:
        told = f"dead covers that could have been kept alive: {covers.expired:,}"
        yield problem(told, HELD_UP)
    else:
        yield fine("no cover has expired that could have been kept alive")


def backlog(covers: Covers) -> Iterator[Finding]:
    """What has been due for longer than the lead has expired, or never had a cover."""
    told = f"videos that are due: {covers.due:,}, the first for {span(covers.overdue_seconds)}"
    if covers.due and covers.overdue_seconds > covers.lead_seconds:
        asked = f"a cover is asked for {span(covers.lead_seconds)} before it dies"
        yield problem(f"{told}, but {asked}", HELD_UP)
    else:
        yield fine(told if covers.due else "nothing is due")


def paused(pause: Pause) -> Iterator[Finding]:
    if pause.seconds is None:
        yield fine("operators have not paused everything")
        return
    told = f"everything has been paused for {span(pause.seconds)}: no cover is asked for"
    tell = problem if pause.expired else warning
    yield tell(told, "refresher resume --all lets the work go on")


def hosts(hosts: CoverHosts) -> Iterator[Finding]:
    """What probes have found so far; without probes nothing."""
    early = {host: seconds for host, seconds in hosts.grown.items() if seconds}
    for host, seconds in sorted(early.items()):
        yield warning(
            f"covers of {host} die before their expiry: they are asked for {span(seconds)} earlier",
            "refreshing takes more quota; docs/runbook.md says more under lead.grown",
        )
    if not early:
        yield fine("no host is known to kill covers before their expiry")


def probes(probes: Probes) -> Iterator[Finding]:
    known = probes.served + probes.refused
    told = f"{probes.refused:,} of {counted(known, 'cover')} fetched within a day were refused"
    if are_many_refused(probes.refused, probes.served):
        yield warning(
            f"{told} before their expiry", "see docs/runbook.md, lead.grown and host.refused"
        )
    elif probes.unknown and not known:
        yield warning(
            f"none of {counted(probes.unknown, 'cover')} could be fetched within a day",
            "see docs/runbook.md, probes.failed",
        )
    elif not known:
        yield skipped("no cover was fetched within a day")
    else:
        yield fine(told)


def lead(lives: Lives) -> Iterator[Finding]:
    if not lives.sampled:
        yield skipped("no cover is stored yet")
        return
    ahead = lives.policy.lead.total_seconds()
    reach = ahead + lives.policy.spread.total_seconds()
    usual, short = span(lives.usual_seconds), span(lives.short_seconds)
    seen = f"covers live {usual}" + (f", one in twenty less than {short}" if short != usual else "")
    if ahead >= lives.short_seconds:
        yield warning(
            f"{seen}. The lead is longer: {span(ahead)}",
            "lower REFRESHER_LEAD_SECONDS. No cover is asked for before the last third of its life",
        )
    elif reach > USABLE * lives.short_seconds:
        yield fine(f"{seen}. Lead and spread are cut to the last third of that")
    else:
        yield fine(f"{seen}. Lead and spread take {span(reach)} of it")


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
    fewer = "keep fewer covers; refresher forecast says which die"
    yield _compared(limit, fewer)


def _compared(limit: Limit, fewer: str) -> Finding:
    remedy = f"{limit.remedy}; else {fewer}"
    if limit.is_deadly:
        return problem(limit.told, remedy)
    return warning(limit.told, remedy) if limit.share > CROWDED else fine(limit.told)
