"""What a service manager hears of a daemon, at a real socket; and the unit for systemd."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from refresher.postgres.migrate import migrate
from refresher.service_manager import ServiceManager
from tests import faults
from tests.conftest import environment, eventually, free_port
from tests.proxy import Proxy

UNIT = Path(__file__).parents[1] / "ops" / "systemd" / "refresher.service"
#: Above it, something that a daemon does not need has been opened. In tenths.
HIGHEST_EXPOSURE = 11
#: A watchdog of 0.6 s is fed every 0.2 s.
WATCHDOG = {"WATCHDOG_USEC": "600000"}
STARVED_SECONDS = 3.0

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


class Manager:
    """The side of the service manager: a datagram socket, and what came there."""

    def __init__(self, bound):
        self.bound = bound
        self.heard = []

    def messages(self):
        """All that has come so far, each as its lines."""
        while True:
            try:
                self.heard.append(self.bound.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return self.heard

    def count(self, line):
        return sum(line in message for message in self.messages())

    async def until(self, line, times=1):
        async def has_come():
            return self.count(line) >= times

        await eventually(has_come, f"{times} times {line}")

    async def until_starved(self):
        """Until the watchdog was not fed for several times its own time."""
        fed, since = self.count("WATCHDOG=1"), monotonic()

        async def is_starved():
            nonlocal fed, since
            if self.count("WATCHDOG=1") > fed:
                fed, since = self.count("WATCHDOG=1"), monotonic()
            return monotonic() - since > STARVED_SECONDS

        await eventually(is_starved, "a watchdog that is not fed")


@contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address)
        bound.setblocking(False)
        yield Manager(bound)


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """One that daemons of this test report to."""
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", WATCHDOG["WATCHDOG_USEC"])
    with listening(address) as manager:
        yield manager


async def test_it_hears_of_a_whole_life(serve, start, manager):
    """Ready once, then the watchdog is fed, at last that the daemon stops."""
    world = await serve()
    await world.add_account("ana", videos=3)
    daemon = await start(world)
    await manager.until("WATCHDOG=1", times=3)
    assert daemon.events("daemon.started")
    assert manager.count("STOPPING=1") == 0
    await manager.until("STATUS=0 requests in flight, 3 videos asked for so far")
    assert await daemon.stopped() == 0
    heard = manager.messages()
    assert manager.count("READY=1") == manager.count("STOPPING=1") == 1
    assert heard[0] == ["STATUS=waiting for the database"]
    assert "READY=1" in heard[1]
    assert ["STOPPING=1", "STATUS=stopping"] in heard


async def test_a_daemon_without_a_database_is_not_ready(start, manager):
    """It waits, for as long as it takes, and stops when it is told to."""
    daemon = await start(database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/x")
    await daemon.until_event("database.lost")
    assert await daemon.stopped() == 0
    assert manager.messages() == [
        ["STATUS=waiting for the database"],
        ["STOPPING=1", "STATUS=stopping"],
    ]


async def test_a_daemon_without_its_tables_is_not_ready(start, empty_database, manager):
    """It ends with 2: no restart would help."""
    daemon = await start(database_url=empty_database)
    assert await daemon.ended() == 2
    assert manager.count("READY=1") == 0


async def test_an_outage_does_not_starve_the_watchdog(start, manager):
    """While the database is away the loop turns on: a restart would mend nothing."""
    with faults.own_server() as server:
        await migrate(server.url)
        await _lose_the_database(start, server, manager)


async def _lose_the_database(start, server, manager):
    async with Proxy("127.0.0.1", server.port) as proxy:
        daemon = await start(database_url=server.url_of("postgres", proxy.port))
        await manager.until("READY=1")
        await proxy.refuse()
        proxy.cut()
        await manager.until("STATUS=the database is away")
        fed = manager.count("WATCHDOG=1")
        await manager.until("WATCHDOG=1", times=fed + 3)
        assert await daemon.stopped() == 0


#: What makes a daemon stick once it is ready, and never before.
STUCK = {
    "the loop of the process": "asyncio.get_running_loop().call_later(0.5, time.sleep, 600)",
    "the claims": "loop.Refresher._claim = lambda _self: asyncio.Event().wait()",
}


@pytest.mark.parametrize("fault", STUCK.values(), ids=STUCK)
async def test_a_stuck_daemon_starves_the_watchdog(serve, database, tmp_path, manager, fault):
    """Then systemd sends SIGABRT, and Python says in which line it was stuck."""
    program = f"""
        import asyncio, sys, time
        from refresher import app, cli
        from refresher.flow import loop

        app.LONGEST_TURN_SECONDS = 0.5
        work = app.work

        async def stuck(*arguments):
            {fault}
            await work(*arguments)

        app.work = stuck
        sys.argv[1:] = ["run"]
        cli.main()
    """
    world = await serve()
    settings = environment(database, tiktok_base_url=world.base_url, poll_seconds=0.1)
    with (tmp_path / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)),
            env=settings,
            stdout=output,
            stderr=output,
        )
    try:
        await manager.until("READY=1")
        await manager.until_starved()
        process.send_signal(signal.SIGABRT)
        assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGABRT
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "Fatal Python error: Aborted" in (tmp_path / "output").read_text()


async def test_an_abstract_socket_is_reached():
    """`@` stands for the NUL that such an address begins with."""
    name = f"refresher-{os.getpid()}-{monotonic()}"
    with listening(f"\0{name}") as manager:
        told = ServiceManager({"NOTIFY_SOCKET": f"@{name}", **WATCHDOG}, os.getpid())
        attending = asyncio.create_task(told.attend(lambda: True, lambda: "fine"))
        await manager.until("WATCHDOG=1")
        attending.cancel()
    assert manager.heard[0] == ["STATUS=fine", "READY=1"]


async def test_ready_is_said_again_until_it_is_heard(tmp_path):
    """A manager that has no time just now is not waited for, and hears it later."""
    address = str(tmp_path / "notify")
    told = ServiceManager({"NOTIFY_SOCKET": address, **WATCHDOG}, os.getpid())
    attending = asyncio.create_task(told.attend(lambda: True, lambda: "fine"))
    await asyncio.sleep(0)  # the first attempt finds nobody
    with listening(address) as manager:
        await manager.until("WATCHDOG=1")
        attending.cancel()
    assert [message[1] for message in manager.heard[:2]] == ["READY=1", "WATCHDOG=1"]


@pytest.mark.parametrize("given", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
async def test_without_a_socket_nobody_is_told(given):
    """Also where it is of a kind that we do not know: at once, and without an error."""
    told = ServiceManager(given, os.getpid())
    told.waits()
    await told.attend(lambda: True, lambda: "fine")
    told.stops()


def analyzed(tmp_path, *arguments):
    """What systemd says of the unit, which here starts the refresher of this environment."""
    unit = tmp_path / UNIT.name
    program = str(Path(sys.executable).with_name("refresher"))
    unit.write_text(UNIT.read_text().replace("/opt/refresher/bin/refresher", program))
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments, unit],
        capture_output=True,
        text=True,
        check=False,
    )


@needs_systemd
def test_the_unit_is_one(tmp_path):
    """Each line is known to systemd and has a value that it takes: it would only warn."""
    done = analyzed(tmp_path, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_unit_exposes_little(tmp_path):
    """By systemd's own measure."""
    done = analyzed(tmp_path, "security", "--offline=true", f"--threshold={HIGHEST_EXPOSURE}")
    assert done.returncode == 0, done.stdout + done.stderr
