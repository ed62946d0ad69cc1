"""When an access token is renewed."""

from typing import Final

#: An access token is renewed so long before it dies, and up to twice that long, by account: tokens
#: that were imported together do not come due together. Never more than a third of its life.
MARGIN_SECONDS: Final = 600.0
LARGEST_SHARE_OF_LIFE: Final = 1 / 3
#: Even if the API says that a token lives shorter: no slots pace token requests.
SHORTEST_WAIT_SECONDS: Final = 1.0


def renew_in_seconds(lives_seconds: float, account_spread: float) -> float:
    """How long to wait before renewing a token that lives so long."""
    margin = min(MARGIN_SECONDS * (1 + account_spread), lives_seconds * LARGEST_SHARE_OF_LIFE)
    return max(SHORTEST_WAIT_SECONDS, lives_seconds - margin)
