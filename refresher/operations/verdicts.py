"""What is well and what is not: one verdict a check, from one snapshot. No I/O, no clock."""

from collections.abc import Iterator, Sequence
from typing import Final

from refresher.domain.due import seconds_ahead
from refresher.domain.missing import bereft, is_many
from refresher.domain.quota import APP_LIMIT, Demand, advice, limits_for
from refresher.domain.spans import counted, number, percent, since, span
from refresher.operations import access_verdicts as access
from refresher.operations import upkeep_verdicts as upkeep
from refresher.operations.checks import Check, Extra, Known, Level
from refresher.postgres.details import Details
from refresher.postgres.replicas import Replica
from refresher.postgres.snapshot import Snapshot

#: Freshness below it is never well, and bad where covers have expired.
FRESH_ENOUGH: Final = 0.99
#: A backlog is told from here on, and is bad from a quarter of the lead on.
BACKLOG_SECONDS: Final = 60.0
#: The share of a limit from which on it is told.
NEARLY_ALL: Final = 0.9
#: What has been used of the limit is told after so much of the hour, as in the alert
#: RefresherQuotaNearlyUsed.
SURE_SECONDS: Final = 900.0
#: What is shown is old from here on: the database does not answer.
OLD_SECONDS: Final = 30.0
REVIVE: Final = (
    "A silent replica hangs or was killed: kill it with SIGKILL if it does not stop, and start it "
    "again. Its name holds host and process ID. It is listed for a day."
)

NOTHING: Final = Extra()


def judge(
    snapshot: Snapshot, age_seconds: float, known: Known, extra: Extra = NOTHING
) -> Sequence[Check]:
    """The verdicts, the worst first."""
    checks = [
        *_everything_paused(snapshot),
        _freshness(snapshot),
        _missing(snapshot, extra.details),
        _backlog(snapshot, _lead_seconds(known, extra.demand)),
        _quota(snapshot, known, extra.demand),
        access.tiktok(snapshot, known),
        access.credentials(snapshot, known),
        access.accounts(snapshot),
        *access.tokens(snapshot, extra.details),
        access.consents(snapshot),
        *upkeep.probes(snapshot),
        *upkeep.webhooks(snapshot),
        *upkeep.attachments(snapshot),
        _replicas(snapshot),
        _database(age_seconds),
    ]
    return sorted(checks, key=lambda check: ("bad", "warn", "ok").index(check.level))


def headline(checks: Sequence[Check]) -> str:
    """All of them in a few words."""
    bad = sum(check.level == "bad" for check in checks)
    warn = sum(check.level == "warn" for check in checks)
    if not bad and not warn:
        return "All is well"
    told = ((bad, "problem"), (warn, "warning"))
    return ", ".join(counted(count, noun) for count, noun in told if count)


def _everything_paused(snapshot: Snapshot) -> Iterator[Check]:
    if paused_since := snapshot.app.paused_since:
        yield Check(
            "accounts",
            "Everything is paused",
            "bad",
            f"By an operator for {since(snapshot.taken_at, paused_since)}: no cover is asked for.",
            "refresher resume --all lets the work go on.",
        )


def _freshness(snapshot: Snapshot) -> Check:
    summary = snapshot.summary
    reachable = summary.valid + summary.expired + summary.uncovered
    if not reachable:
        return Check("covers", "Freshness", "ok", "No video of an active account is stored.")
    share = summary.valid / reachable
    told = f"{percent(share)} of {number(reachable)} covers are valid"
    if not summary.expired:
        new = f"; {number(summary.uncovered)} have none yet" if summary.uncovered else ""
        if share >= FRESH_ENOUGH:
            return Check("covers", "Freshness", "ok", f"{told}{new}.")
        act = "They are new: see what holds them up under Overdue."
        return Check("covers", "Freshness", "warn", f"{told}{new}.", act)
    return Check(
        "covers",
        "Freshness",
        "warn" if share >= FRESH_ENOUGH else "bad",
        f"{told}; {number(summary.expired)} have expired.",
        "See what holds them up under Overdue.",
    )


def _missing(snapshot: Snapshot, details: Details | None) -> Check:
    missing, videos = snapshot.summary.missing, snapshot.summary.videos
    if not missing:
        return Check("missing", "Missing videos", "ok", "TikTok leaves out none.")
    told = f"TikTok leaves out {number(missing)} of {number(videos)} videos."
    account = bereft(details.missing) if details else None
    if account:
        told += f" {account.missing:,} of {account.videos:,} are of account {account.open_id}."
    elif not is_many(missing, videos):
        return Check("missing", "Missing videos", "ok", told)
    act = "refresher videos list --state missing names them: are they public, and still there?"
    return Check("missing", "Missing videos", "warn", told, act)


def _lead_seconds(known: Known, demand: Demand | None) -> float:
    """How long before it dies a cover is asked for, at the latest."""
    if demand is None:
        return known.lead_seconds
    return seconds_ahead(demand.policy, 0.0, demand.life_seconds)


def _backlog(snapshot: Snapshot, lead_seconds: float) -> Check:
    due, overdue = snapshot.summary.due, snapshot.summary.oldest_overdue_seconds
    if overdue < BACKLOG_SECONDS or not due:
        says = f"Due: {number(due)}, none for long." if due else "Nothing is due."
        return Check("overdue", "Backlog", "ok", says)
    is_bad = overdue >= max(BACKLOG_SECONDS, lead_seconds / 4)
    return Check(
        "overdue",
        "Backlog",
        "bad" if is_bad else "warn",
        f"Due: {number(due)}, the first for {span(overdue)}. "
        f"A cover is asked for {span(lead_seconds)} before it expires.",
        "See what holds them up under Overdue. If it is quota, raise it or keep fewer covers.",
    )


def _quota(snapshot: Snapshot, known: Known, demand: Demand | None) -> Check:
    quota, app = snapshot.quota, snapshot.app
    told = f"{number(quota.requests)} requests this hour."
    limits = limits_for(demand) if demand else []
    if limits and limits[0].share > 1:
        act = _sentence(f"{advice(limits)}; else keep fewer covers.")
        level: Level = "bad" if limits[0].is_deadly else "warn"
        return Check("quota", "Quota", level, f"{told} {_sentence(limits[0].told)}.", act)
    if app.learned_per_minute is not None and app.throttled_at is not None:
        return Check(
            "quota",
            "Quota",
            "warn",
            f"{told} TikTok limits the app as a whole: about {number(app.learned_per_minute)} "
            f"requests a minute, learned from 429s, the last "
            f"{since(snapshot.taken_at, app.throttled_at)} ago.",
            "Nothing, if the backlog does not grow. Else ask TikTok for more quota.",
        )
    used = _used(snapshot, known)
    if used >= NEARLY_ALL:
        told = f"{told} That is {percent(used)} of what {APP_LIMIT} allows so far."
        return Check("quota", "Quota", "warn", told, "Watch the backlog: there is little left.")
    return Check("quota", "Quota", "ok", told)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _used(snapshot: Snapshot, known: Known) -> float:
    """The share of the app's limit since the full hour; 0 where it is too early to say."""
    seconds = (snapshot.taken_at - snapshot.quota.since).total_seconds()
    if seconds < SURE_SECONDS or not known.limit_per_app:
        return 0.0
    return 60 * snapshot.quota.requests / (known.limit_per_app * seconds)


def _replicas(snapshot: Snapshot) -> Check:
    if snapshot.replicas is None:
        return Check(
            "replicas",
            "Replicas",
            "warn",
            "Not known: the database does not tell which replicas run.",
            "Grant the daemon's role its rights on refresher.replicas: see loop.failed in the log.",
        )
    silent = [one for one in snapshot.replicas if one.is_silent(snapshot.taken_at)]
    running = sum(one.seen_at is not None for one in snapshot.replicas) - len(silent)
    level: Level = "warn" if running else "bad"
    told = f"{number(running)} running"
    if silent:
        told = f"{told}, {number(len(silent))} silent, {_silent_for_longest(silent, snapshot)}."
        return Check("replicas", "Replicas", level, told, REVIVE)
    if running:
        return Check("replicas", "Replicas", "ok", f"{told}.")
    act = "This one has not said yet that it runs: look again in ten seconds."
    return Check("replicas", "Replicas", level, f"{told}.", act)


def _silent_for_longest(silent: Sequence[Replica], snapshot: Snapshot) -> str:
    seen_at, name = min((one.seen_at, one.replica) for one in silent if one.seen_at)
    first = "the first, " if len(silent) > 1 else ""
    return f"{first}{name}, for {since(snapshot.taken_at, seen_at)}"


def _database(age_seconds: float) -> Check:
    if age_seconds < OLD_SECONDS:
        return Check("replicas", "Database", "ok", "It answers.")
    return Check(
        "replicas",
        "Database",
        "bad",
        f"It does not answer in time. What is shown is {span(age_seconds)} old.",
        "See database.lost in the log. What is stored stays as it is.",
    )
