"""What is simulated: settings of the daemon, and how long covers live."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from refresher.domain.claiming import most_chunks
from refresher.domain.due import DuePolicy, seconds_ahead
from refresher.domain.pacing import PAST_SECONDS, Pace

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 24 * HOUR_SECONDS
#: Deaths are counted by the minute, so a cover must live longer than one.
SHORTEST_TTL: Final = 60
#: So close to each other, it is chance which of two times comes first.
ROUNDING_SECONDS: Final = 1e-6
#: When a made-up fleet begins. Any full hour would do.
START: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

OnProgress = Callable[[int], None]

Ttl = int | Literal["hourly"]
"""Seconds a cover lives, or `hourly`: from the full hour in which it is asked for, plus a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One simulation."""

    #: When the daemon asks for a cover again.
    policy: DuePolicy
    ttl: Ttl
    #: How long the simulation lasts.
    seconds: float
    #: The daemon's own: limits, slots and how far a claim reaches.
    pace: Pace
    #: How often the daemon looks for due accounts when nothing wakes it sooner.
    poll_seconds: float = 5.0
    #: How many chunks one claim takes at most, of all accounts together.
    chunk_budget: int = 128
    #: From a slot to its answer.
    request_seconds: float = 0.2
    #: From an account's last answer until the account can be claimed again.
    writing_seconds: float = 0.1

    @property
    def chunk_seconds(self) -> float:
        """How long an account with much to ask for takes for a chunk, at the longest."""
        # Its next slot may pass between the last slot of a claim and the next claim. If that slot
        # is reserved all the same, no time is lost. If not, the account begins anew with each
        # claim: under a limit for the app that has slots to spare, or where claims are too short
        # to catch up.
        slots, step = self._claim_chunks, self.pace.step_seconds
        spare = 0 < self.pace.app_step_seconds < step
        if (
            self._late_seconds <= -ROUNDING_SECONDS
            and slots * step >= self._between_seconds
            and not spare
        ):
            return step
        return ((slots - 1) * step + max(step, self._between_seconds)) / slots

    @property
    def least_chunk_seconds(self) -> float:
        """How long it takes for a chunk at the shortest, whatever other accounts do."""
        if self._late_seconds > ROUNDING_SECONDS:
            return self.chunk_seconds
        return max(self.pace.step_seconds, self._between_seconds / self._claim_chunks)

    @property
    def _claim_chunks(self) -> int:
        return min(most_chunks(self.pace, self.chunk_budget), self.chunk_budget)

    @property
    def _between_seconds(self) -> float:
        """From the last slot of a claim to the account's next claim."""
        return self.request_seconds + self.writing_seconds

    @property
    def _late_seconds(self) -> float:
        """How late an account's next claim is for the slot after its last one; below 0: in time."""
        return self._between_seconds - self.pace.step_seconds - PAST_SECONDS

    @property
    def longest_seconds(self) -> float:
        """The longest time between two requests for a cover that leaves it alive.

        `hourly` covers die on the hour: asked for just before, they live to that hour plus 23 h.
        """
        return self.ttl if self.ttl != "hourly" else DAY_SECONDS - HOUR_SECONDS

    def expires_at(self, sent_at: float) -> float:
        """When a cover dies that comes by a request sent at `sent_at`."""
        if self.ttl == "hourly":
            return sent_at // HOUR_SECONDS * HOUR_SECONDS + DAY_SECONDS
        return sent_at // 1 + self.ttl

    def due_at(self, account_spread: float, answered_at: float, expires_at: float) -> float:
        """`due_after_refresh` in Unix time."""
        return expires_at - seconds_ahead(self.policy, account_spread, expires_at - answered_at)

    def period_seconds(self, account_spread: float) -> float:
        """The time between two requests for a cover, each as it falls due and before it dies."""
        first = self.due_at(account_spread, START, self.expires_at(START))
        again = self.due_at(account_spread, first, self.expires_at(first))
        return min(again - first, self.longest_seconds)
