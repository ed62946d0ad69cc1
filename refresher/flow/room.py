"""How many chunks may be claimed now."""

from refresher.flow.capacity import Capacity
from refresher.flow.outage import Outage
from refresher.flow.results import Results


class Room:
    """Room for claims: none while answers cannot be stored."""

    def __init__(self, capacity: Capacity, results: Results, outage: Outage) -> None:
        self._capacity = capacity
        self._results = results
        self._outage = outage
        self._write_first = False

    def chunks(self) -> int:
        """How many chunks to claim now.

        Answers that waited for the database are all written before the next claim: it would move
        the epoch, and they could not be stored any more.
        """
        if self._results.stalls():
            return 0
        if not self._capacity.under_way.without_lock_waits:
            self._write_first = False
        elif self._outage.lasts:
            self._write_first = True
        return 0 if self._write_first else self._capacity.chunk_budget()
