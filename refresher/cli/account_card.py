"""What `accounts show` tells: one account as it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refresher.cli.explain import failure_data, iso
from refresher.domain.explain import last_failure
from refresher.domain.spans import counted, seen_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from refresher.domain.facts import AccountFacts, Facts


def as_pairs(facts: Facts) -> Sequence[tuple[str, str]]:
    """Names and values for people."""
    return [*_standing(facts), *_tokens_told(facts), *_counts_told(facts), *_work(facts)]


def _standing(facts: Facts) -> Iterator[tuple[str, str]]:
    account = facts.account
    yield "open_id", account.open_id
    yield "state", f"{account.state}, since {_at(facts, account.state_since)}"
    yield "reason", account.state_reason or "none"
    yield "isolated", _isolated(account, _at(facts, account.isolated_since))


def _tokens_told(facts: Facts) -> Iterator[tuple[str, str]]:
    account = facts.account
    expires = _at(facts, account.access_token_expires_at, "not known")
    yield "access token", _token(account, expires)
    yield "token renewal due", _at(facts, account.token_due_at)
    yield "token renewal put off", f"{counted(account.token_failures, 'time')} in a row"
    yield "consent ends", _at(facts, account.refresh_token_expires_at, "not known")
    yield "scope", account.scope or "not known"


def _counts_told(facts: Facts) -> Iterator[tuple[str, str]]:
    account = facts.account
    yield "counted", _counted_when(account)
    yield "videos", f"{account.videos:,}"
    yield "valid", f"{account.valid:,}"
    yield "expired", f"{account.expired:,}"
    yield "uncovered", _number(account.uncovered)
    yield "missing", _number(account.missing)
    yield "unreachable", f"{account.unreachable:,}"


def _work(facts: Facts) -> Iterator[tuple[str, str]]:
    account, failure = facts.account, last_failure(facts.account)
    yield "wakes", _wakes(account, _at(facts, account.wake_at))
    yield "next slot", _at(facts, account.next_slot_at, "at once")
    yield "lease", _lease(account, _at(facts, account.lease_expires_at))
    yield "failures", f"{account.failures} in a row"
    yield "rate", f"{account.rate_share:.0%} of the limit"
    yield "requests", _requests(account, _at(facts, account.requests_since))
    yield "last failure", f"{failure}, {_at(facts, account.last_failure_at)}" if failure else "none"


def _at(facts: Facts, moment: datetime | None, otherwise: str = "never") -> str:
    return seen_from(facts.now, moment) if moment else otherwise


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
