"""Patroni as people run it: an etcd and three nodes, each with its PostgreSQL, on this machine."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError

import psutil

from refresher.embedded import folder_for_servers, server_user
from tests.conftest import free_port

#: Debian's. Its Patroni does not know the versions of PostgreSQL that came after it.
POSTGRES = Path("/usr/lib/postgresql/15/bin")
PROGRAMS = ("patroni", "etcd", POSTGRES / "postgres")
NODES = 3
#: Also on a machine that others keep busy.
WHOLE_SECONDS = 180.0
REST_SECONDS = 2.0
#: Patroni's own defaults, which most clusters keep: a leader that is not heard of for `ttl` is
#: replaced, and looks at itself every `loop_wait`.
TTL_SECONDS = 30
LOOP_WAIT_SECONDS = 10
RETRY_TIMEOUT_SECONDS = 10


def missing_programs() -> list[str]:
    """What a cluster needs and this machine lacks."""
    return [str(program) for program in PROGRAMS if not shutil.which(program)]


@dataclass
class Node:
    """A machine of the cluster: Patroni, and the PostgreSQL that it looks after."""

    name: str
    folder: Path
    port: int  # of PostgreSQL
    rest_port: int
    patroni: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.patroni = _started(self.folder / "log", "patroni", self.folder / "patroni.json")

    def kill(self) -> None:
        """The machine is gone: no process of it does anything more."""
        self._signal_all(signal.SIGKILL)
        if self.patroni:
            self.patroni.wait()

    def pause(self) -> None:
        """The virtual machine stands still. Connections to it stay, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal_all(signal.SIGCONT)

    def processes(self) -> list[psutil.Process]:
        """Patroni first: it is not to mend what happens to the others."""
        found: list[psutil.Process] = []
        for first in (self._patroni(), self._postmaster()):
            with suppress(psutil.NoSuchProcess):
                found += [first, *first.children(recursive=True)] if first else []
        return found

    def _patroni(self) -> psutil.Process | None:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.patroni.pid) if self.patroni else None
        return None

    def _postmaster(self) -> psutil.Process | None:
        """None while there is none: the file of a killed one may name a process of others."""
        data = self.folder / "data"
        with suppress(OSError, IndexError, ValueError, psutil.Error):
            process = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
            return process if str(data) in process.cmdline() else None
        return None

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@dataclass
class Cluster:
    """The nodes. Those in `away` are known to be dead or silent: nobody asks them."""

    nodes: Sequence[Node]
    database: str = "postgres"
    away: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """For daemons: all nodes, as documented."""
        return self._url_of(self.nodes)

    @property
    def url_of_those_there(self) -> str:
        """For those who look on and must not wait for what is known to be away."""
        return self._url_of([node for node in self.nodes if node.name not in self.away])

    def url_of(self, node: Node) -> str:
        return f"postgresql://postgres@127.0.0.1:{node.port}/{self.database}"

    def members(self) -> list[dict[str, Any]]:
        """What Patroni says of its members; none where nobody says it."""
        for node in self.nodes:
            with suppress(OSError, URLError, ValueError):
                address = f"http://127.0.0.1:{node.rest_port}/cluster"
                if node.name not in self.away:
                    with urllib.request.urlopen(address, timeout=REST_SECONDS) as answer:
                        return list(json.load(answer)["members"])
        return []

    def leader(self) -> Node | None:
        """The node that leads, as Patroni says."""
        by_role = {member["role"]: member["name"] for member in self.members()}
        return next((node for node in self.nodes if node.name == by_role.get("leader")), None)

    def is_whole(self) -> bool:
        """Every node is there and follows, and one standby is synchronous."""
        members = self.members()
        roles = sorted(member["role"] for member in members)
        return (
            roles == ["leader", "replica", "sync_standby"]
            and all(member["state"] in {"running", "streaming"} for member in members)
            and len({member.get("timeline") for member in members}) == 1
            and not any(member.get("lag") for member in members)
        )

    def wait_until_whole(self) -> None:
        """Raises TimeoutError; says what Patroni says."""
        ends_at = monotonic() + WHOLE_SECONDS
        while not self.is_whole():
            if monotonic() > ends_at:
                raise TimeoutError(f"no whole cluster: {self.members()}{self._last_words()}")
            sleep(0.2)

    def switch_over(self, leader: Node) -> None:
        """As `patronictl switchover` does; returns when Patroni says it is done."""
        order = urllib.request.Request(
            f"http://127.0.0.1:{leader.rest_port}/switchover",
            json.dumps({"leader": leader.name}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(order, timeout=WHOLE_SECONDS) as answer:
            answer.read()

    def _url_of(self, nodes: Sequence[Node]) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        return f"postgresql://postgres@{hosts}/{self.database}?target_session_attrs=read-write"

    def _last_words(self) -> str:
        texts = [(node.folder / "log").read_text(errors="replace") for node in self.nodes]
        return "".join("\n" + "\n".join(text.splitlines()[-8:]) for text in texts)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A whole cluster. All its processes are gone afterwards, whatever happens."""
    with folder_for_servers() as folder, ExitStack() as stack:
        etcd_port = _start_etcd(folder, stack)
        nodes = [_node(folder, number, etcd_port) for number in range(NODES)]
        cluster = Cluster(nodes)
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        cluster.wait_until_whole()
        yield cluster


def _start_etcd(folder: Path, stack: ExitStack) -> int:
    port, peers = free_port(), free_port()
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    etcd = _started(
        folder / "etcd.log",
        "etcd",
        *("--name", "one", "--data-dir", folder / "etcd", "--enable-v2"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"one={peer}"),
    )
    stack.callback(etcd.wait)
    stack.callback(etcd.kill)
    return port


def _node(folder: Path, number: int, etcd_port: int) -> Node:
    node = Node(f"node-{number}", folder / f"node-{number}", free_port(), free_port())
    node.folder.mkdir()
    _hand_over(node.folder)
    settings = node.folder / "patroni.json"
    settings.write_text(json.dumps(_settings(node, etcd_port)))  # YAML takes it
    _hand_over(settings)
    return node


def _settings(node: Node, etcd_port: int) -> dict[str, Any]:
    rest, own = f"127.0.0.1:{node.rest_port}", f"127.0.0.1:{node.port}"
    return {
        "scope": "refresher",
        "name": node.name,
        "restapi": {"listen": rest, "connect_address": rest},
        # Not "etcd3": over it, this Patroni's paused leader takes the key back from its successor,
        # without a look at whose it is. Over this one it compares.
        "etcd": {"host": f"127.0.0.1:{etcd_port}"},
        "bootstrap": {
            "dcs": {
                "ttl": TTL_SECONDS,
                "loop_wait": LOOP_WAIT_SECONDS,
                "retry_timeout": RETRY_TIMEOUT_SECONDS,
                # What was committed is on two nodes, and one of these is promoted.
                "synchronous_mode": True,
                "postgresql": {
                    # What the old primary alone has written goes, and it follows the new one.
                    "use_pg_rewind": True,
                    "parameters": {"max_connections": 100, "shared_buffers": "32MB"},
                },
            },
            "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"],
        },
        "postgresql": {
            "listen": own,
            "connect_address": own,
            "data_dir": str(node.folder / "data"),
            "bin_dir": str(POSTGRES),
            "pgpass": str(node.folder / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
                "rewind": {"username": "rewinder"},
            },
            "pg_hba": [
                "host all all 127.0.0.1/32 trust",
                "host replication all 127.0.0.1/32 trust",
            ],
            "parameters": {
                "unix_socket_directories": "",
                # Processes are killed, no machine: the system still writes what they wrote.
                "fsync": "off",
            },
        },
        "watchdog": {"mode": "off"},
    }


def _hand_over(path: Path) -> None:
    if user := server_user():
        shutil.chown(path, user)


def _started(log: Path, *command: object) -> "subprocess.Popen[bytes]":
    """A program as the servers' user. Its output goes on in `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=server_user(),
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
