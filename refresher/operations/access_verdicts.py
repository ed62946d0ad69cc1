"""Verdicts on the way to TikTok: does it answer, the app credentials, accounts and their tokens."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.spans import counted, number, since, span
from refresher.operations.checks import Check, Known
from refresher.postgres.details import Details
from refresher.postgres.snapshot import Snapshot

#: If something is due and TikTok has answered nobody for so long, it does not answer.
UNANSWERED_SECONDS: Final = 120.0
#: So many accounts that are parked, or whose token stays dead, are more than single users who went
#: away.
MANY_PARKED: Final = 0.2


def tiktok(snapshot: Snapshot, known: Known) -> Check:
    if snapshot.replicas is None:
        return Check("replicas", "TikTok", "ok", "When it answered last is not known.")
    refused_at = snapshot.app.refused_at(known.fingerprint, snapshot.taken_at)
    # A refusal is an answer.
    answers = [*(one.progress_at for one in snapshot.replicas), refused_at]
    answered = [moment for moment in answers if moment]
    starts = [one.started_at for one in snapshot.replicas if one.started_at]
    silent_since = max(answered) if answered else min(starts, default=snapshot.taken_at)
    silent_seconds = (snapshot.taken_at - silent_since).total_seconds()
    told = f"It answered last {span(silent_seconds)} ago."
    if not answered:
        told = "It has answered no replica yet."
    if refused_at:
        told += " It refuses the app credentials: who has a dead access token is not asked for."
        return Check("replicas", "TikTok", "warn", told, "See App credentials.")
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


def credentials(snapshot: Snapshot, known: Known) -> Check:
    name = "App credentials"
    if known.lacks_credentials:
        return Check(
            "accounts",
            name,
            "warn",
            "There are none, so no access token is renewed.",
            "Set REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET, or "
            "REFRESHER_TOKEN_MANAGEMENT=external.",
        )
    refused_at = snapshot.app.refused_at(known.fingerprint, snapshot.taken_at)
    if refused_at is None:
        return Check("accounts", name, "ok", "TikTok has not refused them lately.")
    return Check(
        "accounts",
        name,
        "bad",
        f"TikTok refused them {since(snapshot.taken_at, refused_at)} ago: no token is renewed.",
        "Correct REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET.",
    )


def accounts(snapshot: Snapshot) -> Check:
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


def tokens(snapshot: Snapshot, details: Details | None) -> Iterator[Check]:
    if details is None:
        return
    name, dead = "Access tokens", details.dead_tokens
    if not dead:
        yield Check("accounts", name, "ok", "None of an active account stays dead.")
        return
    is_bad = dead > MANY_PARKED * sum(snapshot.summary.accounts.values())
    yield Check(
        "accounts",
        name,
        "bad" if is_bad else "warn",
        f"{counted(dead, 'active account')} with a dead one that was not renewed, listed as "
        "dead_token.",
        "See the list for each reason.",
    )


def consents(snapshot: Snapshot) -> Check:
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
