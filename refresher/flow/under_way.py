"""Chunks between their slot and their result stored."""

from collections.abc import Iterator
from contextlib import contextmanager


class UnderWay:
    """Counts the chunks between their slot and their result stored: each is in a `with` of it."""

    __slots__ = ("_counted_waits", "_most_waits", "_waits", "chunks")

    def __init__(self, most_waits: int) -> None:
        """At most `most_waits` chunks that wait for a lock are left uncounted: they take memory."""
        self.chunks = 0
        self._waits = self._counted_waits = 0
        self._most_waits = most_waits

    @contextmanager
    def lock_wait(self) -> Iterator[None]:
        """In it a chunk is not counted: it waits for a lock, and must not hold up others."""
        if self._waits >= self._most_waits:
            self._counted_waits += 1
            try:
                yield
            finally:
                self._counted_waits -= 1
            return
        self._waits += 1
        self.chunks -= 1
        try:
            yield
        finally:
            self._waits -= 1
            self.chunks += 1

    @property
    def without_lock_waits(self) -> int:
        """Chunks that wait for no lock."""
        return self.chunks - self._counted_waits

    def __enter__(self) -> None:
        self.chunks += 1

    def __exit__(self, *_: object) -> None:
        self.chunks -= 1
