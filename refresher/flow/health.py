"""What answers tell: whether TikTok is there, and which accounts fail by themselves."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from refresher.domain.breaker import Breaker
from refresher.domain.clocks import Chance, Clock
from refresher.domain.troubles import Troubles
from refresher.events import UPSTREAM_LOST, UPSTREAM_RECOVERED
from refresher.logs import emit


@dataclass(slots=True, eq=False)
class SentRequest:
    """A request in flight."""

    open_id: str
    #: The IDs it asks for; empty where it asks for a token.
    videos: Sequence[str]
    #: On the monotonic clock.
    sent_at: float
    #: Its account fails by itself: this request tells nothing about TikTok.
    isolated: bool
    #: It takes too long, and counts as failed.
    late: bool = False
    #: Its permit no longer counts: others need not wait for it.
    uncounted: bool = False


class Health:
    """Is TikTok there? Is an account ill? By what this replica has seen."""

    def __init__(self, concurrency: int, *, chance: Chance, clock: Clock) -> None:
        self._clock = clock
        self._breaker = Breaker(concurrency, chance)
        #: Of all requests, but ended by good answers to queries only.
        self._troubles = Troubles()
        self._token_troubles = Troubles()
        #: The accounts that failed since the last answer, in order.
        self._tried: dict[str, None] = {}
        #: How often TikTok has been down so far.
        self.times_down = 0

    @property
    def is_down(self) -> bool:
        """Nobody is answered just now, and only trials are sent."""
        return self._breaker.is_open

    def window(self) -> int:
        """How many requests may be in flight; while TikTok is down 0, or 1 for a trial."""
        return self._breaker.window(self._clock())

    def pause_left(self) -> float:
        """Seconds until TikTok may be tried; 0 while it answers."""
        return self._breaker.pause_left(self._clock())

    def away_seconds(self) -> float:
        """How long TikTok has been down; 0 while it answers."""
        return self._breaker.open_seconds(self._clock()) if self.is_down else 0.0

    def tried(self) -> Collection[str]:
        """The accounts that failed since anybody was answered: others are to be tried first."""
        return tuple(self._tried)

    def sent(self, request: SentRequest) -> None:
        """It is on its way."""
        self._breaker.sent(request.sent_at)

    def answered(self, request: SentRequest, *, good: bool) -> None:
        """TikTok itself has answered; `good`: with what it was asked for."""
        now = self._clock()
        if self._breaker.succeeded(now):
            self._troubles.forget()
            self._token_troubles.forget()
            emit(UPSTREAM_RECOVERED, away_seconds=round(self._breaker.open_seconds(now), 1))
        if good:
            # A new token pair does not show that queries are answered.
            troubles = self._troubles if request.videos else self._token_troubles
            troubles.answered(request.open_id, request.videos, now)
        if self._tried:
            self._tried.clear()

    def failed(self, request: SentRequest, code: str, log_id: str) -> bool:
        """TikTok itself did not answer. Says whether it is taken to be down from now on."""
        was_down = self.is_down
        news = not (request.isolated or self._troubles.is_known(request.open_id))
        self._tried[request.open_id] = None
        if self._breaker.failed(request.open_id, request.sent_at, self._clock(), news=news):
            emit(UPSTREAM_LOST, code=code, log_id=log_id)
        begins = self.is_down and not was_down
        self.times_down += begins
        return begins

    def complained(self, request: SentRequest) -> None:
        """The request brought nothing, and the reason may be the account's own."""
        now = self._clock()
        self._troubles.failed(request.open_id, request.videos, now)
        if not request.videos:
            self._token_troubles.failed(request.open_id, (), now)

    def is_set_aside(self, request: SentRequest) -> bool:
        """Whether a late request no longer counts: others are answered, or only trials are sent."""
        return self.is_down or request.sent_at < self._breaker.last_success

    def fails_by_itself(self, open_id: str) -> bool:
        """Whether this account fails while others are answered."""
        return self._troubles.is_own(open_id, self._clock())

    def token_fails_by_itself(self, open_id: str) -> bool:
        """Whether this account's token requests fail while those of others do not.

        Tokens are renewed rarely, so it is enough that nobody else's requests fail.
        """
        tokens = self._token_troubles
        others_are_well = tokens.is_known(open_id) or tokens.is_alone(open_id)
        return not self.is_down and others_are_well and self.fails_by_itself(open_id)

    def suspects(self, open_id: str, videos: Sequence[str]) -> bool:
        """Whether requests for one of these videos failed several times in a row.

        It counts only while others are answered, of the same account or of another.
        """
        return self._troubles.are_suspect(open_id, videos, self._clock())

    def is_mixed(self, open_id: str) -> bool:
        """Whether some videos of the account fail while others of it are answered."""
        return self._troubles.is_mixed(open_id)

    @property
    def is_host_well(self) -> bool:
        """Hardly any account has begun to fail lately."""
        return self._troubles.is_host_well(self._clock())
