"""What `accounts show` tells: one account as it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refresher.cli.explain import failure_data, iso
from refresher.domain.explain import last_failure
from refresher.domain.spans import counted, seen_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from refresher.domain.facts import AccountFacts, Facts


def as_pairs(facts: Facts) -> Sequence[tuple[str, str]]:
    """Names and values for people."""
    account = facts.account

    def at(moment: datetime | None, otherwise: str = "never") -> str:
        return seen_from(facts.now, moment) if moment else otherwise

    since = at(account.last_failure_at)
    return [
        ("open_id", account.open_id),
        ("state", f"{account.state}, since {at(account.state_since)}"),
        ("reason", account.state_reason or "none"),
        ("isolated", _isolated(account, at(account.isolated_since))),
        ("access token", _token(account, at(account.access_token_expires_at, "not known"))),
        ("token renewal due", at(account.token_due_at)),
        ("token renewal put off", f"{counted(account.token_failures, 'time')} in a row"),
        ("consent ends", at(account.refresh_token_expires_at, "not known")),
        ("scope", account.scope or "not known"),
        ("counted", _counted_when(account)),
        ("videos", f"{account.videos:,}"),
        ("valid", f"{account.valid:,}"),
        ("expired", f"{account.expired:,}"),
        ("uncovered", _number(account.uncovered)),
        ("missing", _number(account.missing)),
        ("unreachable", f"{account.unreachable:,}"),
        ("wakes", _wakes(account, at(account.wake_at))),
        ("next slot", at(account.next_slot_at, "at once")),
        ("lease", _lease(account, at(account.lease_expires_at))),
        ("failures", f"{account.failures} in a row"),
        ("rate", f"{account.rate_share:.0%} of the limit"),
        ("requests", _requests(account, at(account.requests_since))),
        ("last failure", f"{told}, {since}" if (told := last_failure(account)) else "none"),
    ]


def _wakes(account: AccountFacts, when: str) -> str:
    if account.state != "active":
        return "not in this state"
    return "awake" if account.awake and account.wake_at is None else when


def _counted_when(account: AccountFacts) -> str:
    when = "at its last release or audit"
    return when if account.free else f"{when}, before the work that goes on now"


def _isolated(account: AccountFacts, since: str) -> str:
    return f"since {since}: {account.isolated_reason}" if account.isolated_since else "no"


def _token(account: AccountFacts, expires: str) -> str:
    if not account.has_access_token:
        return "none is stored"
    renewable = "there is a" if account.has_refresh_token else "there is no"
    return f"{account.token_standing}, expires {expires}, {renewable} refresh token"


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"


def _lease(account: AccountFacts, until: str) -> str:
    return "none" if account.free else f"{account.lease_owner}, until {until}"


def _requests(account: AccountFacts, since: str) -> str:
    if account.requests_since is None:
        return "none so far"
    return f"{counted(account.requests, 'request')} since {since}"


def as_data(facts: Facts) -> Mapping[str, Any]:
    """What `--json` prints: the names are an interface, see docs/commands.md."""
    account = facts.account
    return {
        "open_id": account.open_id,
        "at": iso(facts.now),
        "state": account.state,
        "state_reason": account.state_reason,
        "state_since": iso(account.state_since),
        "isolated_since": iso(account.isolated_since),
        "isolated_reason": account.isolated_reason,
        "tokens": _tokens(account),
        "counts": _counts(account),
        "awake": account.awake,
        "wake_at": iso(account.wake_at),
        "next_slot_at": iso(account.next_slot_at),
        "lease_owner": None if account.free else account.lease_owner,
        "lease_expires_at": None if account.free else iso(account.lease_expires_at),
        "failures": account.failures,
        "rate_share": account.rate_share,
        "rate_lowered_at": iso(account.rate_lowered_at),
        "requests": account.requests,
        "requests_since": iso(account.requests_since),
        "last_failure": failure_data(facts),
    }


def _tokens(account: AccountFacts) -> Mapping[str, Any]:
    return {
        "standing": account.token_standing,
        "dead": account.token_dead,
        "has_access_token": account.has_access_token,
        "has_refresh_token": account.has_refresh_token,
        "access_token_expires_at": iso(account.access_token_expires_at),
        "renewal_due_at": iso(account.token_due_at),
        "renewals_put_off": account.token_failures,
        "consent_ends_at": iso(account.refresh_token_expires_at),
        "scope": account.scope,
        "token_open_id": account.token_open_id,
    }


def _counts(account: AccountFacts) -> Mapping[str, int | None]:
    return {
        "videos": account.videos,
        "valid": account.valid,
        "expired": account.expired,
        "uncovered": account.uncovered,
        "missing": account.missing,
        "unreachable": account.unreachable,
    }
