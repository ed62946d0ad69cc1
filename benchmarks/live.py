"""Servers and daemons that are watched while they run, and how figures are shown."""

import os
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import asyncpg
import psutil

from benchmarks.world import SERVER_SETTINGS, UNCOUNTED, Server, StandIn, module
from refresher.embedded import folder_for_servers, served

MB: Final = 1e6
LAST_LINES: Final = 10
ACCOUNT_REFRESHED: Final = b'"event":"account.refreshed"'
STOP_SECONDS: Final = 30
NO_VARIABLES: Final[Mapping[str, str]] = {}


@asynccontextmanager
async def postgres(
    settings: Mapping[str, str], folder: Path | None = None
) -> AsyncIterator[Server]:
    """A server with these settings. With a folder its data stays there, found again next time."""
    with _data_in(folder) as data:
        with served(data) as url:
            connection = await asyncpg.connect(url)
            await connection.execute("ALTER SYSTEM RESET ALL")
            for name, value in {**SERVER_SETTINGS, **settings}.items():
                await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            await connection.close()
        with served(data) as url:
            connection = await asyncpg.connect(url, server_settings=UNCOUNTED)
            postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
            try:
                yield Server(url, connection, psutil.Process(postmaster))
            finally:
                # Stopping must not have to write all that is in the buffers.
                await connection.execute("CHECKPOINT")
                await connection.close()


@contextmanager
def _data_in(folder: Path | None) -> Iterator[Path]:
    if folder:
        yield folder
        return
    with folder_for_servers() as temporary:
        yield temporary / "data"


class Daemon:
    """A replica while it runs. SystemExit where it has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: BinaryIO) -> None:
        self._process = process
        self._output = output
        self._killed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """By SIGKILL: that it has ended is then no fault."""
        self._killed = True
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def cpu_seconds(self) -> float:
        self._check()
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def memory_bytes(self) -> int:
        return self._status("VmRSS:")

    def peak_memory_bytes(self) -> int:
        return self._status("VmHWM:")

    def stop(self) -> None:
        if self._killed:
            return
        self._check()
        self._process.terminate()
        if status := self._process.wait(STOP_SECONDS):
            self._fail(status)

    def _status(self, name: str) -> int:
        self._check()
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    def _check(self) -> None:
        status = self._process.poll()
        if status is not None:
            self._fail(status)

    def _fail(self, status: int) -> NoReturn:
        self._output.seek(0)  # ours and the daemon's place in it are one, but it has ended
        told = (line for line in self._output if ACCOUNT_REFRESHED not in line)
        last_words = b"".join(deque(told, maxlen=LAST_LINES)).decode()
        raise SystemExit(f"{last_words}\nthe daemon ended with {status}")


@contextmanager
def daemon(
    database_url: str,
    base_url: str,
    *,
    program: str = "refresher",
    variables: Mapping[str, str] = NO_VARIABLES,
    **settings: object,
) -> Iterator[Daemon]:
    """`refresher run` with everything on; settings by their names without the prefix."""
    given = {"log_format": "json", "http_listen": "127.0.0.1:0", **settings}
    environment = {
        **os.environ,
        **variables,
        "REFRESHER_DATABASE_URL": database_url,
        "REFRESHER_TIKTOK_BASE_URL": base_url,
        **{f"REFRESHER_{name.upper()}": str(value) for name, value in given.items()},
    }
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(module(program, "run"), env=environment, stdout=output) as process,
    ):
        running = Daemon(process, output)
        try:
            yield running
            running.stop()
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def stand_in(*, latency_seconds: float = 0.0, cover_ttl_seconds: int = 86_400) -> Iterator[StandIn]:
    """The endpoint's stand-in in a process of its own."""
    command = module(
        "benchmarks.stand_in", f"--latency={latency_seconds}", f"--cover-ttl={cover_ttl_seconds}"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            yield StandIn(served.stdout.readline().strip())
        finally:
            served.terminate()


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """In Markdown."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


def print_verdict(what: str, *, met: bool) -> None:
    print(f"- {'PASS' if met else 'miss'}: {what}", flush=True)
