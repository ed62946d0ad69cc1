"""Why an account or a video is in the state it is in, and when it is asked for next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from refresher.domain.claiming import Turn
from refresher.domain.facts import AccountFacts, Facts, VideoFacts
from refresher.domain.gates import (
    RIGHT_CREDENTIALS,
    Gate,
    Mark,
    gates_of,
    token_free_at,
    why_not_renewed,
)
from refresher.domain.missing import Missing, bereft
from refresher.domain.model import CHUNK_SIZE
from refresher.domain.spans import counted, moment, seen_from, span

#: The reason of a verdict where no gate is closed.
READY: Final = "ready"
#: The gates whose trouble makes a request fail. An end of the consent alone does not: the access
#: token lives on, and when it is dead, its own gate says why it is not renewed.
FORESEEN: Final = frozenset({"scope", "token"})
NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to tell of an account, or of a video of it."""

    facts: Facts
    #: One sentence or two.
    verdict: str
    #: The closed gate that opens last, else `READY`.
    reason: str
    gates: Sequence[Gate]
    #: None: not before somebody changes something.
    next_ask_at: datetime | None
    #: When its answer should be stored; None: not known, see `unknown`.
    expected_at: datetime | None
    #: Why that is not known.
    unknown: str | None
    #: What an operator can do, what helps most first; none: nothing is to be done.
    commands: Sequence[str]

    @property
    def command(self) -> str | None:
        """The first of them."""
        return next(iter(self.commands), None)


def explain(facts: Facts) -> Explanation:
    """The verdict and all that leads to it."""
    gates = gates_of(facts)
    closed = _deciding(gates)
    asked = next_ask_at(facts)
    failing = _failing(facts, gates) if asked else []
    trouble = " and ".join(gate.value for gate in failing)
    expected, unknown = _expected(facts, asked, trouble)
    fails = f"; but the request will fail: {trouble}" if trouble else ""
    why = f"{_reason(facts, closed, asked, expected)}{fails}{_to_come(facts)}"
    return Explanation(
        facts=facts,
        verdict=f"{_cover(facts)}; {why}",
        reason=closed.name if closed else READY,
        gates=gates,
        next_ask_at=asked,
        expected_at=expected,
        unknown=unknown,
        commands=[
            *_commands(gates, closed, failing),
            *filter(None, [_late(facts, expected), _left_out(facts)]),
        ],
    )


def _deciding(gates: Sequence[Gate]) -> Gate | None:
    """The closed gate that opens last: those that open in a second are not why a cover waits.

    One that does not open by itself is the last of all. Of equal ones it is the first.
    """
    closed = [gate for gate in gates if gate.mark is Mark.CLOSED]
    return max(closed, key=lambda gate: (gate.until is None, gate.until or NEVER), default=None)


def _failing(facts: Facts, gates: Sequence[Gate]) -> Sequence[Gate]:
    """The gates that say why the next request will fail."""
    foreseen = FORESEEN if facts.account.token_dead else FORESEEN - {"token"}
    return [each for each in gates if each.mark is Mark.TROUBLE and each.name in foreseen]


def _to_come(facts: Facts) -> str:
    """What stops nothing yet, but will."""
    account = facts.account
    told = ""
    why = why_not_renewed(facts)
    if account.state == "active" and why and not account.token_dead:
        ends = account.access_token_expires_at
        told = f". Its access token ends at {seen_from(facts.now, ends)}, and {why}" if ends else ""
        told = told or f". {why[0].upper()}{why[1:]}"
    if facts.too_low:
        told += f". {facts.too_low.told[0].upper()}{facts.too_low.told[1:]}"
    return told


def _commands(gates: Sequence[Gate], closed: Gate | None, failing: Sequence[Gate]) -> Sequence[str]:
    """First what lets the next request succeed, then what brings it sooner, then the rest."""
    deciding = [closed] if closed else []
    troubles = [gate for gate in gates if gate.mark is Mark.TROUBLE]
    # These matter, even where another gate opens still later.
    others = [gate for gate in gates if gate.name == "video" or gate.command == RIGHT_CREDENTIALS]
    commands = (gate.command for gate in (*failing, *deciding, *troubles, *others))
    return list(dict.fromkeys(filter(None, commands)))


def _left_out(facts: Facts) -> str | None:
    """Where the names are, if TikTok leaves out more of its videos than users delete."""
    account = facts.account
    if facts.video or not bereft([Missing(account.open_id, account.left_out, account.videos)]):
        return None
    command = f"refresher videos list --account {shlex.quote(account.open_id)} --state"
    return f"see which are no longer there, or not public: {command} missing, and {command} gone"


def _late(facts: Facts, expected: datetime | None) -> str | None:
    """What to do where the cover dies before its turn comes."""
    dies_at = facts.video and facts.video.cover_expires_at
    late = dies_at and expected and expected > dies_at
    return "refresher forecast tells the quota that is needed" if late else None


def next_ask_at(facts: Facts) -> datetime | None:
    """When a request for it may go out at the earliest; None: not by itself."""
    account, app, video = facts.account, facts.app, facts.video
    never_wakes = account.wake_at is None and not account.awake
    if account.state != "active" or app.paused_since or never_wakes:
        return None
    if video and video.due_at is None:
        return None
    waits = [facts.now, video.due_at if video else None]
    if account.free:  # else it is being asked for now
        waits += [account.wake_at, account.next_slot_at]
        waits += [token_free_at(account)] if account.waits_for_token else []
        waits += [app.next_slot_at] if app.step_seconds else []
    return max(filter(None, waits))


def _expected(
    facts: Facts, asked: datetime | None, trouble: str
) -> tuple[datetime | None, str | None]:
    """When it should be done, and why that is not known."""
    account, app = facts.account, facts.app
    if asked is None:
        return None, "it is not asked for until somebody changes something"
    if account.waits_for_token and app.client_refused_at:
        return None, "TikTok refuses the app credentials"
    if trouble:
        return None, f"the request will fail: {trouble}"
    if account.accounts_ahead and not app.step_seconds:
        return None, (
            f"{_ahead(account.accounts_ahead, 'account')}, and without a limit of the app TikTok's "
            "answers decide how fast they are done"
        )
    chunks_ahead = facts.video.ahead // CHUNK_SIZE if facts.video else 0
    queued = account.requests_ahead * app.step_seconds + chunks_ahead * account.step_seconds
    # A tick may have to come first.
    seconds = queued + (facts.poll_seconds if account.claimable else 0)
    return _later(asked, seconds), None


def _later(asked: datetime, seconds: float) -> datetime:
    try:
        return asked + timedelta(seconds=seconds)
    except OverflowError:
        return asked


def _cover(facts: Facts) -> str:
    if facts.video:
        return _cover_of(facts.video, facts.now)
    account = facts.account
    if not account.videos:
        return "Its covers have not been counted so far"
    valid = f"{account.valid:,} of {account.videos:,} covers were valid at its last release"
    left_out = f", and TikTok leaves out {counted(account.left_out, 'video')}"
    return f"{valid}{left_out if account.left_out else ''}"


def _cover_of(video: VideoFacts, now: datetime) -> str:
    expires = video.cover_expires_at
    if video.cover_image_url is None:
        return "No cover so far"
    if expires is None:
        return "Its cover names no expiry"
    left = (expires - now).total_seconds()
    return f"Cover is valid for {span(left)}" if left > 0 else f"Cover died {span(-left)} ago"


def _reason(
    facts: Facts, closed: Gate | None, asked: datetime | None, expected: datetime | None
) -> str:
    if closed is None:
        return _queued(facts, expected)
    match closed.name:
        case "state":
            return _left_alone(facts.account)
        case "pause_of_all":
            return f"not asked for: everything is paused since {_since(closed)}"
        case "lease":
            return f"its account is being asked for now, by {facts.account.lease_owner}"
        case "wake_up" | "video":
            return _asleep(facts, closed, asked)
        case _:
            # Refused app credentials are no failure of the account.
            told = closed.name != "token" or not facts.app.client_refused_at
            last = _last(facts.account) if told else ""
            why = f"{WAITS_FOR.get(closed.name, '')}{closed.value}{last}"
            return f"{why}{_again(facts, closed, asked)}"


#: By the closed gate: what makes a sentence of its value.
WAITS_FOR: Final = {
    "pause": "pauses for ",
    "app_rate": "waits for a slot of the app: ",
    "slot": "waits for a slot of its account: ",
}


def _since(gate: Gate) -> str:
    return moment(gate.since) if gate.since else "an unknown time"


def _left_alone(account: AccountFacts) -> str:
    since = moment(account.state_since)
    match account.state:
        case "paused":
            return f"not asked for: its account is paused since {since}"
        case "needs_scope":
            return f"not asked for since {since}: its user must grant the scope{_last(account)}"
        case _:
            return f"not asked for since {since}: its user must authorize again{_last(account)}"


def _last(account: AccountFacts) -> str:
    """The last failure, in brackets."""
    told = last_failure(account)
    return f" ({told})" if told else ""


def last_failure(account: AccountFacts) -> str:
    """Code, status and log_id of the last answer that was a failure; empty where there is none."""
    if account.last_failure_code is None:
        return ""
    status = account.last_failure_http_status
    log_id = account.last_failure_log_id
    answer = f"HTTP {status}" if status else "no answer"
    return f"{account.last_failure_code}, {answer}" + (f", log_id {log_id}" if log_id else "")


def _again(facts: Facts, closed: Gate, asked: datetime | None) -> str:
    when = asked or closed.until
    return f"; asked for again at {seen_from(facts.now, when)}" if when else ""


def _asleep(facts: Facts, closed: Gate, asked: datetime | None) -> str:
    if facts.video and closed.name == "video" and facts.video.misses:
        missed = closed.value.removesuffix(", not due")
        return f"{missed}{_again(facts, closed, asked)}"
    if asked is None:
        return "asked for again when it has a video to ask for"
    return f"asked for again at {seen_from(facts.now, asked)}"


def _ahead(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'} ahead"


def _queued(facts: Facts, expected: datetime | None) -> str:
    account, video = facts.account, facts.video
    ahead = [_ahead(account.accounts_ahead, "account")] if account.accounts_ahead else []
    ahead += [f"{_ahead(video.ahead, 'video')} in its own account"] if video and video.ahead else []
    first = " and ".join(ahead) or "it is the next to be asked for"
    alone = video and video.turn in (Turn.ALONE, Turn.STARVED)
    how = ", alone, when nothing else of its account is due" if alone else ""
    when = f"; expected by {seen_from(facts.now, expected)}" if expected else ""
    return f"waiting: {first}{how}{when}"
