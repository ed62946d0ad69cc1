"""The requests on their way."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from refresher.domain.clocks import Clock
from refresher.flow.capacity import Capacity
from refresher.flow.health import Health, SentRequest

#: A request that takes so long, and several times as long as the others, counts as failed, long
#: before its time-out. Others then need not wait for it.
LATE_SECONDS: Final = 2.0
LATE_TIMES: Final = 5


class InFlight:
    """The requests on their way, each in the hands of somebody with a permit.

    `changed` is called where it is time to look again though no request has ended.
    """

    def __init__(
        self, capacity: Capacity, health: Health, changed: Callable[[], None], *, clock: Clock
    ) -> None:
        self._capacity = capacity
        self._health = health
        self._changed = changed
        self._clock = clock
        #: The oldest first.
        self._requests: dict[SentRequest, None] = {}
        self._late = 0
        self._timer: asyncio.TimerHandle | None = None

    def sent(self, open_id: str, videos: Sequence[str], *, isolated: bool) -> SentRequest:
        """A request goes out now. Call `ended` once: after a failure, but before a good answer."""
        request = SentRequest(open_id, videos, self._clock(), isolated)
        self._health.sent(request)
        self._requests[request] = None
        self._capacity.sent += 1
        if self._timer is None:
            self._watch(LATE_SECONDS)
        return request

    def ended(self, request: SentRequest) -> None:
        """It is no longer on its way."""
        del self._requests[request]
        self._capacity.sent -= 1
        self._late -= request.late
        if request.uncounted:
            self._capacity.count_again()

    def answered(self, request: SentRequest, *, good: bool) -> None:
        """TikTok itself has answered; `good`: with what it was asked for."""
        self._capacity.lasted(self._clock() - request.sent_at)
        self._health.answered(request, good=good)
        if self._late > self._capacity.uncounted:
            self._uncount_late()
        self._capacity.hand_out()

    def failed(self, request: SentRequest, code: str, log_id: str) -> None:
        """No answer, or none from TikTok itself."""
        if not request.late:
            self._count_failure(request, code, log_id)

    def complained(self, request: SentRequest) -> None:
        """The request brought nothing, and the reason may be the account's own."""
        if not request.late:
            self._health.complained(request)

    def _count_failure(self, request: SentRequest, code: str, log_id: str) -> None:
        if self._health.failed(request, code, log_id):
            self._capacity.refuse_waiting()

    def _watch(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look_for_late)

    def _look_for_late(self) -> None:
        self._timer = None
        late_at = self._clock() - max(LATE_SECONDS, LATE_TIMES * self._capacity.query_seconds)
        for request in tuple(self._requests):
            if request.sent_at > late_at:
                self._watch(request.sent_at - late_at)
                break
            if not request.late:
                request.late = True
                self._late += 1
                self._count_failure(request, "timed_out", "")
                self._health.complained(request)
        self._uncount_late()
        self._capacity.hand_out()
        if self._late:
            self._changed()

    def _uncount_late(self) -> None:
        for request in self._requests:
            if request.late and not request.uncounted and self._health.is_set_aside(request):
                request.uncounted = True
                self._capacity.uncount()
