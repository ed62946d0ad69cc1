"""What was asked of the emulator, one entry a request."""

import hashlib
from dataclasses import dataclass
from typing import Final

RECORD_PATH: Final = "/emulator/record"

# A run of days must not fill the memory; it is five hours of one token's limit.
RECORD_LENGTH: Final = 200_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One query request: when it came, what it asked for, and what it got.

    `at` is monotonic. `status` is 0 where no answer was ever given. `error_code` is what the
    answer says, or `no_answer`, `malformed`, `scripted` or `down`. `breach` says what in the
    request broke the endpoint's contract.
    """

    at: float
    open_id: str | None
    video_ids: tuple[str, ...]
    status: int
    error_code: str
    breach: str | None


@dataclass(slots=True)
class TokenArrival:
    """One token request; `open_id` is None where the refresh token was never given to anybody.

    `error_code` and `status` as for `Arrival`, and `cut`. `refresh_token_digest` is what
    `token_digest` makes of the token sent. `used_before`: it had been renewed before.

    `answered` is the one field that changes: to True as the answer goes out whole. It stays
    False where it was withheld, cut or malformed, or the client had gone; that a client has read
    it is not known.
    """

    at: float
    open_id: str | None
    status: int
    error_code: str
    refresh_token_digest: str
    used_before: bool
    answered: bool = False


def token_digest(token: str) -> str:
    """Tells tokens apart in the record without showing them; empty for no token."""
    # A form may hold any character, a lone surrogate too.
    encoded = token.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:16] if token else ""
