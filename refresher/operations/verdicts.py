"""What is well and what is not: one verdict a check, from one snapshot. No I/O, no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from refresher.domain.pacing import REFUSED_SECONDS, SILENT_SECONDS
from refresher.domain.spans import counted, number, since, span
from refresher.postgres.snapshot import Snapshot

#: `ok`, `warn`: look at it today, `bad`: covers die or will soon.
Level = Literal["ok", "warn", "bad"]

#: Freshness below it is never well, and bad where covers have expired.
FRESH_ENOUGH: Final = 0.99
#: A backlog is told from here on, and is bad from a quarter of the lead on.
BACKLOG_SECONDS: Final = 60.0
#: The share of a limit from which on it is told.
NEARLY_ALL: Final = 0.9
#: What has been used of the limit is told after so much of the hour, as in the alert
#: RefresherQuotaNearlyUsed.
SURE_SECONDS: Final = 900.0
#: If something is due and TikTok has answered nobody for so long, it does not answer.
UNANSWERED_SECONDS: Final = 120.0
#: What is shown is old from here on: the database does not answer.
OLD_SECONDS: Final = 30.0
#: So many parked accounts are more than single users who went away.
MANY_PARKED: Final = 0.2


@dataclass(frozen=True, slots=True)
class Known:
    """What this replica knows of itself, from its settings."""

    replica: str
    lead_seconds: float
    #: Requests a minute; 0: no limit.
    limit_per_token: int
    limit_per_app: int
    #: Access tokens are to be renewed and there are no app credentials for it.
    lacks_credentials: bool
    #: Of the app credentials in use.
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict."""

    #: The section of the page that shows more.
    section: str
    name: str
    level: Level
    says: str
    #: What to do; empty if there is nothing to do.
    act: str = ""


def judge(snapshot: Snapshot, age_seconds: float, known: Known) -> Sequence[Check]:
    """The verdicts, the worst first."""
    checks = [
        *_everything_paused(snapshot),
        _freshness(snapshot),
        _backlog(snapshot, known),
        _quota(snapshot, known),
        _tiktok(snapshot),
        _credentials(snapshot, known),
        _accounts(snapshot),
        _consents(snapshot),
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
    told = f"{_percent(share)} of {number(reachable)} covers are valid"
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


def _percent(share: float) -> str:
    # Cut, so that 100 % is said of all of them only; rounded before, as 0.57 * 10,000 is 5,699.99….
    return f"{int(round(share * 10_000, 9)) / 100:g} %"


def _backlog(snapshot: Snapshot, known: Known) -> Check:
    due, overdue = snapshot.summary.due, snapshot.summary.oldest_overdue_seconds
    if overdue < BACKLOG_SECONDS or not due:
        says = f"Due: {number(due)}, none for long." if due else "Nothing is due."
        return Check("overdue", "Backlog", "ok", says)
    is_bad = overdue >= max(BACKLOG_SECONDS, known.lead_seconds / 4)
    return Check(
        "overdue",
        "Backlog",
        "bad" if is_bad else "warn",
        f"Due: {number(due)}, the first for {span(overdue)}. "
        f"A cover is asked for {span(known.lead_seconds)} before it expires.",
        "See what holds them up under Overdue. If it is quota, raise it or keep fewer covers.",
    )


def _quota(snapshot: Snapshot, known: Known) -> Check:
    quota, app = snapshot.quota, snapshot.app
    told = f"{number(quota.requests)} requests this hour."
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
        told = f"{told} That is {_percent(used)} of what the app's limit allows so far."
        return Check("quota", "Quota", "warn", told, "Watch the backlog: there is little left.")
    return Check("quota", "Quota", "ok", told)


def _used(snapshot: Snapshot, known: Known) -> float:
    """The share of the app's limit since the full hour; 0 where it is too early to say."""
    seconds = (snapshot.taken_at - snapshot.quota.since).total_seconds()
    if seconds < SURE_SECONDS or not known.limit_per_app:
        return 0.0
    return 60 * snapshot.quota.requests / (known.limit_per_app * seconds)


def _tiktok(snapshot: Snapshot) -> Check:
    if snapshot.replicas is None:
        return Check("replicas", "TikTok", "ok", "When it answered last is not known.")
    answers = [one.progress_at for one in snapshot.replicas if one.progress_at]
    starts = [one.started_at for one in snapshot.replicas if one.started_at]
    silent_since = max(answers) if answers else min(starts, default=snapshot.taken_at)
    silent_seconds = (snapshot.taken_at - silent_since).total_seconds()
    told = f"It answered last {span(silent_seconds)} ago."
    if not answers:
        told = "It has answered no replica yet."
    unanswered = min(silent_seconds, snapshot.summary.oldest_overdue_seconds)
    if snapshot.app.paused_since or unanswered < UNANSWERED_SECONDS:
        return Check("replicas", "TikTok", "ok", told)
    return Check(
        "replicas",
        "TikTok",
        "bad",
        f"{told} Covers have been due for {span(snapshot.summary.oldest_overdue_seconds)}.",
        "See upstream.lost in the log, and whether this host reaches TikTok.",
    )


def _credentials(snapshot: Snapshot, known: Known) -> Check:
    app, name = snapshot.app, "App credentials"
    if known.lacks_credentials:
        return Check(
            "accounts",
            name,
            "warn",
            "There are none, so no access token is renewed.",
            "Set REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET, or "
            "REFRESHER_TOKEN_MANAGEMENT=external.",
        )
    refused_at = app.client_refused_at if app.refused_client == known.fingerprint else None
    if refused_at is None or (snapshot.taken_at - refused_at).total_seconds() > REFUSED_SECONDS:
        return Check("accounts", name, "ok", "TikTok has not refused them lately.")
    return Check(
        "accounts",
        name,
        "bad",
        f"TikTok refused them {since(snapshot.taken_at, refused_at)} ago: no token is renewed.",
        "Correct REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET.",
    )


def _accounts(snapshot: Snapshot) -> Check:
    states = snapshot.summary.accounts
    parked = sum(states[state] for state in ("needs_reauthorization", "needs_scope"))
    isolated = sum(kind.accounts for kind in snapshot.kinds if kind.state == "isolated")
    counts = [
        (states["active"] - isolated, "active"),
        (isolated, "isolated"),
        (parked, "waiting for their users"),
        (states["paused"], "paused"),
    ]
    says = f"{', '.join(f'{number(count)} {words}' for count, words in counts if count) or 'None'}."
    if not parked and not isolated:
        return Check("accounts", "Accounts", "ok", says)
    asked = "Ask the users of parked accounts to authorize again. " if parked else ""
    failing = "Isolated accounts fail alone: see their reason." if isolated else ""
    is_bad = parked > MANY_PARKED * sum(states.values())
    return Check(
        "accounts", "Accounts", "bad" if is_bad else "warn", says, f"{asked}{failing}".strip()
    )


def _consents(snapshot: Snapshot) -> Check:
    consents = snapshot.consents
    if consents.ended:
        return Check(
            "consents",
            "Consents",
            "bad",
            f"{number(consents.ended)} have ended: these access tokens cannot be renewed.",
            "Ask these users to authorize again.",
        )
    if consents.within_14_days:
        return Check(
            "consents",
            "Consents",
            "warn",
            f"{number(consents.within_14_days)} end within 14 days, "
            f"{number(consents.within_3_days)} of these within 3.",
            "Ask these users to authorize again in time.",
        )
    return Check("consents", "Consents", "ok", "None ends within 14 days.")


def _replicas(snapshot: Snapshot) -> Check:
    if snapshot.replicas is None:
        return Check(
            "replicas",
            "Replicas",
            "warn",
            "Not known: the database does not tell which replicas run.",
            "Grant the daemon's role its rights on refresher.replicas: see loop.failed in the log.",
        )
    seen = [one.seen_at for one in snapshot.replicas if one.seen_at]
    silent = sum(is_silent(snapshot.taken_at, seen_at) for seen_at in seen)
    running = len(seen) - silent
    if not silent and running:
        return Check("replicas", "Replicas", "ok", f"{number(running)} running.")
    return Check(
        "replicas",
        "Replicas",
        "warn" if running else "bad",
        f"{number(running)} running, {number(silent)} silent for {span(SILENT_SECONDS)} or more.",
        "A silent replica was killed or hangs: see its log. It is listed for a day."
        if silent
        else "This one has not said yet that it runs: look again in ten seconds.",
    )


def is_silent(now: datetime, seen_at: datetime | None) -> bool:
    """Whether a replica that said so at that time should have said again that it runs."""
    return seen_at is not None and (now - seen_at).total_seconds() >= SILENT_SECONDS


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
