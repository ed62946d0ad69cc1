"""Judges what cannot be kept alive: parked accounts, dead tokens, missing videos."""

from collections.abc import Iterator
from typing import Final

from refresher.domain.checkup.facts import Troubles
from refresher.domain.checkup.findings import Finding, fine, problem, warning
from refresher.domain.gates import SCOPE
from refresher.domain.missing import Missing, bereft, is_many
from refresher.domain.spans import counted, span

LIST: Final = "refresher accounts list --state"


def parked(troubles: Troubles) -> Iterator[Finding]:
    by_state = {
        "needs_reauthorization": troubles.needs_reauthorization,
        "needs_scope": troubles.needs_scope,
    }
    number = sum(by_state.values())
    if not number:
        yield fine("no account is parked")
        return
    states = ", ".join(f"{count:,} {state}" for state, count in by_state.items() if count)
    lists = " and ".join(f"{LIST} {state} --csv" for state, count in by_state.items() if count)
    scope = f", for needs_scope with {SCOPE}" if troubles.needs_scope else ""
    tell = problem if number == troubles.accounts else warning
    yield tell(
        f"{counted(number, 'account')} parked ({states}), the first for"
        f" {span(troubles.parked_seconds or 0.0)}",
        f"ask their users to authorize again{scope}, see {lists}",
    )


def dead_tokens(troubles: Troubles) -> Iterator[Finding]:
    if not troubles.dead_tokens:
        yield fine("no active account has a dead access token that was not renewed")
        return
    tell = problem if troubles.dead_tokens == troubles.untroubled else warning
    yield tell(
        f"{counted(troubles.dead_tokens, 'active account')} with a dead access token that was not"
        " renewed",
        f"{LIST} dead_token names them, refresher explain --account OPEN_ID says why",
    )


def missing(troubles: Troubles) -> Iterator[Finding]:
    number = troubles.missing + troubles.gone
    account = bereft(troubles.missing_of)
    if not account and not is_many(number, troubles.videos):
        yield fine(f"{number:,} of {counted(troubles.videos, 'video')} are missing or gone")
        return
    tell = problem if number >= troubles.videos else warning
    yield tell(
        f"TikTok leaves out {counted(number, 'video')}{_gone(troubles.gone)}{_of(account)}",
        f"see {_lists(troubles)}; delete what no longer exists, see docs/tables.md",
    )


def _of(account: Missing | None) -> str:
    if account is None:
        return ""
    return f", {account.missing:,} of the {account.videos:,} of account {account.open_id}"


def _gone(number: int) -> str:
    return f" ({number:,} of them gone: asked for only rarely)" if number else ""


def _lists(troubles: Troubles) -> str:
    """The commands that name the videos."""
    numbers = {"missing": troubles.missing, "gone": troubles.gone}
    states = [state for state, number in numbers.items() if number]
    return " and ".join(f"refresher videos list --state {state}" for state in states)
