"""What was asked of the emulator, one entry a request."""

import hashlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

# Bounded, so that a run of days does not fill the memory: five hours of one token's limit.
RECORD_LENGTH: Final = 200_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One query request: when it came, what it asked for, and what it got."""

    kind: ClassVar = "query"
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
    """One token request: a renewal, or the exchange of an authorization code."""

    kind: ClassVar = "token"
    #: Monotonic.
    at: float
    #: None where the refresh token or the code was never given to anybody.
    open_id: str | None
    #: 0 where no answer was ever given.
    status: int
    #: As for `Arrival`, or `cut`.
    error_code: str
    #: What `token_digest` makes of the token sent.
    refresh_token_digest: str  # empty for the exchange of a code
    #: Whether the token had been renewed before.
    used_before: bool
    #: Becomes True as the answer goes out whole. It stays False where the answer was withheld, cut
    #: or malformed, or the client had gone. Whether a client has read it is not known.
    answered: bool = False


@dataclass(frozen=True, slots=True)
class RevokeArrival:
    """One request to revoke an access token."""

    kind: ClassVar = "revoke"
    #: Monotonic.
    at: float
    #: None for a token that nobody has.
    open_id: str | None
    #: 0 where no answer was ever given.
    status: int
    #: As for `TokenArrival`.
    error_code: str


AnyArrival = Arrival | TokenArrival | RevokeArrival
Entry = TypeVar("Entry", bound=AnyArrival)


class Arrivals(deque[Entry]):
    """The last requests of one kind, and how many there were since the last `clear`."""

    def __init__(self) -> None:
        super().__init__(maxlen=RECORD_LENGTH)
        #: By `error_code`. It counts what the bounded list has dropped, too.
        self.totals: Counter[str] = Counter()

    def append(self, entry: Entry) -> None:
        self.totals[entry.error_code] += 1
        super().append(entry)

    def clear(self) -> None:
        self.totals.clear()
        super().clear()


def token_digest(token: str) -> str:
    """Tells tokens apart in the record without showing them; empty for no token."""
    # A form may hold any character, a lone surrogate too.
    encoded = token.encode(errors="surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:16] if token else ""
