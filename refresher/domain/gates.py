"""What stands between an account and its next request, in the order in which it is decided.

The claim's conditions are not decided anew here: the statement that reads the facts has asked them.
An account of which every gate is open is claimed; a test compares the two.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from refresher.domain.claiming import Turn
from refresher.domain.conclude import PARKED_STATES
from refresher.domain.facts import AccountFacts, Facts, VideoFacts
from refresher.domain.pacing import WINDOW_SECONDS
from refresher.domain.spans import counted, seen_from, span

SCOPE: Final = "video.list"
RIGHT_CREDENTIALS: Final = (
    "correct REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET, restart all replicas"
)
REFUSES_CREDENTIALS: Final = "TikTok refuses the app credentials"
STORED_ELSEWHERE: Final = "let the program that renews tokens store a new access token"


class Mark(StrEnum):
    """What a gate says."""

    OPEN = "open"
    CLOSED = "closed"
    #: Open, but the request or the renewal of the token will fail, or the limit is too low.
    TROUBLE = "trouble"
    #: Nothing is known, or it does not apply.
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that decides whether a request is sent."""

    name: str
    mark: Mark
    #: What it is, in words.
    value: str
    #: Since when it is so; None where that is not known.
    since: datetime | None = None
    #: When it opens by itself; None where it does not, or where it is open.
    until: datetime | None = None
    #: What an operator can do to change it.
    command: str | None = None

    @property
    def waits(self) -> bool:
        """It is closed, and nothing is to be done about that."""
        return self.mark is Mark.CLOSED and self.command is None


def gates_of(facts: Facts) -> Sequence[Gate]:
    """All gates, the first to be decided first."""
    video = [_video(facts.video)] if facts.video else []
    return [gate(facts) for gate in GATES] + video


def _state(facts: Facts) -> Gate:
    account = facts.account
    name, since, reason = "state", account.state_since, account.state_reason
    why = f"{account.state} ({reason})" if reason else account.state
    match account.state:
        case "active":
            return Gate(name, Mark.OPEN, "active", since)
        case "paused":
            return Gate(name, Mark.CLOSED, why, since, command=_command("accounts resume", account))
        case _:
            return Gate(name, Mark.CLOSED, why, since, command=_new_tokens(account))


def _command(words: str, account: AccountFacts) -> str:
    return f"refresher {words} {shlex.quote(account.open_id)}"


def _new_tokens(account: AccountFacts) -> str:
    extended = f" with {SCOPE}" if account.state == "needs_scope" else ""
    return (
        f"let the user authorize again{extended}, then store the new tokens: "
        "refresher accounts import FILE.csv, or an UPDATE of refresher.accounts"
    )


def _consent(facts: Facts) -> Gate:
    account, ends = facts.account, facts.account.refresh_token_expires_at
    if not account.has_refresh_token:
        return Gate("consent", Mark.SILENT, "no refresh token is stored")
    if ends is None:
        return Gate("consent", Mark.SILENT, "its end is not stored")
    if ends > facts.now:
        return Gate("consent", Mark.OPEN, f"until {seen_from(facts.now, ends)}")
    ended = f"ended {seen_from(facts.now, ends)}"
    return Gate("consent", Mark.TROUBLE, ended, since=ends, command=_new_tokens(account))


def _scope(facts: Facts) -> Gate:
    account = facts.account
    if account.scope is None:
        return Gate("scope", Mark.SILENT, "not stored")
    if SCOPE in account.scope.replace(",", " ").split():
        return Gate("scope", Mark.OPEN, account.scope)
    lacking = f"{SCOPE} is not in {account.scope!r}"
    return Gate("scope", Mark.TROUBLE, lacking, command=_new_tokens(account))


def _token(facts: Facts) -> Gate:
    if facts.account.waits_for_token:
        return _waiting_token(facts)
    return _dead_token(facts) if facts.account.token_dead else _living_token(facts)


def _living_token(facts: Facts) -> Gate:
    account, ends = facts.account, facts.account.access_token_expires_at
    lives = f"lives until {seen_from(facts.now, ends)}" if ends else "used until it is refused"
    value = f"{account.token_standing}, {lives}"
    if why := why_not_renewed(facts):
        return Gate("token", Mark.TROUBLE, f"{value}; {why}", command=_renewing(facts))
    return Gate("token", Mark.OPEN, value)


def _dead_token(facts: Facts) -> Gate:
    """That of an account which is claimed all the same, or is not worked at all."""
    account, dead = facts.account, _dead(facts.account)
    if why := _not_renewable(facts):
        command = _new_tokens(account) if facts.managed else STORED_ELSEWHERE
        return Gate("token", Mark.TROUBLE, f"{dead}; {why}", command=command)
    if account.state in PARKED_STATES.values():
        value = f"{dead}; not renewed while the account is parked"
        return Gate("token", Mark.TROUBLE, value, command=_new_tokens(account))
    if facts.app.client_refused_at:
        value = f"{dead}; {REFUSES_CREDENTIALS}, so no token is renewed"
        return Gate("token", Mark.TROUBLE, value, command=RIGHT_CREDENTIALS)
    return Gate("token", Mark.OPEN, f"{dead}; renewed first")


def why_not_renewed(facts: Facts) -> str | None:
    """What was in the way of a living access token's renewal, or will be; None: nothing we know."""
    account = facts.account
    if facts.app.client_refused_at and not _not_renewable(facts):
        return f"{REFUSES_CREDENTIALS}, so it is not renewed"
    return _put_off(account) if account.token_failures else None


def _not_renewable(facts: Facts) -> str | None:
    """Why no token request can help; None: one may."""
    account, ends = facts.account, facts.account.refresh_token_expires_at
    if not facts.managed:
        return "not renewed by this program as set"
    if not account.has_refresh_token:
        return "no refresh token is stored"
    return "the user's consent has ended" if ends and ends <= facts.now else None


def _waiting_token(facts: Facts) -> Gate:
    account, since = facts.account, _expired_at(facts)
    until = token_free_at(account)
    if account.token_request_until and account.token_request_until > facts.now:
        value = f"{_dead(account)}; a token request is under way"
        return Gate("token", Mark.CLOSED, value, until=until)
    if refused_at := facts.app.client_refused_at:
        value = f"{_dead(account)}; {REFUSES_CREDENTIALS}, so no token is renewed"
        return Gate("token", Mark.CLOSED, value, since or refused_at, until, _renewing(facts))
    value = f"{_dead(account)}; {_put_off(account)}"
    since = since or account.last_failure_at
    return Gate("token", Mark.CLOSED, value, since, until, _renewing(facts))


def _put_off(account: AccountFacts) -> str:
    return f"its renewal was put off {counted(account.token_failures, 'time')}"


def _renewing(facts: Facts) -> str:
    """What an operator can do where tokens are not renewed."""
    refused = facts.app.client_refused_at
    return RIGHT_CREDENTIALS if refused else _command("accounts resume", facts.account)


def _expired_at(facts: Facts) -> datetime | None:
    ends = facts.account.access_token_expires_at
    return ends if ends and ends <= facts.now else None


def token_free_at(account: AccountFacts) -> datetime | None:
    """When an account that waits for its token may be claimed for it; None: not known."""
    waits = [account.token_due_at if account.token_failures else None, account.token_request_until]
    return max(filter(None, waits), default=None)


def _dead(account: AccountFacts) -> str:
    if not account.has_access_token:
        return "no access token is stored"
    is_refused = account.token_standing == "refused"  # noqa: S105 - a word, no token
    return f"the access token {'is refused' if is_refused else 'has expired'}"


def _pause_of_all(facts: Facts) -> Gate:
    since = facts.app.paused_since
    if since is None:
        return Gate("pause_of_all", Mark.OPEN, "none")
    value = "everything is paused by the operator"
    return Gate("pause_of_all", Mark.CLOSED, value, since, command="refresher resume --all")


def _lease(facts: Facts) -> Gate:
    account = facts.account
    if account.free:
        return Gate("lease", Mark.OPEN, "nobody works it")
    value = f"{account.lease_owner} works it now"
    return Gate("lease", Mark.CLOSED, value, until=account.lease_expires_at)


def _back_off(facts: Facts) -> Gate:
    account = facts.account
    if account.isolated_since:
        return _isolation(account, account.isolated_since)
    if not is_backing_off(facts):
        failed = (
            f"none; {counted(account.failures, 'failure')} in a row" if account.failures else "none"
        )
        return Gate("back_off", Mark.OPEN, failed)
    value = f"waits after {counted(account.failures, 'failure')} in a row"
    return Gate(
        "back_off",
        Mark.CLOSED,
        value,
        since=account.last_failure_at,
        until=account.wake_at,
        command=_command("accounts resume", account),
    )


def _isolation(account: AccountFacts, since: datetime) -> Gate:
    value = f"isolated, as it fails while others are answered: {account.isolated_reason}"
    command = _command("accounts resume", account)
    if account.awake and account.slot_near:
        return Gate("back_off", Mark.OPEN, f"{value}; it has one try", since, command=command)
    until = max(filter(None, [account.wake_at, account.next_slot_at]), default=None)
    return Gate("back_off", Mark.CLOSED, value, since, until, command)


def is_backing_off(facts: Facts) -> bool:
    """Whether it sleeps for its failures, not because nothing is due."""
    account = facts.account
    if account.awake or account.throttled:
        return False
    nothing_due = account.earliest_due_at is not None and account.earliest_due_at > facts.now
    return account.failures > 0 and not nothing_due


def _pause(facts: Facts) -> Gate:
    account = facts.account
    if not account.throttled:
        slower = account.rate_share < 1
        share = f"none; its rate is {account.rate_share:.0%} of the limit after a 429"
        since = account.rate_lowered_at if slower else None
        return Gate("pause", Mark.OPEN, share if slower else "none", since)
    # A quota of a day lowers no rate; any other pause does, in the statement that stores it.
    minute = account.rate_lowered_at == account.last_failure_at
    why = "TikTok's rate limit" if minute else "TikTok's quota of the day"
    if account.last_failure_at is None:
        why = "a limit of TikTok"
    return Gate("pause", Mark.CLOSED, why, account.last_failure_at, account.next_slot_at)


def _app_rate(facts: Facts) -> Gate:
    app = facts.app
    if not app.step_seconds:
        return Gate("app_rate", Mark.OPEN, "no limit")
    value = f"{_rate(WINDOW_SECONDS / app.step_seconds)}, as set"
    if app.found and app.rate_found is not None:
        value = f"429s have shown {_rate(app.rate_found)}; the pace grows from there"
    since = app.rate_lowered_at if app.found else None
    if app.has_room:
        return Gate("app_rate", Mark.OPEN, value, since)
    return Gate("app_rate", Mark.CLOSED, value, since, until=app.next_slot_at)


def _rate(per_minute: float) -> str:
    return f"{per_minute:.4g} requests a minute"


def _slot(facts: Facts) -> Gate:
    account = facts.account
    remedy = facts.too_low.remedy if facts.too_low else None
    too_few = "; its covers need more than that" if remedy else ""
    if account.slot_near or account.throttled or account.isolated_since:
        value = "at once" if account.slot_near else "after that wait"
        mark = Mark.TROUBLE if remedy else Mark.OPEN
        return Gate("slot", mark, f"{value}{too_few}", command=remedy)
    value = f"one in {span(account.step_seconds)}, and the next ones are taken{too_few}"
    return Gate("slot", Mark.CLOSED, value, until=account.next_slot_at, command=remedy)


def _wake_up(facts: Facts) -> Gate:
    account = facts.account
    if account.awake:
        return Gate("wake_up", Mark.OPEN, "awake", account.wake_at)
    if is_backing_off(facts) or account.throttled or account.isolated_since:
        return Gate("wake_up", Mark.OPEN, "after that wait")
    if account.wake_at is None:
        return Gate("wake_up", Mark.CLOSED, "sleeps: it has nothing to ask for")
    return Gate("wake_up", Mark.CLOSED, f"sleeps until {_first(account)}", until=account.wake_at)


def _first(account: AccountFacts) -> str:
    due = account.earliest_due_at
    token_first = account.token_due_at and (due is None or account.token_due_at < due)
    return "its token is due for renewal" if token_first else "its first video is due"


def _video(video: VideoFacts) -> Gate:
    since = video.gone_at or video.missing_since
    value = _fate(video)
    match video.turn:
        case None | Turn.TOP_UP:
            value = f"{value}not due"
            return Gate("video", Mark.CLOSED, value, since, video.due_at, _retry(video))
        case Turn.DUE:
            ahead = f", after {counted(video.ahead, 'other')} of its account" if video.ahead else ""
            return Gate("video", Mark.OPEN, f"{value}due{ahead}", since or video.due_at)
        case _:
            return Gate("video", Mark.OPEN, f"{value}due, asked for alone", since or video.due_at)


def _retry(video: VideoFacts) -> str | None:
    """What an operator can do for a video that is asked for more rarely."""
    if not video.misses:
        return None
    command = f"refresher videos retry {shlex.quote(video.id)}"
    if video.missing_since or video.gone_at:
        return f"see whether it is still at TikTok, and public; if so: {command}"
    return command


def _fate(video: VideoFacts) -> str:
    """What its last answers were; empty where all is well."""
    if video.refusal:
        return f"refused by TikTok ({video.refusal}), "
    if video.gone_at:
        return f"gone, missing in {_answers(video.misses)}, "
    if video.missing_since:
        return f"missing in {_answers(video.misses)}, "
    return f"no newer cover in {_answers(video.misses)}, " if video.misses else ""


def _answers(number: int) -> str:
    return f"the last {number:,} answers" if number > 1 else "the last answer"


GATES: Final[Sequence[Callable[[Facts], Gate]]] = (
    _state,
    _consent,
    _scope,
    _token,
    _pause_of_all,
    _lease,
    _back_off,
    _pause,
    _app_rate,
    _slot,
    _wake_up,
)
