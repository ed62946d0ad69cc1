"""What waits for a lock is tried again by itself, so that nobody else waits with it."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, is_away
from refresher.domain.model import Holder, OpenId
from refresher.flow.outage import Outage

Item = TypeVar("Item", bound="OfAccount")
Result = TypeVar("Result")
Written_co = TypeVar("Written_co", covariant=True)
Given_contra = TypeVar("Given_contra", contravariant=True)

#: After a long wait the account stays here for so long: its lock may come again.
KEPT_SECONDS: Final = 10.0
#: A wait that lasts so long is logged. Most locks are shorter.
SAID_SECONDS: Final = 1.0
#: One statement waits at most so long. PostgreSQL looks for a deadlock after one second: ours has
#: given way by then.
LONGEST_TRY_SECONDS: Final = 0.5
SHORTEST_TRY_SECONDS: Final = 0.05
#: Each account that waits gets a turn in about so long.
ROUND_SECONDS: Final = 2.0
#: Between two tries of one account.
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 1.0
#: Between two looks for who holds the lock.
LOOK_SECONDS: Final = 0.02
#: After so many tries nobody looks any more for who holds the lock.
LOOKED_TRIES: Final = 3


class OfAccount(Protocol):
    """What belongs to one account."""

    @property
    def open_id(self) -> OpenId: ...


class Alone(Protocol[Given_contra, Written_co]):
    """Does the items of one account in one statement.

    It waits for a lock no longer than so many seconds, under the session name. Raises
    `DatabaseBusy` then.
    """

    async def __call__(
        self, items: Sequence[Given_contra], lock_seconds: float, name: str, /
    ) -> Sequence[Written_co]: ...


#: Who holds what the session of this name waits for. Raises `DatabaseUnavailable`.
Who = Callable[[str], Awaitable[Holder | None]]


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    """An account that waits."""

    since: float
    items: list[tuple[Item, asyncio.Future[Result]]] = field(default_factory=list)
    tries: int = 0
    one_by_one: bool = False
    holder: Holder | None = None
    said: bool = False


@dataclass(frozen=True, slots=True)
class Turns:
    """What all lock waits share: they take turns on one connection."""

    #: Who holds the lock that a session waits for.
    who: Who
    outage: Outage
    #: Ends all waits.
    give_up: asyncio.Event
    clock: Clock
    connection: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class LockWaits(Generic[Item, Result]):
    """Items of accounts that wait for a lock, each account in statements of its own.

    `blocked` hears once of a wait that lasts: the account, its items, who holds the lock if that is
    known, and the seconds so far. `freed` hears when it is over. After `give_up` what waits gets
    `DatabaseUnavailable`.
    """

    def __init__(
        self,
        alone: Alone[Item, Result],
        turns: Turns,
        *,
        blocked: Callable[[OpenId, Sequence[Item], Holder | None, float], None],
        freed: Callable[[OpenId, float], None],
    ) -> None:
        self._alone = alone
        self._who = turns.who
        self._connection = turns.connection
        self._outage = turns.outage
        self._give_up = turns.give_up
        self._clock = turns.clock
        self._blocked = blocked
        self._freed = freed
        self._name = f"refresher waits {secrets.token_hex(4)}"
        self._waiting: dict[OpenId, _Waiting[Item, Result]] = {}
        self._kept_until: dict[OpenId, float] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def has(self, open_id: OpenId) -> bool:
        """Whether the account waits, or did lately: then all its items belong here."""
        return open_id in self._waiting or self._kept_until.get(open_id, -inf) > self._clock()

    async def submit(self, item: Item) -> Result:
        """Hand an item over and wait for its result, however long the lock lasts."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(item.open_id)
        if waiting is None:
            waiting = self._waiting[item.open_id] = _Waiting(self._clock())
            self._begin(self._wait_out(item.open_id, waiting))
        waiting.items.append((item, done))
        return await done

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _wait_out(self, open_id: OpenId, waiting: _Waiting[Item, Result]) -> None:
        try:
            while items := [item for item in waiting.items if not item[1].done()]:
                waiting.items = items
                if self._give_up.is_set():
                    _fail(items)
                    continue
                now = items[:1] if waiting.one_by_one else list(items)  # more may come meanwhile
                if not await self._try(open_id, waiting, now):
                    await self._rest(waiting)
        finally:
            for _, done in waiting.items:
                done.cancel()  # nobody waits for ever, whatever ended this
            del self._waiting[open_id]
            if self._waited(waiting) >= SAID_SECONDS:
                self._keep_here(open_id)
            if waiting.said:
                self._freed(open_id, self._waited(waiting))

    async def _try(
        self,
        open_id: OpenId,
        waiting: _Waiting[Item, Result],
        items: Sequence[tuple[Item, asyncio.Future[Result]]],
    ) -> bool:
        """Whether the items got a result or an error."""
        async with self._connection:
            if self._give_up.is_set():
                return False  # it was set while this one queued
            try:
                results = await self._ask(waiting, [item for item, _ in items])
            except DatabaseBusy:
                waiting.tries += 1
                self._say(open_id, waiting)
                return False
            except Exception as error:  # noqa: BLE001 - it belongs to the one who waits for it
                if is_away(error):
                    await self._outage.wait(self._give_up)
                    return False
                waiting.one_by_one = True
                if len(items) == 1 and not items[0][1].done():
                    items[0][1].set_exception(error)
                return True
        for (_, done), result in zip(items, results, strict=True):
            if not done.done():
                done.set_result(result)
        return True

    async def _ask(
        self, waiting: _Waiting[Item, Result], items: Sequence[Item]
    ) -> Sequence[Result]:
        tried = asyncio.Event()
        self._begin(self._look(waiting, tried))
        try:
            return await self._outage.attempt(
                lambda: self._alone(items, self._try_seconds(), self._name), may_wait=True
            )
        finally:
            tried.set()

    def _try_seconds(self) -> float:
        return max(
            SHORTEST_TRY_SECONDS, min(LONGEST_TRY_SECONDS, ROUND_SECONDS / len(self._waiting))
        )

    async def _look(self, waiting: _Waiting[Item, Result], tried: asyncio.Event) -> None:
        """Find out who holds the lock, while a statement waits for it."""
        with suppress(DatabaseUnavailable):
            while waiting.holder is None and waiting.tries < LOOKED_TRIES:
                with suppress(TimeoutError):
                    await asyncio.wait_for(tried.wait(), LOOK_SECONDS)
                    return
                waiting.holder = await self._who(self._name)

    def _say(self, open_id: OpenId, waiting: _Waiting[Item, Result]) -> None:
        if waiting.said or self._waited(waiting) < SAID_SECONDS:
            return
        if waiting.holder is None and waiting.tries < LOOKED_TRIES:
            return
        waiting.said = True
        items = [item for item, _ in waiting.items]
        self._blocked(open_id, items, waiting.holder, self._waited(waiting))

    async def _rest(self, waiting: _Waiting[Item, Result]) -> None:
        seconds = min(FIRST_PAUSE_SECONDS * (1 << min(waiting.tries, 8)), LONGEST_PAUSE_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._give_up.wait(), seconds)

    def _waited(self, waiting: _Waiting[Item, Result]) -> float:
        return round(self._clock() - waiting.since, 1)

    def _keep_here(self, open_id: OpenId) -> None:
        now = self._clock()
        self._kept_until = {kept: until for kept, until in self._kept_until.items() if until > now}
        self._kept_until[open_id] = now + KEPT_SECONDS


def _fail(items: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
    for _, done in items:
        done.set_exception(DatabaseUnavailable("given up while it waited for a lock"))
