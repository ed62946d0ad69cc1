"""How fast: slots under the rate limit, and how long to stay away after a failure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WINDOW_SECONDS: Final = 60.0
#: How much a request may arrive off its slot, first to last, without breaking the limit.
HEADROOM_SECONDS: Final = 1.2
#: A slot missed by more than this is given up; the rest of the headroom is the network's.
LATEST_SECONDS: Final = 0.5

FIRST_RETRY_SECONDS: Final = 2.0
LONGEST_RETRY_SECONDS: Final = 300.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = WINDOW_SECONDS


def step_seconds(limit: int, reach_seconds: float = 0.0) -> float:
    """The distance of two slots that keeps any 60 s window at `limit` requests; 0 is no limit.

    `limit` + 1 requests span `limit` steps, so these must outlast the window and the headroom, and
    `reach_seconds` where requests may be sent that much after their slot.
    """
    return (WINDOW_SECONDS + HEADROOM_SECONDS + reach_seconds) / limit if limit else 0.0


def retry_seconds(failures: int, chance: float) -> float:
    """The back-off after `failures` failed claims in a row, full jitter by `chance` in [0, 1)."""
    return chance * min(FIRST_RETRY_SECONDS * _doubled(failures), LONGEST_RETRY_SECONDS)


def pause_seconds(failures: int, chance: float, retry_after_seconds: float | None) -> float:
    """The pause after a 429: half to all of a growing time, at least what the reply wishes."""
    own = min(FIRST_PAUSE_SECONDS * _doubled(failures), LONGEST_PAUSE_SECONDS)
    return max(own * (1 + chance) / 2, retry_after_seconds or 0.0)


def _doubled(times: int) -> float:
    """Two to the power of `times`, up to where every longest wait is long passed."""
    return float(1 << min(times, 16))


@dataclass(frozen=True, slots=True)
class DatabaseTime:
    """The database's clock carried on by a monotonic one, so a wrong wall clock does no harm."""

    now: datetime
    monotonic: float

    def at(self, monotonic: float) -> datetime:
        """The database's time at a moment of the monotonic clock."""
        return self.now + timedelta(seconds=monotonic - self.monotonic)

    def monotonic_of(self, moment: datetime) -> float:
        """The moment of the monotonic clock at a time of the database's."""
        return self.monotonic + (moment - self.now).total_seconds()
