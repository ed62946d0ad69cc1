"""A limit of the whole app that nobody configured: how it shows, and how high it is.

A full sliding window has let through exactly its limit. So, at a 429, the number of requests that
all replicas together saw answered in a window is the limit, and we know when there is room again:
when these answers leave the window.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from refresher.domain.pacing import WINDOW_SECONDS, wished_seconds

#: The whole app is limited if, among so many latest answers of so many seconds, there are so many
#: 429s, on so many accounts.
ANSWERS_WATCHED: Final = 10
ANSWERS_WATCHED_SECONDS: Final = 10.0
APP_THROTTLES: Final = 5
APP_ACCOUNTS: Final = 2
#: While we keep to a limit of the app, so many 429s show it at once.
NEARLY_ALL: Final = 8
#: While we keep to a limit of the app, so many 429s on one account alone are the account's own.
OWN_THROTTLES: Final = 3
#: So are fewer, but at least OWN_AGAIN, if the account has been refused more than so many times as
#: often as the others since the first of them.
REFUSED_MORE: Final = 2
OWN_AGAIN: Final = 2
#: An account whose 429s are its own is taken to be so for so long.
OWN_SECONDS: Final = 300.0
#: After so many good answers, or so long after a 429, it is clear whose it was: refused accounts
#: are asked for again first.
JUDGED_ANSWERS: Final = 25
JUDGED_SECONDS: Final = 30.0
#: Accounts are compared by so many answers.
COMPARED: Final = 1000

WINDOW: Final = round(WINDOW_SECONDS)
#: How far back answers are counted. Two windows: just after a pause the last one is empty.
REMEMBERED_SECONDS: Final = 2 * WINDOW
#: The lowest rate that is found, in requests a minute: any slower, and we would not notice the end.
LEAST_RATE: Final = 10

#: Good answers by the second, the latest first.
Answers = Sequence[int]


@dataclass(frozen=True, slots=True)
class _Met:
    """A 429."""

    at: float
    account: str
    #: It wishes that nothing is sent until then.
    until: float
    #: How many good answers came before it.
    good_before: int


class AppThrottle:
    """Tells a limit of the app from the limits of single tokens, by this replica's answers."""

    def __init__(self) -> None:
        #: A limit of the app is known and kept to.
        self.in_force = False
        #: The latest answers: when, and the account of a 429, None for others.
        self._answers: deque[tuple[float, str | None]] = deque(maxlen=ANSWERS_WATCHED)
        #: The 429s of the last window that may be the app's.
        self._throttled: deque[_Met] = deque()
        #: The answers of the last window: when, for whom, whether it was a 429.
        self._compared: deque[tuple[float, str, bool]] = deque(maxlen=COMPARED)
        #: Accounts whose 429s are their own, and until when they are taken to be so.
        self._own: dict[str, float] = {}
        self._good = 0
        #: Good answers, by the second: the second, and how many.
        self._by_second: deque[list[int]] = deque()

    def answered(self, account: str, now: float) -> None:
        """A request was answered."""
        self._good += 1
        self._answers.append((now, None))
        self._compared.append((now, account, False))
        if not self._by_second or self._by_second[-1][0] != int(now):
            self._by_second.append([int(now), 0])
            if self._by_second[0][0] <= int(now) - REMEMBERED_SECONDS:
                self._by_second.popleft()
        self._by_second[-1][1] += 1

    def throttled(self, account: str, now: float, retry_after_seconds: float | None = None) -> bool:
        """A request met a 429. Returns whether that may be the app's limit, not the account's."""
        self._answers.append((now, account))
        self._compared.append((now, account, True))
        self._throttled.append(
            _Met(now, account, now + wished_seconds(retry_after_seconds), self._good)
        )
        self._forget(now)
        if not self.in_force:
            return False
        if self._stands_out(account):
            self._own[account] = now + OWN_SECONDS
        if account not in self._own:
            return True
        self._disregard(account)
        return False

    def shows_limit(self, now: float) -> bool:
        """Whether the 429s show a limit of the app. If so, they are not counted again.

        A limit in force shows by fewer 429s, once it is clear that these are not accounts' own.
        """
        self._forget(now)
        lately = now - ANSWERS_WATCHED_SECONDS
        latest = [account for at, account in self._answers if account and at > lately]
        most = NEARLY_ALL if self.in_force else APP_THROTTLES
        several = len(latest) >= most and len(set(latest)) >= APP_ACCOUNTS
        judged = {met.account for met in self._throttled if self._is_judged(met, now)}
        known = self.in_force and len(judged) >= APP_ACCOUNTS
        if several or known:
            self._answers.clear()
            self._throttled.clear()
        return several or known

    def wished_seconds(self, now: float) -> float:
        """For how long the 429s that show a limit wish that nothing is sent: the shortest wish."""
        # One account's long wish must not silence them all.
        wishes: dict[str, float] = {}
        for met in self._throttled:
            wishes[met.account] = max(met.until, wishes.get(met.account, met.until))
        return max(0.0, min(wishes.values(), default=now) - now)

    def answered_lately(self, now: float) -> Answers:
        """The good answers that this replica adds to the count of all replicas."""
        counts = [0] * REMEMBERED_SECONDS
        for second, number in self._by_second:
            if (age := int(now) - second) < REMEMBERED_SECONDS:
                counts[max(0, age)] += number
        while counts and not counts[-1]:
            counts.pop()
        return counts

    def _is_judged(self, met: _Met, now: float) -> bool:
        enough = self._good - met.good_before >= JUDGED_ANSWERS
        return enough or now - met.at >= JUDGED_SECONDS

    def _stands_out(self, account: str) -> bool:
        """Whether an account is refused again and again while others are answered."""
        mine = [(at, is_429) for at, whose, is_429 in self._compared if whose == account]
        first = next(at for at, is_429 in mine if is_429)
        own = [is_429 for at, is_429 in mine if at >= first]
        others = [
            (at, is_429)
            for at, whose, is_429 in self._compared
            if whose != account and whose not in self._own
        ]
        if sum(own) >= OWN_THROTTLES and not any(is_429 for _, is_429 in others):
            return True
        since = [is_429 for at, is_429 in others if at >= first]
        # As if the others had one more refusal: a single one by chance must not accuse an account.
        allowed = REFUSED_MORE * (sum(since) + 1) * len(own)
        return sum(own) >= OWN_AGAIN and sum(own) * len(since) > allowed

    def _disregard(self, account: str) -> None:
        """Forget the account's 429s: they show nothing about the app."""
        self._throttled = deque(met for met in self._throttled if met.account != account)
        others = (answer for answer in self._answers if answer[1] != account)
        self._answers = deque(others, maxlen=ANSWERS_WATCHED)

    def _forget(self, now: float) -> None:
        while self._throttled and self._throttled[0].at <= now - WINDOW_SECONDS:
            self._throttled.popleft()
        while self._compared and self._compared[0][0] <= now - WINDOW_SECONDS:
            self._compared.popleft()
        self._own = {account: until for account, until in self._own.items() if until > now}


@dataclass(frozen=True, slots=True)
class Heard:
    """What a replica told the others."""

    #: How long ago it counted its answers.
    age_seconds: float
    answers: Answers


@dataclass(frozen=True, slots=True)
class AppLimit:
    """A limit of the app that was found."""

    #: Requests that may be sent in a minute.
    rate_per_minute: float
    #: The answers of one window that the replicas told.
    answered: int
    #: How long until there is room for requests at this rate.
    pause_seconds: float


def app_limit(heard: Iterable[Heard], unheard: int = 0) -> AppLimit:
    """The limit that a 429 shows now, by the answers that the replicas saw.

    `unheard` replicas told nothing. Each counts as an average one of the others.
    """
    told = list(heard)
    counts = _together(told)
    answered = _busiest(counts)
    factor = 1 + unheard / max(1, len(told))
    limit = max(LEAST_RATE, factor * answered)
    pause = _pause_seconds([factor * count for count in counts[:WINDOW]], limit)
    return AppLimit(limit, answered, pause)


def _together(heard: Iterable[Heard]) -> list[int]:
    counts = [0] * REMEMBERED_SECONDS
    for one in heard:
        first = max(0, round(one.age_seconds))
        for age, number in enumerate(one.answers, first):
            if age < REMEMBERED_SECONDS:
                counts[age] += number
    return counts


def _busiest(counts: Sequence[int]) -> int:
    """The most answers in any window."""
    return max(sum(counts[age : age + WINDOW]) for age in range(len(counts) - WINDOW + 1))


def _pause_seconds(window: Sequence[float], limit: float) -> float:
    """How long until requests at this rate find room, because older ones leave the window.

    0 after a steady flow; after a burst, until the burst has left the window.
    """
    before, pause = limit - sum(window), 0.0
    for age in range(len(window) - 1, -1, -1):
        if window[age]:
            pause = max(pause, WINDOW_SECONDS - age - before * WINDOW_SECONDS / limit)
        before += window[age]
    return pause
