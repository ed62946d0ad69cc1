"""The numbers that the statements share with Python, each under its one name."""

from collections.abc import Mapping
from typing import Final

from refresher.domain.app_limit import REMEMBERED_SECONDS
from refresher.domain.claiming import ALONE_WAITS_SECONDS, Turn
from refresher.domain.model import CHUNK_SIZE
from refresher.domain.pacing import (
    APP_RATE_DOUBLED_SECONDS,
    APP_RATE_KEPT_SECONDS,
    APP_REACH_SECONDS,
    CLIENT_REFUSED_SECONDS,
    HEADROOM_SECONDS,
    LEAST_RATE_SHARE,
    PAST_SECONDS,
    RATE_DECREASE,
    RATE_RECOVERY_PER_MINUTE,
    REFUSED_SECONDS,
    WINDOW_SECONDS,
    step_seconds,
)
from refresher.domain.webhooks import TRIED_FOR_HOURS

#: Accounts of one statement that ends waiting.
FREED_AT_ONCE: Final = 500
#: Webhooks of one statement that gives them up.
GIVEN_UP_AT_ONCE: Final = 500
#: The distance of two slots of a throttled account for which no limit is configured.
ASSUMED_STEP_SECONDS: Final = step_seconds(600)

CONSTANTS: Final[Mapping[str, float]] = {
    "alone_waits_seconds": ALONE_WAITS_SECONDS,
    "app_rate_doubled_seconds": APP_RATE_DOUBLED_SECONDS,
    "app_rate_kept_seconds": APP_RATE_KEPT_SECONDS,
    "app_window_seconds": WINDOW_SECONDS + HEADROOM_SECONDS + APP_REACH_SECONDS,
    "assumed_step_seconds": ASSUMED_STEP_SECONDS,
    # How many videos we assume of an account that was never counted.
    "assumed_videos": 100,
    "chunk_size": CHUNK_SIZE,
    # Days before the end of a consent: the first warning, and the last one.
    "consent_first_days": 14,
    "consent_last_days": 3,
    "consents_at_once": 500,
    # An account whose token request was refused waits for so long at most.
    "credentials_waited_for_seconds": 2 * CLIENT_REFUSED_SECONDS + 30,
    "freed_at_once": FREED_AT_ONCE,
    "least_rate_share": LEAST_RATE_SHARE,
    # A few dozen have been seen.
    "most_cover_hosts": 500,
    # Videos that a claim may read in all. It takes no further account that would make it more: the
    # slowest claims were those that came to a large account after others.
    "most_rows_read": 1_500,
    "past_seconds": PAST_SECONDS,
    # A trial chooses among twice as many accounts.
    "trial_candidates": 500,
    "rate_decrease": RATE_DECREASE,
    "rate_recovery_per_minute": RATE_RECOVERY_PER_MINUTE,
    "refused_seconds": REFUSED_SECONDS,
    "remembered_seconds": REMEMBERED_SECONDS,
    # At so many places a forecast reads the videos of a large account.
    "sampled_places": 10,
    # Accounts whose tokens are read at once.
    "sealed_at_once": 500,
    # Where a summary may not read all, it reads a twentieth of its videos from one account at most.
    "share_of_one": 20,
    # A replica that keeps to the app's rate tells its answers more often than this.
    "told_within_seconds": 10.0,
    # Milliseconds that an application's trigger may wait for a lock in a statement of ours.
    "trigger_waits_ms": 200,
    # The order in which a claim takes an account's videos.
    "turn_starved": int(Turn.STARVED),
    "turn_due": int(Turn.DUE),
    "turn_alone": int(Turn.ALONE),
    "turn_top_up": int(Turn.TOP_UP),
    "webhooks_given_up_at_once": GIVEN_UP_AT_ONCE,
    # As long as they are tried: all daemons may be away for so long, and no change is lost.
    "webhooks_on_for_hours": TRIED_FOR_HOURS,
    "webhooks_tried_for_hours": TRIED_FOR_HOURS,
}
