"""docker-compose.yml on a real Docker engine: run by `make test-compose`, not by `make test`.

Each test brings up what it needs by itself, which costs little where it is up already.
"""

import csv
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from refresher.demo import SAMPLE_VIDEOS
from refresher.emulator.videos import video_of

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]

#: As docker-compose.yml tells the emulator, and the sample account whose token is dead.
COVER_TTL_SECONDS, MISSING_SHARE, DEAD_ACCOUNT = 60, 0.02, "sample-account-20"

#: A lease of a killed replica runs out after 60 s, then the due covers follow within seconds.
TAKEOVER_SECONDS = 120


@dataclass(frozen=True)
class Stack:
    """One compose project, independent of the operator's .env and environment."""

    project: str
    profile: str

    def __call__(self, *arguments: str) -> str:
        return docker(
            "compose",
            f"--project-name={self.project}",
            f"--file={ROOT / 'docker-compose.yml'}",
            "--env-file=/dev/null",
            f"--profile={self.profile}",
            *arguments,
        )

    def up(self) -> None:
        self("up", "--build", "--wait", "--scale=refresher=1")

    def containers(self, service: str) -> list[dict[str, Any]]:
        ids = self("ps", "--all", "--quiet", service).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids))
        return found

    def states(self, service: str) -> list[str]:
        """`healthy` or the like for a container that has a health check, else its exit code."""
        states = [container["State"] for container in self.containers(service)]
        return [
            state["Health"]["Status"] if "Health" in state else str(state["ExitCode"])
            for state in states
        ]

    def execute(self, service: str, *command: str) -> str:
        return self("exec", "--no-TTY", service, *command)

    def query(self, sql: str) -> str:
        psql = ("psql", "--username=refresher", "--tuples-only", "--no-align", "--command")
        return self.execute("db", *psql, sql).strip()

    def valid_covers(self) -> int:
        return int(
            self.query("SELECT count(*) FROM refresher.videos WHERE cover_expires_at > now()")
        )


def docker(*arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REFRESHER_")}
    done = subprocess.run(
        ["docker", *arguments],
        env=kept,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


@contextmanager
def project(name: str, profile: str) -> Iterator[Stack]:
    """A compose project of which nothing is left afterwards, not even its image."""
    stack = Stack(name, profile)
    stack("down", "--volumes", "--remove-orphans")
    try:
        stack.up()
        yield stack
    finally:
        stack("down", "--volumes", "--remove-orphans")
        docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with project("cover-refresher-test", "demo") as stack:
        yield stack


@pytest.fixture
def demo(running: Stack) -> Stack:
    """The demo with one replica, its covers valid."""
    running.up()
    eventually(lambda: running.valid_covers() == reachable_videos(), "all reachable covers valid")
    return running


def reachable_videos() -> int:
    """How many sample videos the emulator of docker-compose.yml answers for."""
    with SAMPLE_VIDEOS.open(newline="") as file:
        return sum(
            row["open_id"] != DEAD_ACCOUNT
            and video_of(row["video_id"]).missing_rank >= MISSING_SHARE
            for row in csv.DictReader(file)
        )


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain for {what}")
        time.sleep(1)


def test_the_demo_profile_comes_up_healthy_and_refreshes_every_reachable_cover(demo: Stack):
    """One `up --wait`: long-running services are healthy, one-shots ended well, covers are valid."""
    for service in ("db", "refresher", "emulator"):
        assert demo.states(service) == ["healthy"], service
    for service in ("credentials", "migrate", "sample-data"):
        assert demo.states(service) == ["0"], service


def test_without_the_demo_profile_it_asks_the_real_tiktok_and_nothing_is_imported():
    """The same file with nothing configured: healthy, no accounts, TikTok's own address."""
    with project("cover-refresher-test-plain", "none") as stack:
        assert stack.states("refresher") == ["healthy"]
        assert stack.query("SELECT count(*) FROM refresher.accounts") == "0"
        assert '"base_url":"https://open.tiktokapis.com"' in stack("logs", "refresher")


def test_the_refresher_is_confined(demo: Stack):
    """Not root, no capability, no way to gain any, nothing to write to, and limits."""
    status = demo.execute("refresher", "cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["10001"] * 4
    assert int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    attempt = "touch /opt/venv/x /run/secrets/x 2>&1 || true"
    assert demo.execute("refresher", "sh", "-c", attempt).count("Read-only file system") == 2
    [container] = demo.containers("refresher")
    limits = container["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["NanoCpus"] > 0
    assert limits["PidsLimit"] > 0
    assert not container["NetworkSettings"]["Ports"].get("8080/tcp")


def test_three_replicas_keep_the_covers_valid(demo: Stack, monkeypatch: pytest.MonkeyPatch):
    """As many as REPLICAS says, at every `up`; over more than a cover's lifetime none expires."""
    monkeypatch.setenv("REPLICAS", "3")
    for _ in range(2):
        demo("up", "--build", "--wait")
        assert demo.states("refresher") == ["healthy"] * 3
    since = demo.query("SELECT now()")
    end = time.monotonic() + COVER_TTL_SECONDS + 5
    while time.monotonic() < end:
        assert demo.valid_covers() == reachable_videos()
        time.sleep(1)
    assert refreshed_since(demo, since) == reachable_videos()


def test_a_killed_refresher_is_restarted_and_goes_on(demo: Stack):
    """SIGKILL from outside: a new process, healthy again, and every cover refreshed again."""
    [before] = demo.containers("refresher")
    # From a container that sees the engine's processes: works wherever the engine runs, while
    # `docker kill` counts as the operator's wish and stops the restarting.
    kill = f"kill -9 {before['State']['Pid']}"
    docker(
        *("run", "--rm", "--pid=host", "--user=0", "--entrypoint=sh", before["Image"], "-c", kill)
    )
    since = demo.query("SELECT now()")
    restarts = before["RestartCount"] + 1
    eventually(lambda: demo.containers("refresher")[0]["RestartCount"] == restarts, "a restart")
    eventually(lambda: demo.states("refresher") == ["healthy"], "health after the restart")
    eventually(
        lambda: refreshed_since(demo, since) == reachable_videos() == demo.valid_covers(),
        "all reachable covers refreshed by the new process",
        TAKEOVER_SECONDS,
    )


def refreshed_since(stack: Stack, since: str) -> int:
    return int(stack.query(f"SELECT count(*) FROM refresher.videos WHERE refreshed_at > '{since}'"))


def test_stop_drains(demo: Stack):
    """`docker compose stop`: exit code 0, the last word logged, no lease left."""
    demo("stop", "refresher")
    assert demo.states("refresher") != ["healthy"]
    [container] = demo.containers("refresher")
    assert container["State"]["ExitCode"] == 0
    assert '"event":"daemon.stopped"' in demo("logs", "refresher").splitlines()[-1]
    leases = "SELECT count(*) FROM refresher.accounts WHERE lease_expires_at IS NOT NULL"
    assert demo.query(leases) == "0"


def test_another_up_keeps_the_password_and_no_log_shows_a_secret(demo: Stack):
    """The password outlives `down`; neither it nor a token or signature is in any log."""
    password = demo.execute("db", "cat", "/run/credentials/postgres_password").strip()
    logs = demo("logs")
    demo("down")
    demo.up()
    assert demo.execute("db", "cat", "/run/credentials/postgres_password").strip() == password
    logs += demo("logs")
    assert len(password) > 30
    assert "daemon.started" in logs
    for secret in (re.escape(password), r"\b(?:act|rft)\.sample", r"x-signature=(?!\[redacted\])"):
        assert not re.search(secret, logs), secret
