"""One account while it is worked."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Final

from refresher.domain.answers import Failure, understood
from refresher.domain.clocks import Clock
from refresher.domain.errors import UpstreamFailed
from refresher.domain.model import CHUNK_SIZE, Claim, Sample, Video
from refresher.domain.reconcile import Reconciled
from refresher.flow.capacity import Load

#: Time kept free at the end of a lease for the answer to come and be written.
LEASE_MARGIN_SECONDS: Final = 0.5


@dataclass(slots=True)
class Tally:
    """What this replica has done since it started."""

    requests: int = 0
    ids: int = 0
    refreshed: int = 0
    unchanged: int = 0
    missing: int = 0
    rejected: int = 0
    throttled: int = 0

    def count(self, reconciled: Reconciled) -> None:
        self.refreshed += reconciled.refreshed
        self.unchanged += reconciled.unchanged
        self.missing += reconciled.missing
        self.rejected += len(reconciled.rejections)

    def since(self, earlier: "Tally") -> "Tally":
        return Tally(*(getattr(self, name) - getattr(earlier, name) for name in self.__slots__))

    def plus(self, more: "Tally") -> "Tally":
        return Tally(*(getattr(self, name) + getattr(more, name) for name in self.__slots__))


@dataclass(slots=True)
class Work:
    """An account while it is worked."""

    claim: Claim
    load: Load
    clock: Clock
    #: Nothing more is sent for this account.
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[Failure] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    #: A chunk was answered.
    answered: bool = False
    #: An answer could not be stored.
    unsaved: bool = False
    #: A chunk that fails again and again was searched for the video that spoils it.
    searched: bool = False
    #: The search has found that no part is answered: the account is the reason.
    at_fault: bool = False
    #: One of each set of covers that was stored.
    samples: list[Sample] = field(default_factory=list)
    #: Chunks that were claimed, but not sent after all.
    postponed: int = 0
    #: Since when it only waits for a lock, or for its row.
    waits_since: float = inf
    #: The log has said already that its lease runs out.
    abandon_quietly: bool = False
    started: float = field(init=False)
    #: Nothing is sent from then on.
    send_until: float = field(init=False)
    #: The account's next slot after all that were reserved.
    next_slot: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        first = self.claim.time.monotonic_of(self.claim.first_slot)
        self.next_slot = first + self.claim.chunks * self.claim.step_seconds
        self.leased_until(self.claim.time.monotonic_of(self.claim.lease_expires_at))

    def leased_until(self, moment: float) -> None:
        """The lease runs out at this moment of the monotonic clock."""
        self.send_until = moment - LEASE_MARGIN_SECONDS

    def fail(self, code: str) -> None:
        """Something of our own went wrong: the account is tried again after a back-off."""
        self.failures.append(understood(UpstreamFailed(code), self.claim.token))

    def waits(self) -> None:
        """It only waits from now on, if it did not before."""
        self.waits_since = min(self.waits_since, self.clock())

    def now(self) -> datetime:
        """The database's time."""
        return self.claim.time.at(self.clock())

    def chunks(self) -> Iterator[tuple[Sequence[Video], float]]:
        """Each chunk with its slot on the monotonic clock.

        Of an isolated account only one video is asked for: another might spoil its chunk.
        """
        first = self.claim.time.monotonic_of(self.claim.first_slot)
        videos = self.claim.videos[:1] if self.claim.isolated_since else self.claim.videos
        for number, start in enumerate(range(0, len(videos), CHUNK_SIZE)):
            yield videos[start : start + CHUNK_SIZE], first + number * self.claim.step_seconds


async def wait_for_slot(work: Work, slot: float) -> None:
    if (delay := slot - work.clock()) > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(work.halt.wait(), delay)
