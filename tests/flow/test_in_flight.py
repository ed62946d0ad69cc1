"""Requests on their way, and the permits for those that follow."""

import asyncio

from refresher.flow.capacity import Capacity
from refresher.flow.health import Health
from refresher.flow.in_flight import LATE_SECONDS, InFlight
from tests.flow.fakes import now
from tests.flow.virtual import virtual

CONCURRENCY = 10


class Sending:
    """Requests that hang until they are let go, each with a permit."""

    def __init__(self):
        self.health = Health(CONCURRENCY, chance=lambda: 0.5, clock=now)
        self.capacity = Capacity(CONCURRENCY, self.health)
        self.in_flight = InFlight(self.capacity, self.health, lambda: None, clock=now)
        self.sent = []
        self.tasks = []

    async def _send(self, open_id, answer):
        async with self.capacity.permit(self.capacity.load(1, 0.0)) as permitted:
            assert permitted
            request = self.in_flight.sent(open_id, ["1"], isolated=open_id == "hangs")
            self.sent.append(open_id)
            await answer.wait()
            self.in_flight.ended(request)
            self.in_flight.answered(request, good=True)

    def begin(self, open_id, times):
        answer = asyncio.Event()
        self.tasks += [asyncio.create_task(self._send(open_id, answer)) for _ in range(times)]
        return answer

    async def settle(self):
        await asyncio.sleep(0.01)


@virtual
async def test_late_requests_take_no_permits_from_others():
    """Five hang. Once others are answered, those five no longer count."""
    sending = Sending()
    hang = sending.begin("hangs", 5)
    await sending.settle()
    await asyncio.sleep(LATE_SECONDS + 0.1)
    for _ in range(CONCURRENCY):  # the window opens with each answer
        sending.begin("well", 1).set()
        await sending.settle()
    assert sending.capacity.uncounted == 5
    answer = sending.begin("well", 4)
    await sending.settle()
    assert sending.sent.count("well") == CONCURRENCY + 4
    hang.set()
    answer.set()
    await asyncio.gather(*sending.tasks)
    assert (sending.capacity.uncounted, sending.capacity.sent) == (0, 0)
    rest = sending.begin("well", 2 * CONCURRENCY)
    await sending.settle()
    assert sending.sent.count("well") == 2 * CONCURRENCY + 4
    rest.set()
    await asyncio.gather(*sending.tasks)
