"""Real parts for the tests: PostgreSQL with our migrations, the emulator, daemons as processes."""

import asyncio
import json
import logging
import os
import random
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import msgspec
import pytest
import structlog

from ops.log_schema import Line
from refresher.demo import temporary_postgres
from refresher.domain.model import Write
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.postgres import partitioning
from refresher.postgres.database import Pool, connected
from refresher.postgres.migrate import migrate
from tests.citus import NOT_ON_CITUS, Cluster, cluster_of
from tests.launcher import Launcher, Process, into, launching

#: An example may take as long as it needs, also on a machine that others keep busy.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

#: Long enough for a slow machine. No test asserts it.
PATIENCE_SECONDS = 120.0
#: Below those that Linux gives to whoever connects or asks for any port: it would give ours away.
PORTS = range(20_000, 32_768)
#: Workers of the suite whose ports are never the same.
WORKERS = 8
SECRET = re.compile(
    r"\b(?:act|rft)\.\w|\bwhsec_\w{3}|x-signature=(?!\[redacted\])|pass-word-of-the-tests"
)
#: Reads a line of a log; refuses one that is not as ops/log-schema.json says.
LINES = msgspec.json.Decoder(Line)


#: Tests in these folders only compute, so `make unit` takes seconds.
UNIT_FOLDERS = [Path(__file__).parent / name for name in ("unit", "flow", "chaos")]
OUTSIDE = {"socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "os.posix_spawn"}
_kept_inside: list[str] = []


def _refuse_outside(event: str, _: object) -> None:
    if _kept_inside and event in OUTSIDE:
        pytest.fail(f"{event}: a test that needs this does not belong in {_kept_inside[-1]}")


sys.addaudithook(_refuse_outside)


@pytest.fixture(autouse=True)
def kept_inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """A unit test that opens a socket or starts a process fails."""
    folder = request.path.parent
    if folder not in UNIT_FOLDERS:
        yield
        return
    _kept_inside.append(f"tests/{folder.name}")
    yield
    _kept_inside.clear()


def pass_on_signals() -> None:
    """What a script ignores when it runs the suite in the background, our programs do not.

    An ignored signal stays ignored in all that is started; one that is handled does not.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


pass_on_signals()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long tests first, so that the others run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items if on_citus() else ():
        if reason := NOT_ON_CITUS.get(getattr(item, "originalname", item.name)):
            item.add_marker(pytest.mark.skip(reason=f"not on Citus: {reason}"))


def one_by_one(writes: Iterable[Write]) -> list[Write]:
    """The same writes, each for one video."""
    alone = []
    for write in writes:
        assert len(write.urls) == (0 if write.cover_expires_at is None else len(write.video_ids))
        alone += [
            replace(write, video_ids=[video_id], urls=write.urls[place : place + 1])
            for place, video_id in enumerate(write.video_ids)
        ]
    return alone


#: Nobody needs these databases after a crash of the machine.
QUICK_RATHER_THAN_SAFE = [
    f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "full_page_writes")
]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, as a superuser: TEST_POSTGRES_URL, or a server of our own.

    Or the coordinator of the cluster that TEST_CITUS_URL names.
    """
    if url := os.environ.get("TEST_CITUS_URL") or os.environ.get("TEST_POSTGRES_URL"):
        yield url
        return
    with temporary_postgres() as url:
        asyncio.run(administer(url, *QUICK_RATHER_THAN_SAFE, "SELECT pg_reload_conf()"))
        yield url


async def administer(server: str, *statements: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def named(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


@dataclass
class OneServer:
    """Databases of one server."""

    url: str

    async def create(self, name: str) -> None:
        await administer(self.url, f"CREATE DATABASE {name}")

    async def make_cell(self, name: str) -> None:
        """Nothing to do: `migrate` makes the schema."""

    async def close(self, name: str) -> None:
        """Nobody is connected."""

    async def copy(self, name: str, template: str) -> None:
        await administer(self.url, f"CREATE DATABASE {name} TEMPLATE {template} {COPIED}")

    async def drop(self, name: str) -> None:
        await administer(self.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def databases(server: str) -> OneServer | Cluster:
    return asyncio.run(cluster_of(server)) if on_citus() else OneServer(server)


def on_citus() -> bool:
    return "TEST_CITUS_URL" in os.environ


@pytest.fixture(scope="session")
def template(server: str, databases: OneServer | Cluster) -> Iterator[str]:
    """The name of a migrated database. Each test gets a copy of it."""
    name = f"template_{secrets.token_hex(4)}"

    async def make() -> None:
        await databases.create(name)
        await databases.make_cell(name)
        await migrate(named(server, name))
        await databases.close(name)

    asyncio.run(make())
    yield name
    asyncio.run(databases.drop(name))


async def partition_videos(database: str, partitions: int) -> int | None:
    """As `refresher migrate --video-partitions`, which a cell of Citus cannot have."""
    if on_citus():
        pytest.skip("Citus lets no table of a cell be set aside, as partitioning does")
    return await partitioning.partition_videos(database, partitions)


@pytest.fixture
async def empty_database(server: str, databases: OneServer | Cluster) -> AsyncIterator[str]:
    """The URL of a database without our schema. On Citus, an empty schema that is a cell."""
    name = f"empty_{secrets.token_hex(4)}"
    await databases.create(name)
    await databases.make_cell(name)
    yield named(server, name)
    await databases.drop(name)


#: A copy of the files takes a third of the time that a copy through the WAL takes.
COPIED = "STRATEGY FILE_COPY"


@pytest.fixture
async def database(
    server: str, databases: OneServer | Cluster, template: str
) -> AsyncIterator[str]:
    """The URL of a migrated database that only this test uses."""
    name = f"test_{secrets.token_hex(4)}"
    await databases.copy(name, template)
    yield named(server, name)
    await databases.drop(name)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with connected(database, application_name="tests") as pool:
        yield pool


@dataclass
class World:
    """An emulator that serves, and the database: what exists at TikTok, and what is stored."""

    emulator: Emulator
    base_url: str  # of the emulator
    pool: Pool  # of the database
    ids: Iterator[int] = field(  # the next video IDs
        default_factory=lambda: iter(range(7_000_000_000_000_000_000, 2**63))
    )

    async def add_account(self, name: str, videos: int = 0) -> list[str]:
        """Add an account with this many videos, stored and known to the emulator. The video IDs."""
        token = f"act.{name}-{secrets.token_hex(8)}"
        self.emulator.add_account(name, token)
        await self.pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, $2)", name, token
        )
        return await self.add_videos(name, videos)

    async def add_videos(self, name: str, videos: int, *, missing: bool = False) -> list[str]:
        """Add videos to an account. The emulator does not know the `missing` ones. Their IDs."""
        ids = [str(next(self.ids)) for _ in range(videos)]
        for video_id in [] if missing else ids:
            self.emulator.add_video(name, video_id)
        await self.pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id) SELECT $1, unnest($2::text[])",
            name,
            ids,
        )
        return ids

    async def valid(self) -> int:
        count: int = await self.pool.fetchval(
            "SELECT count(*) FROM refresher.videos"
            " WHERE cover_image_url <> '' AND cover_expires_at > now()"
        )
        return count

    async def until_valid(self, videos: int, seconds: float = PATIENCE_SECONDS) -> None:
        await eventually(lambda: self._reaches(videos), f"{videos} valid covers", seconds)

    async def _reaches(self, videos: int) -> bool:
        return await self.valid() >= videos

    async def until_no_leases(self) -> None:
        await eventually(self._no_leases, "no lease")

    async def _no_leases(self) -> bool:
        return not await self.pool.fetchval(
            "SELECT count(*) FROM refresher.accounts WHERE lease_expires_at IS NOT NULL"
        )


async def waits_for_a_lock(pool: Pool) -> bool:
    """Whether a statement in this test's database waits for a lock. Other tests share the server.

    Not for a connection in a transaction: that one is shown the same activity until its end.
    """
    waits: bool = await pool.fetchval(WAITS_ON_CITUS if on_citus() else WAITS)
    return waits


WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock')
"""
# The coordinator's session waits for a worker, and the worker's for the lock.
WAITS_ON_CITUS = "SELECT EXISTS (SELECT FROM citus_lock_waits)"


def _ports_of_this_worker() -> Iterator[int]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = [port for port in PORTS if port % WORKERS == number % WORKERS]
    random.SystemRandom().shuffle(ours)
    return cycle(ours)


_ports = _ports_of_this_worker()


def free_port() -> int:
    """A free port of 127.0.0.1 that neither the system nor another worker gives away meanwhile."""
    while True:
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port := next(_ports)))
            return port


async def until(moment: float) -> None:
    """Sleep until this moment of the monotonic clock."""
    await asyncio.sleep(moment - monotonic())


async def eventually(
    condition: Callable[[], Awaitable[object]], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until the condition holds. Fail the test after `seconds`; the message names `what`."""
    end = monotonic() + seconds
    while not await condition():
        if monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain for {what}")
        await asyncio.sleep(0.05)


@pytest.fixture
async def serve(pool: Pool) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Start an emulator with these options, beside the database of this test."""
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> World:
            emulator = Emulator(EmulatorOptions(**options))  # type: ignore[arg-type]
            base_url = await stack.enter_async_context(emulator.serving())
            return World(emulator, base_url, pool)

        yield start


@dataclass
class Daemon:
    """A refresher process. The `start` fixture checks its log lines when it has ended."""

    process: Process
    output: Path  # its stdout and stderr

    def lines(self) -> list[dict[str, object]]:
        complete = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def events(self, name: str) -> list[dict[str, object]]:
        return [line for line in self.lines() if line["event"] == name]

    async def until_event(self, name: str, count: int = 1) -> dict[str, object]:
        """Wait until the event was logged `count` times. The last of these events."""

        async def logged() -> bool:
            return len(self.events(name)) >= count

        await eventually(logged, f"{count} times the event {name}")
        return self.events(name)[count - 1]

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def stopped(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()


Start = Callable[..., Awaitable[Daemon]]


def environment(database: str, **settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REFRESHER_")}
    given = {f"REFRESHER_{name.upper()}": str(value) for name, value in settings.items()}
    return {
        **kept,
        "REFRESHER_DATABASE_URL": database,
        "REFRESHER_LOG_FORMAT": "json",
        "REFRESHER_POLL_SECONDS": "0.5",
        **given,
    }


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    with launching() as launcher:
        yield launcher


@pytest.fixture
async def start(database: str, tmp_path: Path, launcher: Launcher) -> AsyncIterator[Start]:
    """Start `refresher run` (or another command) as a process with these settings."""
    daemons: list[Daemon] = []

    async def start(world: World | None = None, command: str = "run", **settings: object) -> Daemon:
        if world:
            settings.setdefault("tiktok_base_url", world.base_url)
        output = tmp_path / f"daemon-{len(daemons)}.log"
        with into(output) as streams:
            process = await launcher.start(
                *command.split(),
                environment=environment(database, **settings),
                folder=tmp_path,
                streams=streams,
            )
        daemons.append(Daemon(process, output))
        return daemons[-1]

    yield start
    for daemon in daemons:
        if os.environ.get("COVERAGE_RUN"):  # a killed process does not save its coverage
            with suppress(ProcessLookupError, TimeoutError):
                daemon.process.terminate()
                await asyncio.wait_for(daemon.process.wait(), 5)
        with suppress(ProcessLookupError):
            daemon.process.kill()
        await daemon.process.wait()
        check_output(daemon.output.read_text())


def check_output(text: str) -> None:
    """No line holds a secret. Every line of a log is as ops/log-schema.json says."""
    found = SECRET.search(text)
    assert found is None, f"a secret in the output: {text[found.start() - 200 : found.end() + 20]}"
    for line in text.splitlines():
        if line.startswith('{"'):
            check_line(line)


def check_line(line: str) -> None:
    try:
        LINES.decode(line)
    except msgspec.DecodeError as error:
        raise AssertionError(f"{error}: {line}") from None


@pytest.fixture
def refresher(
    database: str, tmp_path: Path, launcher: Launcher
) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """Run a command to its end; (exit code, stdout, stderr)."""

    async def run(*command: str, **settings: object) -> tuple[int, str, str]:
        code, out, err = await launcher.run(
            *command,
            environment=environment(str(settings.pop("url", database)), **settings),
            folder=tmp_path,
        )
        check_output(out + err)
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what a test changed in the logging of this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_secrets_shown(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What a test leaves on stdout and stderr holds no secret."""
    yield
    for text in capfd.readouterr():
        check_output(text)
