"""The tokens that users gave, whose they are, and the windows of the rate limits."""

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from refresher.emulator.options import WINDOW_SECONDS
from refresher.emulator.record import token_digest


class SlidingWindow:
    """Arrivals of the last 60 s, counted one by one, so that it is exact at the edges."""

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()

    def has_room(self, now: float, limit: int) -> bool:
        """An arrival exactly 60 s ago has left the window. A limit of 0 means no limit."""
        while self._arrivals and self._arrivals[0] <= now - WINDOW_SECONDS:
            self._arrivals.popleft()
        return not limit or len(self._arrivals) < limit

    def add(self, now: float) -> None:
        self._arrivals.append(now)


class Refusal(NamedTuple):
    """What all queries of one user are refused with."""

    code: str
    http_status: int


@dataclass(slots=True)
class Account:
    """A user who authorized the app."""

    open_id: str
    #: What the user agrees to, separated by commas.
    scope: str
    #: IDs of the user's public videos.
    videos: set[str]
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user agreed to on the authorization page. The code for it is only ever a key."""

    open_id: str
    scope: str
    redirect_uri: str
    #: As the client sent it; empty without one.
    code_challenge: str
    #: Unix time.
    expires_at: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token stands for. The token itself is only ever a key, so no repr shows it."""

    account: Account
    #: Unix time.
    expires_at: float
    #: The requests made with the token.
    window: SlidingWindow


class Tokens:
    """The tokens of one kind, by token and by account."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._held: dict[str, set[str]] = {}

    def add(self, token: str, account: Account, expires_at: float) -> None:
        """A token that another account had now belongs to this one."""
        if token in self._grants:
            self.drop(token)
        self._grants[token] = Grant(account, expires_at, SlidingWindow())
        self._held.setdefault(account.open_id, set()).add(token)

    def get(self, token: str) -> Grant | None:
        return self._grants.get(token)

    def holds(self, open_id: str, token: str, now: float) -> bool:
        grant = self.get(token)
        return grant is not None and grant.account.open_id == open_id and grant.expires_at > now

    def count(self, open_id: str, now: float) -> int:
        """How many of the account's tokens are alive."""
        return sum(self._grants[token].expires_at > now for token in self._held.get(open_id, ()))

    def drop(self, token: str) -> None:
        grant = self._grants.pop(token)
        self._held[grant.account.open_id].discard(token)

    def drop_all(self, open_id: str, *, expired_by: float = math.inf) -> None:
        """Forget the account's tokens; with a time, only those expired by then."""
        for token in tuple(self._held.get(open_id, ())):
            if self._grants[token].expires_at <= expired_by:
                self.drop(token)


class Origins:
    """Whose each refresh token is or was, and whether it was used. Known by digests."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._used: set[str] = set()

    def add(self, token: str, open_id: str) -> None:
        """A token that is added again counts as new."""
        digest = token_digest(token)
        self._owners[digest] = open_id
        self._used.discard(digest)

    def use(self, token: str) -> None:
        self._used.add(token_digest(token))

    def owner(self, digest: str) -> str | None:
        return self._owners.get(digest)

    def used(self, digest: str) -> bool:
        return digest in self._used
