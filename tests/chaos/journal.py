"""What was done to the world, and when. The invariants excuse what follows from it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic

#: What interrupts a process in the middle of a request.
PROCESS_FAULTS = {"killed", "stopped"}


@dataclass(slots=True)
class Entry:
    """Something that was done."""

    what: str
    subject: str  # the name of a replica, an account, a video or the database
    began: float  # on the monotonic clock
    ended: float = inf


@dataclass(slots=True)
class Journal:
    """What was done, in order."""

    entries: list[Entry] = field(default_factory=list)

    def note(self, what: str, subject: str, *, lasting: bool = False) -> Entry:
        """Add what happens now. Set `ended` of a lasting entry when it ends."""
        now = monotonic()
        entry = Entry(what, subject, now, inf if lasting else now)
        self.entries.append(entry)
        return entry

    @contextmanager
    def during(self, what: str, subject: str) -> Iterator[None]:
        entry = self.note(what, subject, lasting=True)
        try:
            yield
        finally:
            entry.ended = monotonic()

    def happened(
        self, whats: Collection[str], subject: str, since: float, until: float = inf
    ) -> bool:
        """Whether any of these overlapped this span of time."""
        return any(
            entry.what in whats
            and entry.subject == subject
            and entry.began <= until
            and entry.ended >= since
            for entry in self.entries
        )

    def between(self, since: float, until: float) -> str:
        """All that overlapped this span of time, as text."""
        overlapping = [e for e in self.entries if e.began <= until and e.ended >= since]
        return ", ".join(dict.fromkeys(f"{e.subject} {e.what}" for e in overlapping)) or "nothing"

    def of(self, what: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.what == what)

    def last(self, whats: Collection[str], subject: str) -> float:
        """When one of these last began; -inf for never."""
        return max(
            (e.began for e in self.entries if e.what in whats and e.subject == subject),
            default=-inf,
        )
