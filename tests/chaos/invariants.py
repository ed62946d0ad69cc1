"""What must always hold. Each check is pure and yields a text for each violation of it.

No text holds a token or a signature.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

from refresher.domain.due import wait_after_miss, wait_after_refusal
from refresher.domain.pacing import HEADROOM_SECONDS, WINDOW_SECONDS
from refresher.emulator.record import TokenArrival
from refresher.events import EVENTS
from tests.chaos.journal import PROCESS_FAULTS, Journal
from tests.conftest import check_output

#: Events that no fault from outside may cause.
FORBIDDEN = {
    "account.failed",
    "account.blocked",
    "account.mended",
    "daemon.failed",
    "library.failed",
    "library.warned",
    "loop.failed",
    "settings.ignored",
}
#: The app credentials: check_output does not look for these.
CREDENTIALS = re.compile(r"client-pass-word-of-the-tests|key-of-the-chaos")
EXPIRES = re.compile(r"[?&]x-expires=(\d+)")
#: The longest time from the arrival of a request to the write of its answer.
WRITING = timedelta(seconds=30)
#: A request this close to a kill or stop of its process is excused.
AROUND_SECONDS = 0.5
#: In quiet times the database holds what an answer said after this time.
SAYING_SECONDS = 10.0
#: The log names a fault of the API at the latest this long after its end.
AWAY_SAID_SECONDS = 10.0


class TokenRequested(NamedTuple):
    """A token request and the replica that sent it."""

    arrival: TokenArrival
    replica: str


class Parked(NamedTuple):
    """An account became parked in the database, or a log said so."""

    at: float  # Unix time
    open_id: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A row of refresher.videos."""

    open_id: str
    video_id: str
    url: str | None
    expires_at: datetime | None
    due_at: datetime
    misses: int
    refusal: str | None


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """A row of refresher.accounts."""

    open_id: str
    state: str
    reason: str | None
    refresh_token_digest: str | None  # of the unsealed token
    refresh_token_lives: bool  # the emulator accepts it
    sealed: bool  # no token was stored in plain text


# --- 1. The limit ---


def over_limit(account: str, moments: Sequence[float], limit: int) -> Iterator[str]:
    """More than `limit` arrivals within 60 s. `moments` are sorted."""
    for first, last in zip(moments, moments[limit:], strict=False):
        if last - first < WINDOW_SECONDS:
            yield f"{account}: {limit + 1} requests within {last - first:.2f} s"
            return


def too_close(account: str, moments: Sequence[float], limit: int) -> Iterator[str]:
    """Requests closer together than their slots, by more than the headroom.

    A short run shows this; a full window takes 60 s.
    """
    step = (WINDOW_SECONDS + HEADROOM_SECONDS) / limit
    for number, first in enumerate(moments):
        for apart, later in enumerate(moments[number + 1 : number + limit], 1):
            if later - first < apart * step - HEADROOM_SECONDS:
                yield f"{account}: {apart + 1} requests within {later - first:.2f} s"
                return


# --- 2. Tokens ---


def used_twice(
    requests: Iterable[TokenRequested], journal: Journal, lost: Collection[str]
) -> Iterator[str]:
    """A refresh token sent again, though the answer to its renewal arrived and could be stored.

    `lost`: accounts with a token.lost event.
    """
    renewals: dict[str, TokenRequested] = {}
    for arrival, replica in requests:
        first = renewals.get(arrival.refresh_token_digest)
        if arrival.used_before and first:
            if not (_answer_lost(first, journal, arrival.at) or arrival.open_id in lost):
                yield (
                    f"{arrival.open_id}: its refresh token was renewed by {first.replica}, which "
                    f"had the answer, and {arrival.at - first.arrival.at:.1f} s later sent again "
                    f"by {replica}; meanwhile: {journal.between(first.arrival.at, arrival.at)}"
                )
        elif _renews(arrival):
            renewals[arrival.refresh_token_digest] = TokenRequested(arrival, replica)


def _renews(arrival: TokenArrival) -> bool:
    return arrival.error_code in {"ok", "no_answer", "cut", "malformed"}


def _answer_lost(request: TokenRequested, journal: Journal, until: float) -> bool:
    """The answer was not sent, or the process that asked was killed or stopped before `until`."""
    arrival, replica = request
    begin = arrival.at - AROUND_SECONDS
    return not arrival.answered or journal.happened(PROCESS_FAULTS, replica, begin, until)


def lost_unsaid(
    accounts: Iterable[StoredAccount],
    requests: Sequence[TokenRequested],
    journal: Journal,
    now: float,
) -> Iterator[str]:
    """An account that is active though its refresh token is known to be dead."""
    for account in accounts:
        digest = account.refresh_token_digest
        if account.state != "active" or digest is None or account.refresh_token_lives:
            continue
        told = [
            request
            for request in requests
            if request.arrival.refresh_token_digest == digest
            and (_renews(request.arrival) or request.arrival.error_code == "invalid_grant")
        ]
        if told and told[-1].arrival.at > now - SAYING_SECONDS:
            continue
        if not told:
            # The user took the consent back and nobody has tried it since.
            excused = journal.last({"consent_revoked"}, account.open_id) > journal.last(
                {"authorized"}, account.open_id
            )
        else:
            renewed = _renews(told[-1].arrival)
            excused = renewed and _answer_lost(told[-1], journal, told[-1].arrival.at + 1)
        if not excused:
            yield f"{account.open_id}: goes for active, with a refresh token that is dead"


def parked_wrongly(
    accounts: Iterable[StoredAccount], requests: Sequence[TokenRequested], journal: Journal
) -> Iterator[str]:
    """An account that is parked though its tokens were neither revoked nor lost."""
    for account in accounts:
        if account.state == "active":
            continue
        if not account.reason:
            yield f"{account.open_id}: {account.state}, and no reason is said"
        authorized = journal.last({"authorized"}, account.open_id)
        if account.state == "needs_scope":
            if journal.last({"scope_revoked"}, account.open_id) < authorized:
                yield f"{account.open_id}: needs_scope, and its scope was never taken back"
        elif account.state == "needs_reauthorization":
            if account.refresh_token_lives:
                yield (
                    f"{account.open_id}: parked with {account.reason}, and the refresh token "
                    "that is stored is alive"
                )
            elif not _credential_lost(account, authorized, requests, journal):
                yield f"{account.open_id}: parked with {account.reason}, and nothing was lost"
        else:
            yield f"{account.open_id}: {account.state}, which nobody ordered"


def _credential_lost(
    account: StoredAccount, authorized: float, requests: Sequence[TokenRequested], journal: Journal
) -> bool:
    revoked = journal.last({"consent_revoked"}, account.open_id) > authorized
    return revoked or any(
        request.arrival.open_id == account.open_id
        and request.arrival.at > authorized
        and _renews(request.arrival)
        and _answer_lost(request, journal, inf)
        for request in requests
    )


def parked_unsaid(
    parks: Iterable[Parked], said: Collection[Parked], disturbed: Callable[[float], bool]
) -> Iterator[str]:
    """An account parked without a reason in its row, or without an event in a log.

    The event may be missing if a fault `disturbed` the replica at that time. The reason may not.
    """
    for park in parks:
        if not park.reason:
            yield f"{park.open_id}: {park.state}, and no reason is stored"
        words = [word for word in said if word[1:] == park[1:]]
        if not any(abs(word.at - park.at) < SAYING_SECONDS for word in words) and not disturbed(
            park.at
        ):
            yield f"{park.open_id}: {park.state} by {park.reason}, and no event says so"


def unsealed(accounts: Iterable[StoredAccount]) -> Iterator[str]:
    """An active account with a token in plain text."""
    for account in accounts:
        if account.state == "active" and not account.sealed:
            yield f"{account.open_id}: a token lies in plain text"


# --- 3. Covers ---


def bad_covers(videos: Iterable[StoredVideo], handed_out: Mapping[str, str]) -> Iterator[str]:
    """A stored URL that was not made for this video, or an expiry that is not that of the URL."""
    for video in videos:
        if not video.url:
            continue
        if handed_out.get(video.url) != video.video_id:
            yield f"video {video.video_id}: its URL is none that was handed out for it"
        named = EXPIRES.search(video.url)
        if not named or video.expires_at != datetime.fromtimestamp(int(named[1]), UTC):
            yield f"video {video.video_id}: {video.expires_at} is not what its URL says"


# --- 4. Freshness ---


def not_valid(
    videos: Iterable[StoredVideo],
    present: Mapping[str, Collection[str]],
    not_served: Mapping[str, float],
    now: datetime,
) -> Iterator[str]:
    """A video of an active account that exists at TikTok and has no valid cover.

    A video is excused while it waits, as documented, after an answer that left it out or refused
    it. `present`: video IDs by active account.
    """
    for video in videos:
        if video.video_id not in present.get(video.open_id, ()):
            continue
        if video.url and video.expires_at and video.expires_at > now:
            continue
        if not _waits(video, not_served.get(video.video_id), now):
            yield (
                f"video {video.video_id} of {video.open_id}: no valid cover; misses "
                f"{video.misses}, refusal {video.refusal}, due in "
                f"{(video.due_at - now).total_seconds():.0f} s"
            )


def _waits(video: StoredVideo, not_served_at: float | None, now: datetime) -> bool:
    if not_served_at is None or not video.misses or video.due_at <= now:
        return False
    wait = (
        wait_after_refusal(video.misses)
        if video.refusal
        else wait_after_miss(video.misses, present=False)
    )
    return video.due_at <= datetime.fromtimestamp(not_served_at, UTC) + wait + WRITING


# --- 6. The logs ---


def bad_lines(name: str, text: str) -> Iterator[str]:
    """Secrets, unlisted or forbidden events, and lines that are no event."""
    if CREDENTIALS.search(text):
        yield f"{name}: the app's credentials in the output"
    try:
        check_output(text)
    except (AssertionError, KeyError, ValueError) as error:
        yield f"{name}: {str(error)[:300]}"
    for line in text.splitlines():
        try:
            event = json.loads(line)["event"]
        except (ValueError, KeyError, TypeError):
            yield f"{name}: no event: {line[:300]}"
            continue
        if event in FORBIDDEN or event not in EVENTS:
            yield f"{name}: {line[:1500]}"


def recovered_early(said: Iterable[tuple[float, str]], journal: Journal) -> Iterator[str]:
    """A replica that logged database.recovered while the server was stopped.

    `said`: when, and which replica.
    """
    for at, replica in said:
        for gone in journal.of("gone"):
            if gone.began < at < gone.ended:
                yield f"{replica}: database.recovered, {at - gone.began:.1f} s after it was stopped"


# --- 7. Isolation ---


def lost_wrongly(said: Iterable[tuple[float, str]], journal: Journal) -> Iterator[str]:
    """A replica that logged upstream.lost though only single accounts were refused."""
    for at, replica in said:
        if not any(
            entry.subject == "upstream" and entry.began <= at <= entry.ended + AWAY_SAID_SECONDS
            for entry in journal.entries
        ):
            yield f"{replica}: upstream.lost; meanwhile: {journal.between(at - 10, at)}"


# --- 9. What was said to be stored ---


def lost_covers(
    events: Iterable[Mapping[str, object]], written: Iterable[tuple[str, str]]
) -> Iterator[str]:
    """An account of which more covers were said to be refreshed than commits have left.

    `written`: the account and the URL of each cover that a commit has stored.
    """
    said = Counter[str]()
    for event in events:
        if event["event"] == "account.refreshed":
            said[str(event["open_id"])] += int(str(event["refreshed"]))
    stored = Counter(open_id for open_id, _ in written)
    for open_id, number in said.items():
        if number > stored[open_id]:
            yield f"{open_id}: {number} covers were said to be stored, {stored[open_id]} are"


def complete_lines(text: str) -> str:
    """The text without a last line that was cut off by a kill."""
    return text[: text.rfind("\n") + 1]


def by_account(arrivals: Iterable[tuple[float, str | None]]) -> dict[str, list[float]]:
    moments = defaultdict(list)
    for at, account in arrivals:
        if account is not None:
            moments[account].append(at)
    return moments
