"""How fast: slots under the rate limit, and how long to stay away after a failure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from math import inf
from typing import Final

WINDOW_SECONDS: Final = 60.0
#: How much a request may arrive off its slot, first to last, without breaking the limit.
HEADROOM_SECONDS: Final = 1.2
#: A slot missed by more than this is given up. The network may take the rest of the headroom.
LATEST_SECONDS: Final = 0.5
#: If claims come more than this after their slots begin, the next slots begin as much later. That
#: lasts for so long after the last claim that came as late.
LATE_CLAIM_SECONDS: Final = 0.25
LATE_KEPT_SECONDS: Final = 10.0
#: Slots that passed less than this ago are still reserved for an account in work: requests that are
#: sent late in them keep their distance, too.
PAST_SECONDS: Final = 0.4

#: How far ahead a claim reserves slots of one account: short, so that a huge account cannot hold
#: the queue, and well inside the lease.
HORIZON_SECONDS: Final = 5.0
#: With a limit for the whole app, claims take the app's slots in turn, so a claim must not reach
#: far. A chunk may be sent up to twice that after its slot of the app, if its account both starts
#: late and paces its chunks, and that slot may just have passed: the app's slots lie wider apart.
APP_HORIZON_SECONDS: Final = 0.75
APP_REACH_SECONDS: Final = 2 * APP_HORIZON_SECONDS + PAST_SECONDS
#: What writing back and releasing may take of a lease.
WRITING_SECONDS: Final = 5.0

FIRST_RETRY_SECONDS: Final = 2.0
LONGEST_RETRY_SECONDS: Final = 300.0
#: After so many failed claims in a row an account that fails by itself is isolated. It is tried
#: again within a minute, as the whole host may have begun to fail; then after minutes, in the end
#: after a day. Then a fifth of all accounts takes under 2 % of the requests, and the wait is hardly
#: longer than the trouble has lasted.
ISOLATED_AFTER: Final = 3
DOUBT_SECONDS: Final = 60.0
FIRST_ISOLATION_SECONDS: Final = 300.0
LONGEST_ISOLATION_SECONDS: Final = 86_400.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = WINDOW_SECONDS
LONGEST_WISH_SECONDS: Final = 3600.0
LONGEST_GROWING_SECONDS: Final = 120.0
#: After a day's quota was spent. It grows up to the next midnight in UTC: then the quota is new.
FIRST_QUOTA_PAUSE_SECONDS: Final = 1800.0
DAY_SECONDS: Final = 86_400.0
#: Spread over so long after midnight, so that not all come in the same second.
QUOTA_SPREAD_SECONDS: Final = 300.0
#: After the app credentials were refused, no token is renewed for so long.
CLIENT_REFUSED_SECONDS: Final = 300.0
#: Refused credentials are tried again in time, so what was refused longer ago than this was
#: accepted since, or nobody asked.
REFUSED_SECONDS: Final = 2 * CLIENT_REFUSED_SECONDS

#: In so long a replica notices that its connection to the database is dead, and connects anew.
NOTICING_SECONDS: Final = 12.0
#: How often a replica says that it runs.
BEAT_SECONDS: Final = 10.0
#: A replica that has said nothing for so long has died, or hangs.
SILENT_SECONDS: Final = 3 * BEAT_SECONDS

#: After a 429 the rate comes down to this share of itself, and no further than the least share;
#: it recovers by so much of the limit a minute.
RATE_DECREASE: Final = 0.7
LEAST_RATE_SHARE: Final = 0.1
RATE_RECOVERY_PER_MINUTE: Final = 0.1

#: A rate of the app that was found grows after the last 429 that showed it, by the third power of
#: time: hardly at all at first, so that few requests are refused, then ever faster, so that we soon
#: find a raised limit. It has doubled after so long, and is kept to for so long.
APP_RATE_DOUBLED_SECONDS: Final = 240.0
APP_RATE_KEPT_SECONDS: Final = 600.0


def step_seconds(limit: int, reach_seconds: float = 0.0) -> float:
    """The distance of two slots that keeps any 60 s window at `limit` requests; 0 is no limit.

    `reach_seconds`: requests may be sent that much after their slot.
    """
    # `limit` + 1 requests span `limit` steps: these must outlast the window and all that a request
    # may be late.
    return (WINDOW_SECONDS + HEADROOM_SECONDS + reach_seconds) / limit if limit else 0.0


@dataclass(frozen=True)
class Pace:
    """How fast requests may be sent, and how far ahead: the same for the daemon and the simulator.

    Limits are requests in any 60 s; 0 means no limit. Times are in whole microseconds.
    """

    #: For one access token, that is, for one account.
    limit_per_token: int
    #: For all tokens together.
    limit_per_app: int
    #: How long a claim is leased.
    lease_seconds: float

    @cached_property
    def step_seconds(self) -> float:
        """The distance of two slots of one account; 0: no limit."""
        return max(round(step_seconds(self.limit_per_token), 6), self.app_step_seconds)

    @cached_property
    def app_step_seconds(self) -> float:
        """The distance of two slots of the app; 0: no limit."""
        return round(step_seconds(self.limit_per_app, reach_seconds=APP_REACH_SECONDS), 6)

    @cached_property
    def horizon_seconds(self) -> float:
        """How far ahead a claim reserves slots of one account."""
        return self.app_horizon_seconds if self.limit_per_app else self._longest_horizon_seconds

    @cached_property
    def app_horizon_seconds(self) -> float:
        """The same while the app is limited, by a setting or by a rate that was found."""
        return min(APP_HORIZON_SECONDS, self._longest_horizon_seconds)

    @property
    def _longest_horizon_seconds(self) -> float:
        return min(HORIZON_SECONDS, round(self.lease_seconds / 4, 6))


def retry_seconds(failures: int, chance: float) -> float:
    """The back-off after `failures` failed claims in a row, full jitter by `chance` in [0, 1)."""
    return chance * min(FIRST_RETRY_SECONDS * _doubled(failures), LONGEST_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class BackOff:
    """What a failed claim means for its account."""

    #: Failed claims in a row, this one counted.
    failures: int
    isolated: bool
    #: For how long the account is skipped.
    seconds: float


def back_off(
    failures: int,
    chance: float,
    *,
    isolated: bool = False,
    by_itself: bool = False,
    nobody_answered: bool = False,
) -> BackOff:
    """The back-off after one more failure; `failures` and `isolated` are as before it.

    An account that fails `by_itself`, while others are answered, is isolated after a few failures.
    While `nobody_answered` a failure is not the account's own: the wait does not grow.
    """
    failures = max(1, failures) if nobody_answered else failures + 1
    if not isolated and by_itself and failures >= ISOLATED_AFTER:
        isolated, failures = True, ISOLATED_AFTER
    wait = isolation_seconds if isolated else retry_seconds
    return BackOff(failures, isolated, wait(failures, chance))


def isolation_seconds(failures: int, chance: float) -> float:
    """How long an isolated account is skipped: half to all of a growing time."""
    again = failures - ISOLATED_AFTER
    longest = FIRST_ISOLATION_SECONDS * _doubled(again - 1) if again > 0 else DOUBT_SECONDS
    return min(longest, LONGEST_ISOLATION_SECONDS) * (1 + chance) / 2


def pause_seconds(failures: int, chance: float, retry_after_seconds: float | None) -> float:
    """The pause after a 429: half to all of a growing time, at least what the answer wishes."""
    own = min(FIRST_PAUSE_SECONDS * _doubled(failures), LONGEST_PAUSE_SECONDS)
    return max(own * (1 + chance) / 2, wished_seconds(retry_after_seconds))


def wished_seconds(retry_after_seconds: float | None) -> float:
    """An answer's wish, bounded: a wrong header must not silence an account for days."""
    return min(retry_after_seconds or 0.0, LONGEST_WISH_SECONDS)


def quota_pause_seconds(
    failures: int, chance: float, now: datetime, retry_after_seconds: float | None
) -> float:
    """The pause after a day's quota was spent.

    As the answer wishes, for a day at most. Else half an hour, doubled with each of the `failures`
    before, until shortly after midnight at the latest.
    """
    # A wish below a minute is not about a day.
    wish = retry_after_seconds or 0.0
    if wish >= WINDOW_SECONDS:
        return min(wish, DAY_SECONDS)
    own = FIRST_QUOTA_PAUSE_SECONDS * _doubled(failures)
    midnight = DAY_SECONDS - now.timestamp() % DAY_SECONDS
    return min(own, midnight) + chance * QUOTA_SPREAD_SECONDS


def lost_seconds(rate_share: float) -> float:
    """How long a pause would cost as many slots as a lowered rate until it has recovered."""
    return (1 - rate_share) ** 2 / (2 * RATE_RECOVERY_PER_MINUTE) * WINDOW_SECONDS


def growing_seconds(failures: int, chance: float) -> float:
    """A wait for what no slot paces: half to all of a growing time, so never short.

    After so many token requests in a row that failed, or answers that could not be stored.
    """
    longest = min(FIRST_PAUSE_SECONDS * _doubled(failures), LONGEST_GROWING_SECONDS)
    return longest * (1 + chance) / 2


def lease_seconds(longest: float, request_timeout_seconds: float) -> float:
    """How long a claim is leased: as long as its work takes, `longest` at most."""
    # A lease is extended while work lasts, so it can be short. Then the accounts of a replica that
    # crashed wait less for another one.
    return min(longest, HORIZON_SECONDS + request_timeout_seconds + WRITING_SECONDS)


def _doubled(times: int) -> float:
    """Two to the power of `times`, which is bounded: every longest wait is reached before."""
    return float(1 << min(times, 16))


class Lateness:
    """How much later than their slots claims arrive. Times are monotonic.

    With a slow trigger, or a database far away, slots reserved from now on would always have passed
    before we hear of them.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = -inf

    def note(self, seconds: float, now: float) -> None:
        """A claim arrived so long after the time at which its slots would have begun."""
        if seconds >= self.ahead_seconds(now):
            self._seconds, self._at = seconds, now

    def ahead_seconds(self, now: float) -> float:
        """How much later than now the next slots must begin; 0 where claims come soon enough."""
        lasts = now - self._at <= LATE_KEPT_SECONDS
        return self._seconds if lasts and self._seconds > LATE_CLAIM_SECONDS else 0.0


@dataclass(frozen=True, slots=True)
class DatabaseTime:
    """The database's clock, continued by a monotonic one: our wall clock may be wrong."""

    #: The database's time at the moment `monotonic`.
    now: datetime
    monotonic: float

    def at(self, monotonic: float) -> datetime:
        """The database's time at a moment of the monotonic clock."""
        return self.now + timedelta(seconds=monotonic - self.monotonic)

    def monotonic_of(self, moment: datetime) -> float:
        """The moment of the monotonic clock at a time of the database's."""
        return self.monotonic + (moment - self.now).total_seconds()
