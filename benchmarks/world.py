"""What the benchmarks share: a PostgreSQL of their own, fleets, processes and their figures."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import asyncpg
import psutil

from benchmarks.stand_in import TO_SIGNATURE, URL_END, URL_START, Stats
from refresher.embedded import folder_for_servers, served
from refresher.postgres.migrate import migrate

COMPOSE_FILE: Final = Path(__file__).parent.parent / "docker-compose.yml"


def shipped_settings() -> Mapping[str, str]:
    """Those that docker-compose.yml starts the database with."""
    command = re.search(r"command: postgres (.+)", COMPOSE_FILE.read_text())
    assert command, f"expected 'command: postgres ...' in {COMPOSE_FILE}"
    return dict(re.findall(r"-c (\w+)=(\S+)", command[1]))


SERVER_SETTINGS: Final = {
    **shipped_settings(),
    "shared_preload_libraries": "pg_stat_statements",
    "track_commit_timestamp": "on",  # says exactly when a row was written, and needs no polling
    "wal_keep_size": "4GB",  # so that what a run wrote can be read once more
}
#: Statements of a connection with this setting are nobody's but ours, and are not counted.
UNCOUNTED: Final = {"pg_stat_statements.track": "none"}
FIRST_ID: Final = 7_000_000_000_000_000_000
#: Nothing that is measured takes longer.
LONGEST_SECONDS: Final = 600.0

ADD_ACCOUNTS: Final = """
INSERT INTO refresher.accounts (open_id, access_token)
SELECT '-000' || md5(a::text), 'act.' || md5(a::text) || md5('token of ' || a)
FROM generate_series(1, $1::integer) AS a
"""
# As a day of work leaves them: with a cover like the stand-in's, which dies in an hour.
ADD_VIDEOS: Final = f"""
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,
                              reserve)
SELECT '-000' || md5(a::text), id, $3 || id || $4 || id || $5, to_timestamp($6),
       to_timestamp($6) - interval '1 day', NULL
FROM generate_series(1, $1::integer) AS a, generate_series(1, $2::integer) AS v,
     CAST({FIRST_ID} + a::bigint * 100000 + v AS text) AS id
"""
COUNT_VIDEOS: Final = """
UPDATE refresher.accounts AS a
SET (videos, valid, expired, uncovered, missing, unreachable, valid_until, earliest_due_at) = (
    SELECT videos, valid, expired, uncovered, missing, unreachable, valid_until, earliest_due_at
    FROM refresher.count_videos(a.open_id, NULL)
)
"""
COUNTERS: Final = """
SELECT (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
        WHERE dbid = d.datid AND toplevel)::bigint AS statements,
       d.xact_commit AS commits,
       pg_current_wal_insert_lsn() AS wal_position
FROM pg_stat_database AS d
WHERE d.datname = $1
"""
WAL_BETWEEN: Final = """
SELECT sum(combined_size)::bigint AS bytes, sum(fpi_size)::bigint AS image_bytes
FROM pg_get_wal_stats($1::pg_lsn, $2::pg_lsn)
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a database has done since it was made."""

    statements: int
    commits: int
    wal_position: str


class Server:
    """A running PostgreSQL, seen from its maintenance database."""

    def __init__(self, url: str, connection: Any, process: psutil.Process) -> None:
        self._url = url
        self._connection = connection
        self._process = process

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))

    async def version(self) -> str:
        version: str = await self._connection.fetchval("SHOW server_version")
        return version

    @asynccontextmanager
    async def connected(self, database: str) -> AsyncIterator[Any]:
        """A connection whose statements are not counted."""
        connection = await asyncpg.connect(self.url(database), server_settings=UNCOUNTED)
        try:
            yield connection
        finally:
            await connection.close()

    async def has_database(self, name: str) -> bool:
        found = await self._connection.fetchval(
            "SELECT count(*) FROM pg_database WHERE datname = $1", name
        )
        return bool(found)

    async def copy_database(self, template: str, name: str) -> None:
        """A new database, file by file as its template is on disk; nobody may be connected.

        Takes half as long as through the WAL, and nothing of it is left to be written later.
        """
        await self._connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await self._connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
        )
        await self._connection.execute("CHECKPOINT")

    async def counters(self, database: str) -> Counters:
        await self._connection.fetchval("SELECT pg_stat_force_next_flush()")
        return Counters(**await self._connection.fetchrow(COUNTERS, database))

    async def wal_between(self, first: str, last: str) -> tuple[int, int]:
        """Bytes of WAL, and how many of them are images of whole pages."""
        row = await self._connection.fetchrow(WAL_BETWEEN, first, last)
        return row["bytes"] or 0, row["image_bytes"] or 0

    def cpu_seconds(self) -> float:
        """Of all its processes, also those that have ended; but not of our own connection."""
        own = self._connection.get_server_pid()
        while True:
            times = self._process.cpu_times()
            ended = times.user + times.system + times.children_user + times.children_system
            alive = (child for child in self._process.children() if child.pid != own)
            with suppress(psutil.NoSuchProcess):  # one of them has just joined those that ended
                return ended + sum(sum(child.cpu_times()[:2]) for child in alive)


@asynccontextmanager
async def postgres(settings: Mapping[str, str]) -> AsyncIterator[Server]:
    """A server of our own with the settings of docker-compose.yml, those needed to measure, these.

    Gone without a trace afterwards.
    """
    with folder_for_servers() as folder:
        data = folder / "data"
        with served(data) as url:
            connection = await asyncpg.connect(url)
            for name, value in {**SERVER_SETTINGS, **settings}.items():
                await _set(connection, name, value)
            await connection.close()
        with served(data) as url:
            connection = await asyncpg.connect(url, server_settings=UNCOUNTED)
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await connection.execute("CREATE EXTENSION pg_walinspect")
            postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
            try:
                yield Server(url, connection, psutil.Process(postmaster))
            finally:
                await connection.close()


async def _set(connection: Any, name: str, value: str) -> None:
    try:
        await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    except asyncpg.PostgresError as error:
        print(f"PostgreSQL refuses {name}={value}: {error}", file=sys.stderr)
        sys.exit(2)


async def make_fleet(server: Server, database: str, accounts: int, videos_each: int) -> None:
    """A new, migrated database with accounts all of whose videos are due: they die in an hour."""
    await server.copy_database("template0", database)
    await migrate(server.url(database))
    expiry = int(time()) + 3600
    url = (URL_START, TO_SIGNATURE % expiry, URL_END)
    async with server.connected(database) as connection:
        await connection.execute(ADD_ACCOUNTS, accounts)
        await connection.execute(ADD_VIDEOS, accounts, videos_each, *url, expiry)
        await connection.execute(COUNT_VIDEOS)
        await settle(connection)


async def settle(connection: Any) -> None:
    """As if the rows had lain there for long: frozen, so that a reader has nothing to write."""
    await connection.execute("VACUUM (FREEZE, ANALYZE)")


@contextmanager
def stand_in(latency_seconds: float) -> Iterator["StandIn"]:
    """The endpoint's stand-in in a process of its own."""
    command = module("benchmarks.stand_in", f"--latency={latency_seconds}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            yield StandIn(served.stdout.readline().strip())
        finally:
            served.terminate()


@dataclass(frozen=True, slots=True)
class StandIn:
    base_url: str

    def stats(self) -> Stats:
        with urlopen(f"{self.base_url}/stats") as answer:
            return Stats(**json.load(answer))


class Program:
    """A process that is measured from its start to its end; leaving its context ends it at once."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._cpu_before = _cpu_of_ended()
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        self._peak_memory = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def runs(self) -> bool:
        """Whether it has not ended; also notes its memory, so ask often."""
        self._note_memory()
        return self._process.poll() is None

    def stop(self) -> None:
        self._note_memory()
        self._process.terminate()

    def end(self) -> tuple[float, int]:
        """Wait for it: seconds of CPU and peak bytes of memory. SystemExit unless it went well."""
        status = self._process.wait(LONGEST_SECONDS)
        if status != 0:
            raise SystemExit(f"{self._process.args!r} ended with {status}")
        return _cpu_of_ended() - self._cpu_before, self._peak_memory

    def _note_memory(self) -> None:
        """What the kernel calls its high-water mark; gone with the process."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except FileNotFoundError:
            return
        marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        self._peak_memory = max([self._peak_memory, *(1024 * mark for mark in marks)])


def _cpu_of_ended() -> float:
    """Of all our processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]
