"""What a replica counts of its own work, for /metrics. Pure: plain numbers, no clock."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from refresher.domain.answers import Failure, Reaction
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
    NotSent,
    QueryRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.probing import Outcome

VIDEO_QUERY: Final = "video_query"
TOKEN: Final = "token"  # noqa: S105 - an endpoint
OK: Final = "ok"
#: TikTok said why, with a code that our table has not.
UNKNOWN_CODE: Final = "unknown_code"
FAILED: Final = "failed"

#: What became of a request, by the error that it raised.
OUTCOMES: Final[Mapping[type[UpstreamError], str]] = {
    Throttled: "throttled",
    DailyQuotaSpent: "quota_spent",
    AccessTokenRefused: "access_token_refused",
    ScopeRefused: "scope_refused",
    QueryRefused: "query_refused",
    GrantRefused: "grant_refused",
    ClientRefused: "client_refused",
    TokenRequestFailed: "token_request_failed",
    NotSent: "not_sent",
    UpstreamFailed: FAILED,
}
#: Of these nobody knows that TikTok has seen the request: 5xx, time-outs, cut connections.
UNANSWERED: Final = ("not_sent", FAILED)
ENDPOINTS: Final = (VIDEO_QUERY, TOKEN)
SCOPES: Final = ("account_minute", "account_day", "app")
RENEWALS: Final = ("renewed", "failed", "parked", "suspended", "lost")

#: Upper bounds, in seconds. A request has ten seconds, if nobody has set another time-out.
REQUEST_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: A claim reserves slots a few seconds ahead.
WAIT_BOUNDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """How many values fell under each bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        #: By the lowest bound that is not exceeded; the last one: above all bounds.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _outcome(failure: Failure) -> str:
    outcome = OUTCOMES.get(type(failure.error), FAILED)
    return UNKNOWN_CODE if outcome == FAILED and failure.meaning.alive else outcome


def _none_of(names: tuple[str, ...]) -> Counter[str]:
    """All names are there from the start: an increase from nothing at all is not seen."""
    return Counter(dict.fromkeys(names, 0))


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts since the start of this process."""

    #: By endpoint, then by outcome.
    requests: Mapping[str, Counter[str]] = field(
        default_factory=lambda: {
            endpoint: _none_of((OK, *OUTCOMES.values(), UNKNOWN_CODE)) for endpoint in ENDPOINTS
        }
    )
    request_seconds: Mapping[str, Histogram] = field(
        default_factory=lambda: {endpoint: Histogram(REQUEST_BOUNDS) for endpoint in ENDPOINTS}
    )
    #: From the claim of a chunk to its request.
    slot_wait_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    #: By scope.
    throttles: Counter[str] = field(default_factory=lambda: _none_of(SCOPES))
    #: Token renewals by outcome.
    renewals: Counter[str] = field(default_factory=lambda: _none_of(RENEWALS))
    #: Covers that were fetched to see whether they live, by outcome.
    probes: Counter[str] = field(default_factory=lambda: _none_of(tuple(Outcome)))
    #: When each loop last came to the end of a turn, in monotonic seconds.
    turned_at: dict[str, float] = field(default_factory=dict)

    def ended(self, endpoint: str, seconds: float, failure: Failure | None) -> None:
        """A request has ended after so long; `failure`: without what it was to bring."""
        self.requests[endpoint][_outcome(failure) if failure else OK] += 1
        self.request_seconds[endpoint].observe(seconds)

    def answers(self) -> int:
        """How many requests TikTok itself has answered, whatever it said."""
        return sum(
            times
            for outcomes in self.requests.values()
            for outcome, times in outcomes.items()
            if outcome not in UNANSWERED
        )

    def throttled(self, failure: Failure, *, by_app: bool) -> None:
        """A limit was met; `by_app`: that of the whole app."""
        is_day = failure.reaction is Reaction.WAIT
        self.throttles["app" if by_app else "account_day" if is_day else "account_minute"] += 1

    def turned(self, loop: str, now: float) -> None:
        """A loop came to the end of a turn."""
        self.turned_at[loop] = now


@dataclass(frozen=True, slots=True)
class Stats:
    """How a replica is just now, and what it has done so far."""

    in_flight: int
    #: How many requests may be in flight just now.
    in_flight_limit: int
    #: Chunks that were answered and are not stored yet.
    unsaved: int
    upstream_up: bool
    database_up: bool
    #: Videos asked for, and what became of them, by outcome.
    asked: int
    results: Mapping[str, int]
