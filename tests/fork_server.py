"""A process that has loaded the libraries and forks for each command.

To load them takes a new interpreter most of its half second of CPU time, and the tests start
hundreds of commands. Refresher's own modules are not loaded here: each command loads them itself,
in the order of a new interpreter. `tests/launcher.py` starts this process and sends the orders.
"""

import atexit
import gc
import os
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import NoReturn

import coverage
import msgspec

#: What commands load, by what takes longest.
LIBRARIES = (
    "aiohttp.web", "alembic.command", "alembic.config", "apscheduler.schedulers.asyncio",
    "asyncpg", "cryptography.fernet", "pydantic", "rich.live", "rich.progress",
    "rich.table", "sqlalchemy.ext.asyncio", "structlog", "typer", "uvloop",
)  # fmt: skip
#: An order comes with these: its own socket, stdin, stdout, stderr.
DESCRIPTORS = 4


class Order(msgspec.Struct):
    """A command to start."""

    arguments: list[str]  # those after `python -m refresher`
    environment: dict[str, str]  # all of it
    folder: str  # where the command runs


@dataclass
class Server:
    """Starts what is ordered, and tells each order's socket the process ID and then the end."""

    orders: socket.socket  # brings one byte and the descriptors of each order
    running: dict[int, socket.socket] = field(default_factory=dict)  # by process ID

    def next_child(self) -> Order:
        """Serve until the other side closes `orders`. Returns in each child, with its order."""
        ended, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self.orders.fileno(), ended], [], [])
            if ended in ready:
                os.read(ended, 4096)
                self._tell_ends()
            if self.orders.fileno() in ready and (order := self._start()):
                signal.set_wakeup_fd(-1)
                os.close(ended)
                os.close(wakes)
                return order

    def _start(self) -> Order | None:
        """The order in the child; None here."""
        received, descriptors, _, _ = socket.recv_fds(self.orders, 1, DESCRIPTORS)
        if not received:
            sys.exit()
        own, *streams = descriptors
        teller = socket.socket(fileno=own)
        order = msgspec.json.decode(teller.makefile("rb").readline(), type=Order)
        if child := os.fork():
            self.running[child] = teller
            _tell(teller, child)
            for stream in streams:
                os.close(stream)
            return None
        for other in (self.orders, teller, *self.running.values()):
            other.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return order

    def _tell_ends(self) -> None:
        for child, teller in list(self.running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                with self.running.pop(child):
                    _tell(teller, os.waitstatus_to_exitcode(status))


def _tell(teller: socket.socket, number: int) -> None:
    with suppress(OSError):  # the test that ordered it is over
        teller.sendall(b"%d\n" % number)


def _become(order: Order) -> None:
    """Make this child what a new interpreter of the order would be."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.path[0] = order.folder
    sys.argv[1:] = order.arguments
    coverage.process_startup()


def _exit_code() -> int:
    """Run the command; what it exits with. An error that it does not catch goes on."""
    try:
        runpy.run_module("refresher", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        raise
    return 0


def _end(code: int) -> NoReturn:
    """End as an interpreter does, except that the libraries are not taken apart.

    That would take longer than most commands do.
    """
    threading._shutdown()  # type: ignore[attr-defined] # what the interpreter calls
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    # Ctrl-C ends the commands as well: each gets the signal itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for library in LIBRARIES:
        import_module(library)
    # No command looks for garbage among what the libraries hold, nor copies its pages by that.
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a fork would lose the other threads"
    _become(Server(socket.socket(fileno=int(sys.argv[1]))).next_child())
    _end(_exit_code())


if __name__ == "__main__":
    main()
