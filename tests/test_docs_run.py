"""Every command of README, docs/, ops/ and help runs as written, beside a daemon at work."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from refresher.cli.commands import app
from tests.conftest import PATIENCE_SECONDS, environment, free_port
from tests.documented import PAGES, PROGRAM, ROOT, blocks, commands, in_sentences, scripts
from tests.faults import programs
from tests.receiver import SECRET, receiving
from tests.unit.test_examples import example_of
from tests.unit.test_reference import commands as help_of

#: The tables of an application that docs/attach.md and the help speak of.
APPLICATION = """
CREATE TABLE users (id bigint PRIMARY KEY, tiktok_open_id text UNIQUE);
CREATE TABLE clips (user_id bigint REFERENCES users, tiktok_id text, cover_url text,
    cover_expires timestamptz, UNIQUE (user_id, tiktok_id));
CREATE TABLE identities (uid text, provider text, access_token text, expires_at timestamptz,
    refresh_token text, refresh_expires_at timestamptz, UNIQUE (provider, uid));
CREATE TABLE videos (open_id text, tiktok_id text, PRIMARY KEY (open_id, tiktok_id));
"""
ATTACHED = "attach --table public.videos --video-id tiktok_id --account open_id"
OPEN_ID, VIDEO_ID = "-000abc", "7077642457847994444"
#: An account to be removed.
LEAVING = "-000xyz"
#: A key of the Fernet kind.
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
#: What stands in the docs for something else. The port and the URLs are added by each test.
FILLED = {
    "accounts remove OPEN_ID": f"accounts remove {LEAVING}",  # all other commands need the other
    "accounts import FILE.csv": "accounts import accounts.csv",
    "videos import FILE.csv": "videos import videos.csv",
    "--account OPEN_ID": f"--account {OPEN_ID}",
    "OPEN_ID": OPEN_ID,
    "VIDEO_ID": VIDEO_ID,
    "HOLDER_PID": "1",
    "COMMAND": "status",
    "curl ": "curl --fail ",  # else a path that is not served would pass
    "--videos 10000000 --accounts 100000": "--videos 10000 --accounts 100",  # as fast as a test
}
#: Commands that do not end by themselves, and what they print once they serve.
LASTING = {"refresher run": "daemon.started", "refresher emulator": "http://127.0.0.1:"}
#: Programs that a machine may lack. All others are there, or the test fails.
OPTIONAL = {"curl", "jq", "openssl", "lnav", "promtool"}

DOCKER = "needs a Docker engine"
SYSTEMD = "changes the machine, and needs systemd: tests/test_service_manager.py judges the unit"
CLUSTER = "needs a cluster: tests/test_kubernetes.py and tests/deploy judge the manifests"
INDEX = "loads packages"
LONG = "takes minutes"
NAME = "the name of a command, without what it must be given"
#: What is not run here, and why.
ELSEWHERE = {
    "(umask 077 && cat > /etc/refresher/credentials/database_url)": SYSTEMD,
    ". venv/bin/activate": INDEX,
    "/opt/refresher-VERSION/bin/pip install .": INDEX,
    "cp ops/systemd/refresher.service /etc/systemd/system/": SYSTEMD,
    "install -d -m 700 /etc/refresher/credentials": SYSTEMD,
    "systemctl enable --now --no-block refresher": SYSTEMD,
    "systemctl restart refresher": SYSTEMD,
    "systemctl status refresher": SYSTEMD,
    "systemd-run --pipe --wait -p DynamicUser=yes -p LoadCredential=refresher:/etc/refresher/credentials"
    "   /opt/refresher/bin/refresher migrate": SYSTEMD,
    "systemd-run --pipe --wait -p DynamicUser=yes -p LoadCredential=refresher:/etc/refresher/credentials"
    "   /opt/refresher-VERSION/bin/refresher migrate": SYSTEMD,
    "curl -m 5": NAME,
    'docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag registry.example.com/cover-refresher:0.1.0 .': DOCKER,
    "docker compose": NAME,
    "docker compose --profile demo down --volumes": DOCKER,
    "docker compose --profile demo up --build --wait": DOCKER,
    "docker compose build": DOCKER,
    "docker compose config": DOCKER,
    "docker compose exec db psql -U refresher": DOCKER,
    "docker compose exec refresher cat /run/secrets/refresher_token_keys": DOCKER,
    "docker compose exec refresher refresher status": DOCKER,
    "docker compose logs --no-log-prefix refresher > refresher.log": DOCKER,
    "docker compose logs -f refresher": DOCKER,
    "docker compose run --rm -T refresher accounts import - < accounts.csv": DOCKER,
    "docker compose stop": DOCKER,
    "docker compose up --build --wait": DOCKER,
    "docker compose up --no-deps --wait refresher": DOCKER,
    "docker compose up --wait": DOCKER,
    "docker inspect": NAME,
    "docker push registry.example.com/cover-refresher:0.1.0": DOCKER,
    "chmod 600": NAME,
    "kill -9": NAME,
    "kubectl apply -f ops/kubernetes/migrate.yaml": CLUSTER,
    "kubectl apply -k ops/kubernetes": CLUSTER,
    "kubectl delete --ignore-not-found -f ops/kubernetes/migrate.yaml": CLUSTER,
    "kubectl create secret generic refresher-secrets --from-file=secrets": CLUSTER,
    "kubectl exec deploy/refresher -- refresher status": CLUSTER,
    "kubectl rollout status deployment/refresher": CLUSTER,
    "kubectl wait --for=condition=complete --timeout=10m job/refresher-migrate": CLUSTER,
    "ln -sfn /opt/refresher-VERSION /opt/refresher": SYSTEMD,
    "lnav refresher.log": "opens a screen: tests/test_lnav.py",
    "make bench": LONG,
    "make bench PYTHON=/usr/bin/python3": LONG,
    "make chaos SEED=… CHAOS_SECONDS=… CHAOS_RUNS=…": LONG,
    "make demo": "until Ctrl-C: tests/test_cli.py",
    "make sbom": "tests/deploy/test_sbom.py",
    "make sbom PYTHON=python3.13": INDEX,
    "make test": "runs this test",
    "make test-patroni": "tests/patroni/test_patroni.py",
    "pg_restore --disable-triggers": NAME,
    "pg_restore --no-owner": NAME,
    "pip install '.[demo]'": INDEX,
    "pip install '.[plot]'": INDEX,
    "pip install '.[testing]'": INDEX,
    "pip install .": INDEX,
    "python -m benchmarks.app_limit": LONG,
    "python -m benchmarks.bad_accounts": LONG,
    "python -m benchmarks.blocking_trigger": LONG,
    "python -m benchmarks.doctor": LONG,
    "python -m benchmarks.flat": LONG,
    "python -m benchmarks.footprint --against FOLDER": LONG,
    "python -m benchmarks.hot_updates": LONG,
    "python -m benchmarks.attached_writes": LONG,
    "python -m benchmarks.insert_to_claim": LONG,
    "python -m benchmarks.insert_to_claim --inserting 2": LONG,
    "python -m benchmarks.insert_to_cover --against FOLDER": LONG,
    "python -m benchmarks.takeover --against FOLDER": LONG,
    "python -m benchmarks.operations_load": LONG,
    "python -m benchmarks.operators": LONG,
    "python -m benchmarks.partitions": LONG,
    "python -m benchmarks.quota": LONG,
    "python -m benchmarks.replicas": LONG,
    "python -m benchmarks.soak": LONG,
    "python -m benchmarks.start_up": LONG,
    "python -m benchmarks.write_back_triggers": LONG,
    "python -m refresher": NAME,
    "python3 -m venv /opt/refresher-VERSION": INDEX,
    "python3 -m venv venv": INDEX,
    "refresher accounts pause": NAME,
    "refresher accounts remove": NAME,
    "refresher accounts remove OPEN_ID": "asks on a terminal: tests/test_removal.py",
    "refresher accounts resume": NAME,
    "refresher attach": NAME,
    "refresher attach --check": NAME,
    "refresher attach --print-sql": NAME,
    "refresher simulate": NAME,
}


def test_what_is_not_run_here_still_occurs():
    """Otherwise its line may go."""
    assert ELSEWHERE.keys() <= commands()


def test_a_block_of_commands_says_so():
    """By its language, `sh`, `console` or `crontab`: what has none is output."""
    for page in PAGES:
        outputs = [lines for language, lines in blocks(page) if not language]
        assert not [line for lines in outputs for line in lines if PROGRAM.match(line)]


@dataclass
class Terminal:
    """Takes commands in a folder with the files of a clone."""

    refresher: object  # the fixtures
    start: object
    folder: Path
    settings: dict[str, object]
    filled: dict[str, str]
    lasting: list[object] = field(default_factory=list)  # commands that go on
    complaints: list[tuple[object, ...]] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)  # programs

    async def take(self, line):
        """Run a command to its end, or until it serves."""
        for written, meant in self.filled.items():
            line = line.replace(written, meant)
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.settings[name.removeprefix("REFRESHER_").lower()] = value
        elif served := LASTING.get(" ".join(words[:2])):
            await self._serve(words[1:], served)
        elif words[0] == "refresher" and shlex.join(words) == line:
            self._judge(line, *await self.refresher(*words[1:], **self.settings))
        elif lacking := {name for name in OPTIONAL.intersection(words) if not shutil.which(name)}:
            self.lacking |= lacking
        else:
            self._judge(line, *await self._shell(line))

    async def _serve(self, words, served):
        settings = {**self.settings, "http_listen": f"127.0.0.1:{free_port()}"}
        command = await self.start(command=shlex.join(words), **settings)
        self.lasting.append(command)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while served not in command.output.read_text():
                assert command.process.returncode is None, command.output.read_text()
                await asyncio.sleep(0.05)

    async def close(self):
        """End what serves, as Ctrl-C does."""
        for command in self.lasting:
            self._judge(command, await command.stopped(signal.SIGINT), "", "")
        self.lasting.clear()

    def judge(self):
        """Fail for what went wrong; skip, with their names, where programs are missing."""
        assert self.complaints == []
        if self.lacking:
            pytest.skip(f"not installed: {', '.join(sorted(self.lacking))}; all else has run")

    async def _shell(self, line):
        names = environment(str(self.settings["database_url"]), **self.settings)
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-o", "pipefail", "-c", line),
            env=names,
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,  # which programs use as they like
            start_new_session=True,
        )
        # Too late, it ends with all that it runs, and its code says so.
        alarm = asyncio.get_running_loop().call_later(
            PATIENCE_SECONDS, os.killpg, shell.pid, signal.SIGKILL
        )
        out, _ = await shell.communicate()
        alarm.cancel()
        return shell.returncode, out.decode(), ""

    def _judge(self, line, code, out, err):
        """Nothing is to be heard of a command that did its work."""
        if code or err or "Traceback" in out:
            self.complaints.append((line, code, err))


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the files that commands name: the home of who types them."""
    path = [str(Path(sys.executable).parent), str(programs()), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "accounts.csv").write_text(
        f"open_id,access_token\n{OPEN_ID},act.one\n{LEAVING},act.two\n"
    )
    (tmp_path / "videos.csv").write_text(f"open_id,video_id\n{OPEN_ID},{VIDEO_ID}\n")
    shutil.copy(ROOT / ".env.example", tmp_path)
    for rules in ("alerts.yml", "alerts_test.yml"):
        shutil.copy(ROOT / "ops" / "prometheus" / rules, tmp_path)
    (tmp_path / "refresher").mkdir()
    (tmp_path / "refresher" / "sample").symlink_to(ROOT / "refresher" / "sample")
    (tmp_path / "ops").symlink_to(ROOT / "ops")
    (tmp_path / "refresher.log").symlink_to("daemon-0.log")
    return tmp_path


@pytest.fixture
async def receiver():
    """Takes webhooks."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def fonts():
    """Matplotlib's list of the machine's fonts: whoever makes it first may be told to wait."""
    import_module("matplotlib.font_manager")


@pytest.fixture
async def terminal(fonts, clone, database, empty_database, refresher, start, serve, receiver):
    """A terminal with the settings of a daemon that has refreshed a cover, and has a table attached."""
    world = await serve()
    world.emulator.add_account(OPEN_ID, "act.one")
    world.emulator.add_account(LEAVING, "act.two")
    world.emulator.add_video(OPEN_ID, VIDEO_ID)
    settings = {
        "database_url": database,
        "tiktok_base_url": world.base_url,
        "token_keys": KEY,
        "tiktok_client_key": "key-of-the-app",
        "tiktok_client_secret": "secret-of-the-app",
        "http_listen": f"127.0.0.1:{free_port()}",
        "webhook_url": receiver.url,
        "webhook_secret": SECRET,
    }
    for kind in ("accounts", "videos"):
        assert (await refresher(kind, "import", f"{kind}.csv", **settings))[0] == 0
    await world.pool.execute(APPLICATION)
    assert (await refresher(*ATTACHED.split(), **settings))[0] == 0
    daemon = await start(**settings)
    await daemon.until_event("account.refreshed")
    port = str(free_port())
    filled = FILLED | {
        "postgresql://user:password@host:5432/database": empty_database,
        "--port 8090": f"--port {port}",
        "http://127.0.0.1:8090": f"http://127.0.0.1:{port}",
        "HOST:8080": settings["http_listen"],
    }
    yield Terminal(refresher, start, clone, settings, filled)
    assert await daemon.stopped() == 0


@pytest.mark.long
async def test_the_blocks_of_the_pages_run(terminal):
    """Page by page, each block in a new shell. What serves goes on until the end of its page."""
    settings = terminal.settings
    for page in PAGES:
        for block in scripts(page):
            terminal.settings = dict(settings)
            for line in block:
                if line not in ELSEWHERE:
                    await terminal.take(line)
        await terminal.close()
    terminal.judge()


async def test_the_commands_in_sentences_run(terminal):
    """Each once, in the order of the pages."""
    for line in dict.fromkeys(line for page in PAGES for line in in_sentences(page)):
        if line not in ELSEWHERE:
            await terminal.take(line)
    await terminal.close()
    terminal.judge()


async def test_the_examples_in_the_help_run(terminal):
    """Of each command but `demo`, which tests/test_cli.py runs."""
    for name, command in help_of(typer.main.get_command(app)):
        if name != "demo":
            await terminal.take(example_of(command)[1])
    await terminal.close()
    terminal.judge()
