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
#: While a limit of the app is kept to, so many show it at once.
NEARLY_ALL: Final = 8
#: While a limit of the app is kept to, so many 429s on one account alone are that account's.
OWN_THROTTLES: Final = 3
#: So are fewer, where since the first of them it was refused more than so many times as often as
#: the others; of these it takes a few.
REFUSED_MORE: Final = 2
OWN_AGAIN: Final = 2
#: An account that was found to be throttled by itself is taken to be so for so long.
OWN_SECONDS: Final = 300.0
#: By then it has shown: refused accounts are the first to be asked for again. So many good answers
#: or so long after a 429, whichever is sooner.
JUDGED_ANSWERS: Final = 25
JUDGED_SECONDS: Final = 30.0
#: Of so many answers accounts are compared.
COMPARED: Final = 1000

WINDOW: Final = round(WINDOW_SECONDS)
#: How far back answers are counted. Two windows: just after a pause the last one says nothing.
REMEMBERED_SECONDS: Final = 2 * WINDOW
#: Requests a minute, the least to be found: slower, nobody would learn that it may go on.
LEAST_RATE: Final = 10

#: Good answers by the second, the latest first.
Answers = Sequence[int]


@dataclass(frozen=True, slots=True)
class _Met:
    """A 429: until when it wishes nothing to be sent, and how many good answers came before it."""

    at: float
    account: str
    until: float
    good_before: int


class AppThrottle:
    """Tells a limit of the whole app from the limits of single tokens, by this replica's answers.

    `in_force`: a limit of the app is known and kept to.
    """

    def __init__(self) -> None:
        self.in_force = False
        #: When and for whom the latest answers were 429s, None for the others.
        self._answers: deque[tuple[float, str | None]] = deque(maxlen=ANSWERS_WATCHED)
        #: The 429s of the last window that may be the app's.
        self._throttled: deque[_Met] = deque()
        #: The answers of the last window: when, for whom, whether it was a 429.
        self._compared: deque[tuple[float, str, bool]] = deque(maxlen=COMPARED)
        #: The accounts that are throttled by themselves, and until when they are taken to be so.
        self._own: dict[str, float] = {}
        self._good = 0
        #: Good answers, by the second: which, how many.
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
        """A request met a 429; whether that is the app's affair rather than the account's."""
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
        """Whether the 429s show a limit of the app; the next time it takes as many again.

        A limit that is in force shows with fewer, when these had time to turn out to be accounts'
        own.
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
        """How long the 429s that show a limit wish nothing to be sent.

        The least that any account was told: a single one's long wish must not silence them all.
        """
        wishes: dict[str, float] = {}
        for met in self._throttled:
            wishes[met.account] = max(met.until, wishes.get(met.account, met.until))
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

    def _is_judged(self, met: _Met, now: float) -> bool:
        enough = self._good - met.good_before >= JUDGED_ANSWERS
        return enough or now - met.at >= JUDGED_SECONDS

    def _stands_out(self, account: str) -> bool:
        """Whether it is refused again and again while the others are answered."""
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
        # One more of the others' is allowed for: a chance refusal must not accuse an account.
        allowed = REFUSED_MORE * (sum(since) + 1) * len(own)
        return sum(own) >= OWN_AGAIN and sum(own) * len(since) > allowed

    def _disregard(self, account: str) -> None:
        """Its 429s show nothing of the app."""
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
