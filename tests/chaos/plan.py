"""Which faults happen when: the plan of a whole run, made from a seed."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

REPLICAS = 3
#: How many videos each account has at first: one or several chunks, full and partly full.
ACCOUNTS = (1, 1, 3, 5, 8, 20, 21, 40, 60, 75, 75, 80)

#: By then nearly everything has been asked for once.
FIRST_FAULT_SECONDS = 3.0
#: The share of a run that has faults. The rest is quiet.
SHARE_OF_FAULTS = 2 / 3
MEAN_GAP_SECONDS = 0.8

Target = Literal["replica", "account", "all"]
Span = tuple[float, float]
AT_ONCE: Span = (0.0, 0.0)


class Kind(NamedTuple):
    """A kind of fault."""

    name: str
    resource: str  # two faults of one resource never overlap on one target
    target: Target  # whom it hits
    lasts: Span = AT_ONCE  # in seconds
    amount: Span = (0.0, 1.0)  # how hard


KINDS = (
    # The lease lasts 4 s: some of these are shorter, some longer.
    Kind("process.killed", "process", "replica", lasts=(0.2, 3)),
    Kind("process.stopped", "process", "replica", lasts=(4.5, 7)),
    Kind("process.terminated", "process", "replica", lasts=(0.2, 1)),
    # Its machine is gone. The database does not notice and keeps the connections.
    Kind("process.swallowed", "process", "replica", lasts=(0.2, 3)),
    # Hits the next replica that asks for a token, before the answer arrives.
    Kind("process.killed_asking", "asking", "all", lasts=(4, 6)),
    Kind("process.swallowed_asking", "asking", "all", lasts=(4, 6)),
    Kind("process.stopped_asking", "asking", "all", lasts=(4.5, 7)),
    Kind("database.frozen_asking", "asking", "all", lasts=(4.5, 7)),
    Kind("database.away_asking", "asking", "all", lasts=(4.5, 7)),
    Kind("database.restarted_fast", "server", "all"),
    Kind("database.restarted_immediate", "server", "all"),
    Kind("database.away", "server", "all", lasts=(2, 6)),
    Kind("database.terminated", "backends", "all", amount=(0.3, 1)),
    Kind("database.cut", "cut", "replica"),
    Kind("database.frozen", "proxy", "replica", lasts=(2, 7)),
    Kind("database.refused", "proxy", "replica", lasts=(2, 5)),
    Kind("database.slow", "proxy", "replica", lasts=(2, 5), amount=(0.02, 0.2)),
    Kind("database.locked", "account", "account", lasts=(1, 6)),
    # A trigger of the application copies covers into its own table.
    Kind("database.trigger_waits", "carried", "account", lasts=(2, 9)),
    Kind("upstream.throttled", "throttled", "all", lasts=(2, 4), amount=(0.3, 0.8)),
    Kind("upstream.failed", "failed", "all", lasts=(2, 5), amount=(0.3, 1)),
    Kind("upstream.malformed", "malformed", "all", lasts=(2, 5), amount=(0.3, 1)),
    Kind("upstream.slow", "slow", "all", lasts=(2, 5), amount=(0.3, 1)),
    # New covers die sooner than stored ones.
    Kind("upstream.shortened", "shortened", "all", lasts=(4, 8), amount=(10, 15)),
    Kind("upstream.silent", "silent", "all", lasts=(2, 4), amount=(0.3, 0.8)),
    Kind("upstream.down_failed", "down", "all", lasts=(2, 7)),
    Kind("upstream.down_hang", "down", "all", lasts=(2, 7)),
    Kind("upstream.down_cut", "down", "all", lasts=(2, 7)),
    Kind("token.failed", "token", "all", lasts=(3, 6), amount=(0.4, 1)),
    Kind("token.silent", "token", "all", lasts=(2, 4), amount=(0.3, 0.8)),
    Kind("token.cut", "token", "all", lasts=(2, 4), amount=(0.3, 0.8)),
    Kind("token.malformed", "token", "all", lasts=(2, 4), amount=(0.3, 0.8)),
    # One account fails in one of several ways. All others are answered.
    Kind("account.restricted", "restricted", "account", lasts=(4, 12)),
    Kind("account.access_revoked", "account", "account"),
    Kind("account.consent_revoked", "account", "account"),
    Kind("account.scope_revoked", "account", "account", lasts=(3, 6)),
    Kind("account.authorized_anew", "account", "account"),
    Kind("account.old_tokens_saved", "account", "account"),
    Kind("account.added", "added", "all"),
    Kind("account.deleted", "deleted", "account"),
    Kind("video.poisoned", "video", "account", lasts=(4, 12)),
    Kind("video.unpublished", "video", "account", lasts=(4, 12)),
    Kind("video.republished", "video", "account", lasts=(2, 6)),
    Kind("video.inserted", "rows", "account", amount=(0.05, 1)),
    Kind("video.deleted", "rows", "account", amount=(0.05, 0.5)),
    Kind("video.bogus", "rows", "account"),
    Kind("video.emptied", "rows", "account", amount=(0.05, 0.5)),
    # An application reads rows, and saves all their columns a little later.
    Kind("video.saved_stale", "saved", "account", lasts=(3, 9)),
    # The wall clock of one replica is wrong.
    Kind("clock.stepped", "clock", "replica", lasts=(3, 8)),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan."""

    at: float  # when it begins, in seconds from the start
    kind: str
    target: int | None  # the number of a replica or of an account
    lasts: float  # in seconds
    amount: float  # how hard
    choice: float  # picks among the videos, 0 to 1

    def __str__(self) -> str:
        target = "" if self.target is None else f" {self.target}"
        lasts = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:6.1f} s  {self.kind}{target}{lasts} ({self.amount:.2f})"


@dataclass(frozen=True, slots=True)
class Plan:
    """All faults of a run. After `faults_end` it is quiet."""

    seed: int
    seconds: float
    faults: Sequence[Fault]

    @property
    def faults_end(self) -> float:
        return self.seconds * SHARE_OF_FAULTS

    def __str__(self) -> str:
        head = f"seed {self.seed}, {self.seconds:g} s, {len(self.faults)} faults"
        return "\n".join((head, *map(str, self.faults), f"{self.faults_end:6.1f} s  quiet"))

    def count(self) -> dict[str, int]:
        """The number of faults of each kind."""
        return dict(sorted(Counter(fault.kind for fault in self.faults).items()))


def make_plan(seed: int, seconds: float, only: Sequence[str] = ()) -> Plan:
    """The plan of a seed. The same arguments give the same plan on every machine.

    `only`: how the names of the faults begin; else all kinds.
    """
    chance = random.Random(seed)
    end = seconds * SHARE_OF_FAULTS
    busy: dict[tuple[str, int | None], float] = {}
    faults: list[Fault] = []
    at = FIRST_FAULT_SECONDS
    kinds = [kind for kind in KINDS if not only or kind.name.startswith(tuple(only))]
    for kind in _in_turn(kinds, chance):
        at += chance.uniform(0, 2 * MEAN_GAP_SECONDS)
        if at >= end:
            return Plan(seed, seconds, faults)
        fault = _fault(kind, at, end, busy, chance)
        if fault:
            busy[kind.resource, fault.target] = fault.at + fault.lasts + _rest(kind)
            faults.append(fault)
    raise AssertionError


def _in_turn(kinds: Sequence[Kind], chance: random.Random) -> Iterator[Kind]:
    """All of them in random order, again and again."""
    while kinds:
        yield from chance.sample(kinds, len(kinds))


def _fault(
    kind: Kind,
    at: float,
    end: float,
    busy: dict[tuple[str, int | None], float],
    chance: random.Random,
) -> Fault | None:
    """A fault of this kind on a free target; None if no target is free."""
    free = [target for target in _targets(kind) if busy.get((kind.resource, target), 0) <= at]
    target = chance.choice(free) if free else None
    lasts, amount = chance.uniform(*kind.lasts), chance.uniform(*kind.amount)
    choice = chance.random()
    if not free:
        return None
    return Fault(
        round(at, 2),
        kind.name,
        target,
        round(min(lasts, end - at), 2),
        round(amount, 3),
        round(choice, 4),
    )


def _targets(kind: Kind) -> Sequence[int | None]:
    match kind.target:
        case "replica":
            return range(REPLICAS)
        case "account":
            return range(len(ACCOUNTS))
        case _:
            return (None,)


def _rest(kind: Kind) -> float:
    """How long a target rests after a fault: a process starts, an account recovers.

    An account with two revoked tokens in a row parks, so two faults would be another kind of fault.
    """
    return {"process": 3.0, "account": 15.0}.get(kind.resource, 0.5)
