"""docs/getting-started.md as it is written, on a real Docker engine: run by `make test-compose`.

It is the page's trial: an application of its own, in a database of its own, and the emulator in
TikTok's place. Only words in capitals are filled in.
"""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.compose.test_compose import (
    COVER_TTL_SECONDS,
    docker,
    eventually,
    reachable_videos,
)
from tests.documented import FENCED, STEPS, TIMES
from tests.faults import programs

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
PROJECT = "cover-refresher-test-first-hour"
#: The application's database server. It is no part of the compose project.
SERVER = f"{PROJECT}-database"
#: A sample video that the emulator does not leave out.
OPEN_ID, VIDEO_ID = "sample-account-01", "7370190659324534818"
LIVING = "SELECT count(*) FROM clips WHERE cover_url LIKE 'http://%' AND cover_expires > now()"


@dataclass
class Reader:
    """Does what a page says, in a clone, with a terminal of their own."""

    clone: Path
    filled: dict[str, str]  # words in capitals
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)  # what each block printed

    def take(self, language: str, text: str) -> None:
        """Do what a block is for: a shell's lines, SQL, a cron job, or lines of .env."""
        for written, meant in self.filled.items():
            text = text.replace(written, meant)
        if language == "ini":
            with (self.clone / ".env").open("a") as settings:
                settings.write(text)
        elif language == "sql":
            self.said.append(self.sql(text))
        else:
            self.environment |= dict(re.findall(r"^export (\w+)='(.*)'$", text, re.MULTILINE))
            self.said.append(self.run("bash", "-euo", "pipefail", "-c", TIMES.sub("", text)))

    def sql(self, text: str) -> str:
        options = ("--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        return self.run("psql", *options, "--command", text, self.environment["OWNER_URL"])

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            told = f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
            pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{told}")
        return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's files, as git would copy them: without anybody's .env."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


@contextmanager
def application_server() -> Iterator[str]:
    """A PostgreSQL with the application's role and database, both `app`; its host and port.

    The address is one at which containers of all networks reach it, and this test, too.
    """
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    address = docker("network", "inspect", "bridge", "--format", gateway).strip()
    docker("rm", "--force", "--volumes", SERVER)
    password = f"POSTGRES_PASSWORD={secrets.token_hex(8)}"
    published = ("--publish", f"{address}::5432")
    docker("run", "--detach", "--name", SERVER, *published, "--env", password, "postgres:17")
    try:
        eventually(_answers, "the application's database")
        yield docker("port", SERVER, "5432").splitlines()[0]
    finally:
        docker("rm", "--force", "--volumes", SERVER)


def _answers() -> bool:
    ready = ("exec", SERVER, "pg_isready", "--host=127.0.0.1", "--username=postgres")
    return not subprocess.run(["docker", *ready], capture_output=True, check=False).returncode


@pytest.fixture
def reader(clone: Path) -> Iterator[Reader]:
    """Somebody with a clone, an empty database, and nothing of the project on the engine."""
    password = secrets.token_hex(8)
    with application_server() as server:
        for statement in (
            f"CREATE ROLE app LOGIN CREATEROLE PASSWORD '{password}'",
            "CREATE DATABASE app OWNER app",
        ):
            docker("exec", SERVER, "psql", "--username=postgres", "--command", statement)
        filled = {
            "OWNER:OWNER_PASSWORD@HOST:5432/DATABASE": f"app:{password}@{server}/app",
            "HOST:5432/DATABASE": f"{server}/app",
            "DAEMON_PASSWORD": secrets.token_hex(8),
            "'CLIENT_KEY'": "'key-of-the-app'",
            "'CLIENT_SECRET'": "'secret-of-the-app'",
            "OPEN_ID": OPEN_ID,
            "VIDEO_ID": VIDEO_ID,
            "CLONE": str(clone),
        }
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("REFRESHER_")
        }
        path = os.pathsep.join([str(programs()), os.environ["PATH"]])
        named = {"PATH": path, "COMPOSE_PROJECT_NAME": PROJECT}
        reader = Reader(clone, filled, kept | named)
        away = ("docker", "compose", "--profile=demo", "down", "--volumes", "--remove-orphans")
        reader.run(*away)
        try:
            yield reader
        finally:
            reader.run(*away)
            docker("image", "rm", "--force", PROJECT)


def test_the_ten_steps_lead_from_nothing_to_production(reader: Reader):
    """At the end the application's own column holds living covers, and goes on doing so."""
    for step in re.split(r"^## ", STEPS, flags=re.MULTILINE)[1:]:
        number = int(step.partition(".")[0])
        for _, language, text in FENCED.findall(step):
            reader.take(language, text)
        if check := AFTER.get(number):
            check(reader)
    assert number == len(re.findall(r"^## \d+\. ", STEPS, re.MULTILINE)) == 10
    # From covers of before, each lives this long at most: so they were refreshed by what runs now.
    ahead = LIVING.replace("now()", f"'{reader.sql('SELECT now()').strip()}'::timestamptz")
    renewed = f"{ahead} + interval '{COVER_TTL_SECONDS} seconds'"
    eventually(
        lambda: int(reader.sql(renewed)) == reachable_videos(), "each living cover renewed", 120
    )
    assert int(reader.sql(LIVING)) == reachable_videos()


def cover_is_there(reader: Reader) -> None:
    eventually(lambda: "http://emulator" in reader.sql("TABLE refresher.videos"), "the first cover")


def own_columns_are_full(reader: Reader) -> None:
    eventually(
        lambda: int(reader.sql(LIVING)) == reachable_videos(),
        "living covers in the own column",
        120,
    )


def no_problem_was_found(reader: Reader) -> None:
    assert reader.said[-1] == ""  # of the cron job, whose news would be mailed


def backup_is_whole(reader: Reader) -> None:
    """The key that was kept opens a token of the database; the dump has both schemas."""
    sealed = reader.sql(f"SELECT access_token FROM refresher.accounts WHERE open_id = '{OPEN_ID}'")
    key = (reader.clone / "refresher_token_keys").read_text().strip()
    assert Fernet(key).decrypt(sealed.strip()).startswith(b"act.")
    listed = reader.run("pg_restore", "--list", "backup.dump")
    assert "TABLE DATA refresher accounts" in listed
    assert "TABLE DATA public clips" in listed


def two_replicas_run(reader: Reader) -> None:
    names = reader.run("docker", "compose", "ps", "--quiet", "refresher").split()
    assert len(names) == 2


#: What can be seen after these steps.
AFTER = {
    6: cover_is_there,
    7: own_columns_are_full,
    8: no_problem_was_found,
    9: backup_is_whole,
    10: two_replicas_run,
}
