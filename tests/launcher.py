"""Commands of refresher as processes: forked by `tests/fork_server.py`, or new interpreters."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import msgspec

from tests.fork_server import Order

#: What an interpreter or its C library reads when it starts: a fork cannot change it.
READ_AT_START = re.compile(r"PYTHON|LD_|LC_|LANG$|TZ$|MALLOC_|OPENSSL_")
#: With these, a process measures its coverage. A forked command begins to measure by itself.
COVERAGE = "COVERAGE_PROCESS"


class Forked:
    """A forked command, with those members of asyncio.subprocess.Process that tests use."""

    def __init__(self, pid: int, told: asyncio.StreamReader, teller: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told
        self._teller = teller
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def ordered(cls, own: socket.socket, order: Order) -> Self:
        """The command of the order that goes out on this socket."""
        own.sendall(msgspec.json.encode(order) + b"\n")
        told, teller = await asyncio.open_unix_connection(sock=own)
        return cls(int(await told.readline()), told, teller)

    async def wait(self) -> int:
        """The exit code, or the negative number of the signal that ended it."""
        return await asyncio.shield(self._watching)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError after the end."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _watch(self) -> int:
        self.returncode = int(await self._told.readline())
        self._teller.close()
        await self._teller.wait_closed()
        return self.returncode


Process = Forked | asyncio.subprocess.Process


@dataclass(frozen=True)
class Streams:
    """What a command reads and writes; open files."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]


@contextmanager
def into(output: Path) -> Iterator[Streams]:
    """All that is written goes into a new file; there is nothing to read."""
    with output.open("wb") as file, Path(os.devnull).open("rb") as nothing:
        yield Streams(nothing, file, file)


@dataclass(frozen=True)
class Launcher:
    """Starts commands of refresher."""

    orders: socket.socket  # to the fork server
    environment: Mapping[str, str]  # that of the fork server

    async def start(
        self, *arguments: str, environment: Mapping[str, str], folder: Path, streams: Streams
    ) -> Process:
        """A process that runs `python -m refresher` with these arguments in the folder."""
        if _read_at_start(environment) != _read_at_start(self.environment):
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "refresher", *arguments),
                env=environment,
                cwd=folder,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
            )
        own, servers = socket.socketpair()
        with servers:
            files = (servers, streams.stdin, streams.stdout, streams.stderr)
            socket.send_fds(self.orders, [b"x"], [file.fileno() for file in files])
        return await Forked.ordered(own, Order(list(arguments), dict(environment), str(folder)))

    async def run(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        folder: Path,
        given: bytes = b"",
        seconds: float = 60,
    ) -> tuple[int, str, str]:
        """Run a command to its end; (exit code, stdout, stderr). Raises TimeoutError.

        `given` comes through a pipe as stdin: at most 64 KiB.
        """
        with ExitStack() as stack:
            stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            streams = Streams(stack.enter_context(_piped(given)), stdout, stderr)
            process = await self.start(
                *arguments, environment=environment, folder=folder, streams=streams
            )
            try:
                code = await asyncio.wait_for(process.wait(), seconds)
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            return code, _written(stdout), _written(stderr)


@contextmanager
def launching() -> Iterator[Launcher]:
    """A launcher with a fork server of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(COVERAGE)
    }
    orders, servers = socket.socketpair()
    with orders:
        with servers:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(servers.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[servers.fileno()],
            )
        yield Launcher(orders, environment)
    server.wait()


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if READ_AT_START.match(name)}


def _piped(given: bytes) -> IO[bytes]:
    """The end of a pipe from which this is read."""
    readable, writable = os.pipe()
    with os.fdopen(writable, "wb") as pipe:
        pipe.write(given)
    return os.fdopen(readable, "rb")


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
