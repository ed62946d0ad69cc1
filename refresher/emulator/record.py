"""What was asked of the emulator, one entry a request."""

import hashlib
from dataclasses import dataclass
from typing import Final

RECORD_PATH: Final = "/emulator/record"

# Bounded, so that a run of days does not fill the memory: five hours of one token's limit.
RECORD_LENGTH: Final = 200_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One query request: when it came, what it asked for, and what it got."""

    #: Monotonic.
    at: float
    #: None for a token that nobody has.
    open_id: str | None
    video_ids: tuple[str, ...]
    #: 0 where no answer was ever given.
    status: int
    #: What the answer says, or `no_answer`, `malformed`, `scripted` or `down`.
    error_code: str
    #: What in the request broke the endpoint's contract.
    breach: str | None


@dataclass(slots=True)
class TokenArrival:
    """One token request."""

    #: Monotonic.
    at: float
    #: None where the refresh token was never given to anybody.
    open_id: str | None
    #: 0 where no answer was ever given.
    status: int
    #: As for `Arrival`, or `cut`.
    error_code: str
    #: What `token_digest` makes of the token sent.
    refresh_token_digest: str
    #: Whether the token had been renewed before.
    used_before: bool
    #: Becomes True as the answer goes out whole. It stays False where the answer was withheld, cut
    #: or malformed, or the client had gone. Whether a client has read it is not known.
    answered: bool = False


def token_digest(token: str) -> str:
    """Tells tokens apart in the record without showing them; empty for no token."""
    # A form may hold any character, a lone surrogate too.
    encoded = token.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:16] if token else ""
