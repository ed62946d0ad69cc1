"""A run's world on a Patroni cluster: a database of its own, the emulator, two daemons."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web
from cryptography.fernet import Fernet

from refresher.postgres.failures import DRIVER_ERRORS
from refresher.postgres.migrate import migrate
from refresher.postgres.sealing import Sealer
from tests.chaos.journal import Journal
from tests.chaos.replicas import Replica
from tests.chaos.stage import Stage
from tests.chaos.upstream import WatchedEmulator
from tests.chaos.world import CALM, CLIENT_KEY, CLIENT_SECRET, WITNESSES, execute, kept_port
from tests.conftest import environment
from tests.patroni.cluster import Cluster

DAEMONS = 2
#: TikTok's, and our default.
RATE_LIMIT = 600
GRACE_SECONDS = 20.0
#: So slow, and so few at once, that a full run lasts for some seconds.
UPSTREAM = replace(CALM, cover_ttl=60, rate_limit_per_token=RATE_LIMIT, latency_seconds=0.5)
CONCURRENCY = 6
#: Shorter than a daemon waits for an answer.
HELD_SECONDS = 8.0

#: A cover's commit leaves a row here. If the commit is lost, its row is.
WRITTEN = """
CREATE TABLE chaos.written (open_id text, url text);
CREATE FUNCTION chaos.note_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.written VALUES (NEW.open_id, NEW.cover_image_url);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_written AFTER UPDATE ON refresher.videos FOR EACH ROW
WHEN (NEW.cover_image_url IS DISTINCT FROM OLD.cover_image_url)
EXECUTE FUNCTION chaos.note_written();
"""


class HoldingEmulator(WatchedEmulator):
    """It renews tokens, and can hold the answers back for a while: the new pair is on its way."""

    def __init__(self) -> None:
        super().__init__(UPSTREAM)
        self.held = 0
        self._goes_out = asyncio.Event()
        self._goes_out.set()

    async def hold(self) -> None:
        """From now on, hold answers to token requests back. Returns when there is one."""
        asked = asyncio.Event()

        def on_request(_port: int) -> None:
            self.held += 1
            asked.set()

        self.on_token_request = on_request
        self._goes_out.clear()
        await asked.wait()

    def release(self) -> None:
        """Let the answers go out."""
        self.on_token_request = lambda _port: None
        self._goes_out.set()

    async def _serve_token(self, request: web.Request) -> web.Response:
        answer = await super()._serve_token(request)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._goes_out.wait(), HELD_SECONDS)
        return answer


@dataclass(kw_only=True)
class ClusterStage(Stage):
    """All parts of a run on a cluster."""

    cluster: Cluster
    upstream: HoldingEmulator  # the same as `emulator`

    @property
    def url(self) -> str:
        return self.cluster.url_of_those_there


@asynccontextmanager
async def staged(cluster: Cluster, folder: Path) -> AsyncIterator[ClusterStage]:
    """A stage without accounts, on a whole cluster. No daemon is started. The logs stay in `folder`."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_own_database(cluster))
        emulator, key = HoldingEmulator(), Fernet.generate_key().decode()
        stage = ClusterStage(
            cluster=cluster,
            emulator=emulator,
            upstream=emulator,
            journal=Journal(),
            sealer=Sealer([key]),
            folder=folder,
            rate_limit=RATE_LIMIT,
        )
        ports: dict[int, Replica] = {}
        livez_urls: dict[str, str] = {}
        for number in range(DAEMONS):
            base_url = await stack.enter_async_context(emulator.serving())
            listen = f"127.0.0.1:{kept_port()}"
            replica = Replica(
                f"replica-{number}",
                _settings(cluster.url, base_url, listen, key),
                folder,
                stage.journal,
                stage.violated,
                grace_seconds=GRACE_SECONDS,
                steps_clock=False,
            )
            stack.push_async_callback(replica.end)
            stage.replicas.append(replica)
            ports[int(base_url.rpartition(":")[2])] = replica
            livez_urls[replica.name] = f"http://{listen}/livez"
        stage.ports, stage.livez_urls = ports, livez_urls
        yield stage


@asynccontextmanager
async def _own_database(cluster: Cluster) -> AsyncIterator[None]:
    leader = await asyncio.to_thread(cluster.leader)
    assert leader
    name = f"run_{secrets.token_hex(4)}"
    await execute(cluster.url_of(leader), f"CREATE DATABASE {name}")
    cluster.database = name
    try:
        await migrate(cluster.url)
        await execute(cluster.url_of(leader), WITNESSES + WRITTEN)
        yield
    finally:
        cluster.database = "postgres"
        with suppress(*DRIVER_ERRORS):
            await execute(cluster.url_of_those_there, f"DROP DATABASE {name} WITH (FORCE)")


def _settings(database_url: str, base_url: str, listen: str, key: str) -> dict[str, str]:
    """All else as it is by default: leases, polls, time-outs."""
    return environment(
        database_url,
        tiktok_base_url=base_url,
        tiktok_client_key=CLIENT_KEY,
        tiktok_client_secret=CLIENT_SECRET,
        token_keys=key,
        concurrency=CONCURRENCY,
        http_listen=listen,
        probes_per_hour=0,
        poll_seconds=5,
    )
