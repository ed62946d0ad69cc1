"""Watches the host of a statement that takes long: is it slow, or has another one taken over?"""

import asyncio
from dataclasses import dataclass
from typing import Final

from refresher.domain.clocks import Clock
from refresher.domain.connection_string import Host
from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.failures import ConnectionsUsedUpError
from refresher.postgres.hosts import SILENT_SECONDS, Hosts
from refresher.postgres.naming import Connection

#: How long a host may take to answer a new connection before the others are looked at, too.
AT_ONCE_SECONDS: Final = 0.2
#: How long until it counts as silent, where no other server takes writes.
ANSWER_SECONDS: Final = 1.0
#: A host that answers is looked at ever more rarely while the same statement lasts.
LONGEST_PAUSE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Look:
    """One look at a host."""

    #: By the clock of the lookout.
    begun_at: float
    #: False until it has answered.
    answered: bool = False
    ended_at: float = 0.0


class Lookout:
    """Looks at hosts for which statements of ours wait, and leaves those that are gone."""

    def __init__(self, hosts: Hosts, clock: Clock) -> None:
        self._hosts = hosts
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looks: dict[Host, Look] = {}

    def watch(self, connection: Connection) -> "asyncio.Task[None] | None":
        """Watch the host of this connection until the task is cancelled.

        None where there is no other host to go to.
        """
        host = self._hosts.host_of(connection) if self._hosts.has_choice else None
        return asyncio.create_task(self._watch(host)) if host else None

    async def _watch(self, host: Host) -> None:
        pause = SILENT_SECONDS
        while True:
            await asyncio.sleep(pause)
            # Where it answers, it is slow or waits for a lock: another host would not be quicker.
            answers = await self._look_at(host)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if answers else SILENT_SECONDS

    async def _look_at(self, host: Host) -> bool:
        """Whether the host lets us in and takes writes. If another server does instead, leave it.

        All statements that wait share a look; at most two looks begin in a second.
        """
        asked_at = self._clock()
        async with self._looking:
            look = self._looks.get(host)
            if look is None or self._is_old(look, asked_at):
                # Noted first: it counts even if its statement ends before it.
                look = self._looks[host] = Look(self._clock())
                look.answered = await self._answers_or_is_left(host)
                look.ended_at = self._clock()
            return look.answered

    def _is_old(self, look: Look, asked_at: float) -> bool:
        """Not if it ended while the one who asks waited for it, however long it took."""
        return look.ended_at < asked_at and self._clock() - look.begun_at >= SILENT_SECONDS

    async def _answers_or_is_left(self, host: Host) -> bool:
        async with asyncio.TaskGroup() as group:
            own = group.create_task(self._answers(host))
            await asyncio.wait({own}, timeout=AT_ONCE_SECONDS)
            if own.done() and own.result():
                return True
            other = await self._another_server(host)
            if other is None or other == self._hosts.server_at(host):
                # The same server behind another pooler: this one may only be busy.
                await own
            if own.done() and own.result():
                return True
            own.cancel()
        if other is not None:
            self._leave(host)
        return False

    async def _answers(self, host: Host) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await self._hosts.connect_to(host)
        except ConnectionsUsedUpError:
            return True  # it has no room for one more look, so it is alive
        except (DatabaseUnavailable, TimeoutError):
            return False
        connection.terminate()
        return True

    async def _another_server(self, host: Host) -> float | None:
        """The server that takes writes at another host; that host is tried first from now on."""
        connection = await self._hosts.connect_to_another(host)
        if connection is None:
            return None
        connection.terminate()
        at = self._hosts.host_of(connection)
        return self._hosts.server_at(at) if at else None

    def _leave(self, host: Host) -> None:
        """Terminate all connections to the host: those in use wait for what cannot come."""
        for connection in self._hosts.connections_to(host):
            connection.terminate()
