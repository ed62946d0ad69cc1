"""When an access token is refreshed."""

from typing import Final

#: An access token is refreshed so long before it dies, and up to as much again earlier by account,
#: so that tokens of one import do not come all at once; of a short life a third at most.
MARGIN_SECONDS: Final = 600.0
LARGEST_SHARE_OF_LIFE: Final = 1 / 3
#: Whatever the API says of a token's life: token requests have no slots to pace them.
SHORTEST_WAIT_SECONDS: Final = 1.0


def refresh_in_seconds(lives_seconds: float, share: float) -> float:
    """How long a token that lives so long is left alone; `share` in [0, 1) is the account's."""
    margin = min(MARGIN_SECONDS * (1 + share), lives_seconds * LARGEST_SHARE_OF_LIFE)
    return max(SHORTEST_WAIT_SECONDS, lives_seconds - margin)
