"""A limit of the whole app that nobody configured: how it shows, and how high it is.

A sliding window that is full has let through just its limit. So, at a 429, what all replicas
together saw answered in a window is the limit, and it is known when those answers leave it.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from refresher.domain.pacing import WINDOW_SECONDS, wished_seconds

#: Of the latest answers at least so many 429s, on so many accounts: the app as a whole is limited.
ANSWERS_WATCHED: Final = 10
ANSWERS_WATCHED_SECONDS: Final = 10.0
APP_THROTTLES: Final = 5
APP_ACCOUNTS: Final = 2
#: While a limit of the app is kept to, so many 429s on one account alone are that account's.
OWN_THROTTLES: Final = 3

WINDOW: Final = round(WINDOW_SECONDS)
#: How far back answers are counted. Two windows: just after a pause the last one says nothing.
REMEMBERED_SECONDS: Final = 2 * WINDOW
#: Requests a minute, the least to be found: slower, nobody would learn that it may go on.
LEAST_RATE: Final = 10

#: Good answers by the second, the latest first.
Answers = Sequence[int]


class AppThrottle:
    """Tells a limit of the whole app from the limits of single tokens, by this replica's answers.

    `in_force`: a limit of the app is known and kept to.
    """

    def __init__(self) -> None:
        self.in_force = False
        #: When and for whom the latest answers were 429s, None for the others.
        self._answers: deque[tuple[float, str | None]] = deque(maxlen=ANSWERS_WATCHED)
        #: The 429s of the last window: when, for whom, and until when they wish nothing to be sent.
        self._throttled: deque[tuple[float, str, float]] = deque()
        #: Good answers, by the second: which, how many.
        self._by_second: deque[list[int]] = deque()

    def answered(self, now: float) -> None:
        """A request was answered."""
        self._answers.append((now, None))
        if not self._by_second or self._by_second[-1][0] != int(now):
            self._by_second.append([int(now), 0])
            if self._by_second[0][0] <= int(now) - REMEMBERED_SECONDS:
                self._by_second.popleft()
        self._by_second[-1][1] += 1

    def throttled(self, account: str, now: float, retry_after_seconds: float | None = None) -> bool:
        """A request met a 429; whether that is the app's affair rather than the account's."""
        self._answers.append((now, account))
        self._throttled.append((now, account, now + wished_seconds(retry_after_seconds)))
        self._forget(now)
        return self.in_force and not self._is_alone(account)

    def shows_limit(self, now: float) -> bool:
        """Whether the 429s show a limit of the app; the next time it takes as many again.

        A limit that is in force shows sooner.
        """
        self._forget(now)
        lately = now - ANSWERS_WATCHED_SECONDS
        latest = [account for at, account in self._answers if account and at > lately]
        several = len(latest) >= APP_THROTTLES and len(set(latest)) >= APP_ACCOUNTS
        known = (
            self.in_force and len({account for _, account, _ in self._throttled}) >= APP_ACCOUNTS
        )
        if several or known:
            self._answers.clear()
            self._throttled.clear()
        return several or known

    def wished_seconds(self, now: float) -> float:
        """How long the 429s that show a limit wish nothing to be sent.

        The least that any account was told: a single one's long wish must not silence them all.
        """
        wishes: dict[str, float] = {}
        for _, account, until in self._throttled:
            wishes[account] = max(until, wishes.get(account, until))
        return max(0.0, min(wishes.values(), default=now) - now)

    def answered_lately(self, now: float) -> Answers:
        """What this replica has to add to the count of all."""
        counts = [0] * REMEMBERED_SECONDS
        for second, number in self._by_second:
            if (age := int(now) - second) < REMEMBERED_SECONDS:
                counts[max(0, age)] += number
        while counts and not counts[-1]:
            counts.pop()
        return counts

    def _is_alone(self, account: str) -> bool:
        return len(self._throttled) >= OWN_THROTTLES and {
            throttled for _, throttled, _ in self._throttled
        } == {account}

    def _forget(self, now: float) -> None:
        while self._throttled and self._throttled[0][0] <= now - WINDOW_SECONDS:
            self._throttled.popleft()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a replica has told: its answers, and how long ago it counted them."""

    age_seconds: float
    answers: Answers


@dataclass(frozen=True, slots=True)
class AppLimit:
    """Requests a minute that may be sent, and how long until there is room for them.

    `answered` is what the replicas have told of one window.
    """

    rate_per_minute: float
    answered: int
    pause_seconds: float


def app_limit(heard: Iterable[Heard], unheard: int = 0) -> AppLimit:
    """The limit that a 429 shows now, by what the replicas saw answered.

    `unheard` replicas work, too, and are taken to have seen as much as the others on average.
    """
    told = list(heard)
    counts = _together(told)
    answered = _busiest(counts)
    share = 1 + unheard / max(1, len(told))
    limit = max(LEAST_RATE, share * answered)
    pause = _pause_seconds([share * count for count in counts[:WINDOW]], limit)
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
    """The most in any window."""
    return max(sum(counts[age : age + WINDOW]) for age in range(len(counts) - WINDOW + 1))


def _pause_seconds(window: Sequence[float], limit: float) -> float:
    """How long until requests at this rate find room, each where an older one has left.

    None is needed after a steady flow; after a burst it lasts until that has left.
    """
    before, pause = limit - sum(window), 0.0
    for age in range(len(window) - 1, -1, -1):
        if window[age]:
            pause = max(pause, WINDOW_SECONDS - age - before * WINDOW_SECONDS / limit)
        before += window[age]
    return pause
