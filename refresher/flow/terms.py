"""The terms under which one replica works."""

from dataclasses import dataclass

from refresher.domain.due import DuePolicy


@dataclass(frozen=True, slots=True)
class Terms:
    """What one replica may do, and for how long."""

    #: When a video is due again.
    policy: DuePolicy
    #: Requests in flight.
    concurrency: int
    request_timeout_seconds: float
    #: How often to look for due accounts when nothing wakes the daemon sooner.
    poll_seconds: float
    lease_seconds: float
    #: From a stop until the end of all work.
    grace_seconds: float
