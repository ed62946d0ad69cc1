"""What every run has, on whatever database: the emulator, the replicas, what was done and seen."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from refresher.postgres.failures import DRIVER_ERRORS
from refresher.postgres.sealing import Sealer
from tests.chaos.journal import Journal
from tests.chaos.replicas import Replica
from tests.chaos.upstream import WatchedEmulator


@dataclass(kw_only=True)
class Stage(ABC):
    """The parts of a run, beside its database."""

    emulator: WatchedEmulator
    journal: Journal
    sealer: Sealer
    folder: Path  # of the logs
    rate_limit: int  # of a token, a minute
    replicas: list[Replica] = field(default_factory=list)
    ports: Mapping[int, Replica] = field(default_factory=dict)  # by their ports of the emulator
    livez_urls: Mapping[str, str] = field(default_factory=dict)  # of /livez, by name of replica
    owners: dict[str, str] = field(default_factory=dict)  # open_id by video ID
    violations: dict[tuple[str, str], None] = field(default_factory=dict)  # a set, in order
    counter: int = 0  # of transactions

    @property
    @abstractmethod
    def url(self) -> str:
        """Where those who look on, and the application, find the database."""

    def violated(self, invariant: str, what: str) -> None:
        """Remember a violation once."""
        self.violations.setdefault((invariant, what))

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record] | None:
        """The rows; None while the database is away."""
        with suppress(TimeoutError, *DRIVER_ERRORS):
            connection = await asyncpg.connect(self.url, timeout=5)
            try:
                return await connection.fetch(statement, *arguments, timeout=10)
            finally:
                connection.terminate()
        return None

    async def transact(self, *statements: tuple[Any, ...]) -> None:
        """Run the statements exactly once, as a careful application does. Wait out an outage."""
        self.counter += 1
        number = self.counter
        while True:
            if await self._transacted(number, statements):
                return
            await asyncio.sleep(0.2)

    async def _transacted(self, number: int, statements: tuple[tuple[Any, ...], ...]) -> bool:
        with suppress(TimeoutError, *DRIVER_ERRORS):
            connection = await asyncpg.connect(self.url, timeout=5)
            try:
                async with connection.transaction():
                    is_new = await connection.fetchval(
                        "INSERT INTO chaos.done VALUES ($1) ON CONFLICT DO NOTHING RETURNING true",
                        number,
                    )
                    for statement in statements if is_new else ():
                        await connection.execute(*statement, timeout=10)
            finally:
                connection.terminate()
            return True
        return False
