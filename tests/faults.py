"""For tests of a failing database: servers that a test may break."""

import asyncio
import atexit
import os
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp

from refresher import embedded
from refresher.domain.errors import DatabaseUnavailable
from refresher.embedded import folder_for_servers, server_user
from refresher.postgres.database import connected
from refresher.postgres.failures import DRIVER_ERRORS
from tests.conftest import World, administer, eventually, free_port

#: Where Debian keeps the oldest version we support. Used with TEST_POSTGRES_URL.
OLDEST = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "pass-word-of-the-tests"
#: How late a request may be sent after its slot: our limit, and what a busy machine adds.
LATENESS_SECONDS = 0.5 + 0.3


@cache
def programs() -> Path:
    """The folder of initdb, pg_ctl and pg_basebackup."""
    if os.environ.get("TEST_POSTGRES_URL") and (OLDEST / "pg_ctl").exists():
        return OLDEST
    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(embedded.programs())


def run(*command: object) -> str:
    """Run a program as the server's user. Its output."""
    # A file, because the server inherits the output and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(word) for word in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            user=server_user(),
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            check=False,
        )
        output.seek(0)
        text = output.read()
    assert done.returncode == 0, f"{command}: {text}"
    return text


@dataclass
class Server:
    """A PostgreSQL server. It keeps its port through restarts."""

    folder: Path  # its data directory
    port: int  # on 127.0.0.1

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str, *ports: int) -> str:
        """The URL of a database; through these ports instead of our own, if any are given."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or [self.port])
        return f"postgresql://postgres:{PASSWORD}@{hosts}/{database}"

    def start(self) -> None:
        try:
            self._control("start", "-l", self.folder / "log", "-o", f"-p {self.port}")
        except AssertionError as error:
            error.add_note((self.folder / "log").read_text())
            raise

    def stop(self, mode: str = "immediate") -> None:
        self._control("stop", "-m", mode)

    def restart(self, mode: str) -> None:
        self._control("restart", "-m", mode, "-l", self.folder / "log", "-o", f"-p {self.port}")

    def promote(self) -> None:
        self._control("promote")

    def _control(self, action: str, *options: object) -> None:
        run(programs() / "pg_ctl", "-D", self.folder, "-w", "-s", "-t", 60, action, *options)


@contextmanager
def own_server() -> Iterator[Server]:
    """A server for this test alone. It does not wait for the disk."""
    with folder_for_servers() as folder:
        server = Server(folder / "data", free_port())
        options = ("--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres")
        run(programs() / "initdb", "-D", server.folder, *options)
        with (server.folder / "postgresql.conf").open("a") as settings:
            settings.write(
                "listen_addresses = '127.0.0.1'\n"
                "unix_socket_directories = ''\n"
                "max_connections = 30\n"
                "shared_buffers = 32MB\n"
                "fsync = off\n"
                "autovacuum = off\n"
            )
        server.start()
        try:
            yield server
        finally:
            with suppress(AssertionError):
                server.stop()


@contextmanager
def standby_of(server: Server) -> Iterator[Server]:
    """A streaming standby. It is read-only until it is promoted."""
    with folder_for_servers() as folder:
        standby = Server(folder / "data", free_port())
        source = f"host=127.0.0.1 port={server.port} user=postgres"
        run(
            programs() / "pg_basebackup",
            *("-D", standby.folder, "-d", source, "-R", "-c", "fast", "--no-sync"),
        )
        standby.start()
        try:
            yield standby
        finally:
            with suppress(AssertionError):
                standby.stop()


@asynccontextmanager
async def looking(world: World, url: str) -> AsyncIterator[World]:
    """The same world. It reads the database through this URL, which the fault does not touch."""
    async with connected(url, application_name="tests") as pool:
        yield World(world.emulator, world.base_url, pool, world.ids)


async def valid(world: World) -> int:
    """How many covers are valid; -1 while the database does not answer."""
    try:
        return await world.valid()
    except (DatabaseUnavailable, *DRIVER_ERRORS):
        return -1


async def until_valid(world: World, videos: int) -> None:
    async def reached() -> bool:
        return await valid(world) >= videos

    await eventually(reached, f"{videos} valid covers")


async def until_up(url: str) -> None:
    async def answers() -> bool:
        try:
            await administer(url, "SELECT 1")
        except DRIVER_ERRORS:
            return False
        return True

    await eventually(answers, "a server that answers")


def sent_between(world: World, begun: float, ended: float) -> int:
    return sum(begun < arrival.at < ended for arrival in world.emulator.record)


def check_pace(world: World, limit: int) -> None:
    """Requests for each account are no closer together than its slots."""
    moments = defaultdict(list)
    for arrival in world.emulator.record:
        assert arrival.breach is None
        assert arrival.status != 429
        moments[arrival.open_id].append(arrival.at)
    step = 60 / limit
    for times in moments.values():
        for apart in range(1, len(times)):
            for first, later in zip(times, times[apart:], strict=False):
                assert later - first > apart * step - LATENESS_SECONDS


async def is_ready(port: int) -> bool:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/readyz") as response,
    ):
        return response.status == 200


@asynccontextmanager
async def lively(port: int) -> AsyncIterator[None]:
    """Meanwhile, /livez always answers 200 within 2 s. /readyz is asked, too, as health checks do."""
    stop = asyncio.Event()

    async def ask(session: aiohttp.ClientSession, path: str) -> Counter[int]:
        answers: Counter[int] = Counter()
        while not stop.is_set():
            async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                answers[response.status] += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)
        return answers

    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as impatient,
        aiohttp.ClientSession() as patient,
        asyncio.TaskGroup() as asking,
    ):
        live = asking.create_task(ask(impatient, "livez"))
        ready = asking.create_task(ask(patient, "readyz"))
        try:
            yield
        finally:
            stop.set()
    assert set(live.result()) == {200}
    assert set(ready.result()) <= {200, 503}


def pgbouncer_program() -> str | None:
    """The path in TEST_PGBOUNCER, or that of the installed one; None if there is none."""
    usual = Path("/usr/sbin/pgbouncer")
    found = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer")
    return found or (str(usual) if usual.exists() else None)


@asynccontextmanager
async def pgbouncer(server: Server, *settings: str) -> AsyncIterator[int]:
    """Start PgBouncer in transaction mode in front of the server. Its port.

    `settings` are further lines of its settings file.
    """
    with folder_for_servers() as folder:
        port = free_port()
        users = folder / "users.txt"
        users.write_text(f'"postgres" "{PASSWORD}"\n')
        settings_file = folder / "pgbouncer.ini"
        lines = (
            "[databases]",
            f"* = host=127.0.0.1 port={server.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = plain",
            f"auth_file = {users}",
            "pool_mode = transaction",
            "default_pool_size = 3",
            *settings,
        )
        settings_file.write_text("\n".join(lines) + "\n")
        with (folder / "log").open("wb") as log:
            # Not asyncio's: uvloop cannot change the user.
            process = subprocess.Popen(  # noqa: ASYNC220
                [pgbouncer_program() or "pgbouncer", settings_file],
                stdout=log,
                stderr=log,
                user=server_user(),
                cwd="/",
            )
        try:
            await until_up(server.url_of("postgres", port))
            yield port
        finally:
            # Not SIGTERM: since 1.23, PgBouncer then waits until its clients have gone.
            process.kill()
            await asyncio.to_thread(process.wait)
