"""The world of one run: a PostgreSQL server, the emulator, three replicas and their proxies."""

import asyncio
import random
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from cryptography.fernet import Fernet

from refresher.emulator.options import EmulatorOptions
from refresher.postgres.migrate import migrate
from refresher.postgres.sealing import Sealer
from tests.chaos.journal import Journal
from tests.chaos.network import Network
from tests.chaos.plan import REPLICAS
from tests.chaos.replicas import Replica
from tests.chaos.stage import Stage
from tests.chaos.upstream import WatchedEmulator
from tests.conftest import environment
from tests.faults import Server, own_server

#: Lives are short, so that there are always requests.
RATE_LIMIT = 60
COVER_TTL_SECONDS = 24
ACCESS_TOKEN_TTL_SECONDS = 25
GRACE_SECONDS = 5.0
BELOW_THE_EPHEMERAL = (15_000, 30_000)
CLIENT_KEY, CLIENT_SECRET = "key-of-the-chaos", "client-pass-word-of-the-tests"

CALM = EmulatorOptions(
    cover_ttl=COVER_TTL_SECONDS,
    access_token_ttl_seconds=ACCESS_TOKEN_TTL_SECONDS,
    rate_limit_per_token=RATE_LIMIT,
    # Slow answers, so that faults hit requests in flight.
    latency_seconds=0.25,
    slow_seconds=1.5,
    client_key=CLIENT_KEY,
    client_secret=CLIENT_SECRET,
    public_url="http://covers.example",
)

# Triggers see every write of ours, also between two looks.
WITNESSES = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.done (transaction bigint PRIMARY KEY);
CREATE TABLE chaos.breaches (number bigserial, breach text);
CREATE TABLE chaos.parks (
    at timestamptz DEFAULT clock_timestamp(), open_id text, state text, reason text
);

CREATE FUNCTION chaos.note_cover() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- An application may do so.
    IF current_setting('application_name') NOT LIKE 'refresher%' THEN
        RETURN NULL;
    END IF;
    INSERT INTO chaos.breaches (breach) VALUES (format(
        'video %s: cover of %s became one of %s',
        NEW.video_id, OLD.cover_expires_at, NEW.cover_expires_at));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_cover AFTER UPDATE ON refresher.videos FOR EACH ROW
WHEN (OLD.cover_image_url <> '' AND coalesce(NEW.cover_image_url, '') = ''
      OR OLD.cover_expires_at IS NOT NULL AND NEW.cover_expires_at IS NULL
      OR NEW.cover_expires_at < OLD.cover_expires_at)
EXECUTE FUNCTION chaos.note_cover();

CREATE FUNCTION chaos.note_park() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.parks (open_id, state, reason)
    VALUES (NEW.open_id, NEW.state, NEW.state_reason);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_park AFTER UPDATE ON refresher.accounts FOR EACH ROW
WHEN (NEW.state <> OLD.state AND NEW.state <> 'active')
EXECUTE FUNCTION chaos.note_park();
"""

# A simple application copies covers into its own table.
CARRIED = """
CREATE TABLE chaos.carried (open_id text PRIMARY KEY, covers bigint NOT NULL DEFAULT 0);
CREATE FUNCTION chaos.carry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chaos.carried SET covers = covers + 1 WHERE open_id = NEW.open_id;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_carry AFTER UPDATE ON refresher.videos FOR EACH ROW
WHEN (NEW.cover_image_url IS DISTINCT FROM OLD.cover_image_url)
EXECUTE FUNCTION chaos.carry();

CREATE FUNCTION chaos.carry_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.carried (open_id) VALUES (NEW.open_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_carry_account AFTER INSERT ON refresher.accounts FOR EACH ROW
EXECUTE FUNCTION chaos.carry_account();
"""


@dataclass(kw_only=True)
class World(Stage):
    """All parts of a run."""

    server: Server
    proxies: list[Network] = field(default_factory=list)  # to the database, one for each replica
    serving: asyncio.Lock = field(default_factory=asyncio.Lock)  # to stop or restart the server

    @property
    def url(self) -> str:
        return self.server.url


@asynccontextmanager
async def built(folder: Path) -> AsyncIterator[World]:
    """A world without accounts. No replica is started. The logs stay in `folder`."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(own_server())
        stack.callback(shutil.copyfile, server.folder / "log", folder / "postgres.log")
        await asyncio.to_thread(_settle_down, server)
        await migrate(server.url)
        await execute(server.url, WITNESSES)
        await execute(server.url, CARRIED)
        emulator, key = WatchedEmulator(CALM), Fernet.generate_key().decode()
        world = World(
            server=server,
            emulator=emulator,
            journal=Journal(),
            sealer=Sealer([key]),
            folder=folder,
            rate_limit=RATE_LIMIT,
        )
        ports: dict[int, Replica] = {}
        livez_urls: dict[str, str] = {}
        for number in range(REPLICAS):
            proxy = Network("127.0.0.1", server.port)
            proxy.port = kept_port()
            await stack.enter_async_context(proxy)
            base_url = await stack.enter_async_context(emulator.serving())
            listen = f"127.0.0.1:{kept_port()}"
            replica = Replica(
                f"replica-{number}",
                _settings(server.url_of("postgres", proxy.port), base_url, listen, key),
                folder,
                world.journal,
                world.violated,
                grace_seconds=GRACE_SECONDS,
            )
            stack.push_async_callback(replica.end)
            world.proxies.append(proxy)
            world.replicas.append(replica)
            ports[int(base_url.rpartition(":")[2])] = replica
            livez_urls[replica.name] = f"http://{listen}/livez"
        world.ports, world.livez_urls = ports, livez_urls
        yield world


def _settings(database_url: str, base_url: str, listen: str, key: str) -> dict[str, str]:
    return environment(
        database_url,
        tiktok_base_url=base_url,
        tiktok_client_key=CLIENT_KEY,
        tiktok_client_secret=CLIENT_SECRET,
        token_keys=key,
        rate_limit_per_token=RATE_LIMIT,
        request_timeout_seconds=2,
        lease_seconds=4,
        concurrency=16,
        shutdown_grace_seconds=GRACE_SECONDS,
        http_listen=listen,
    )


def _settle_down(server: Server) -> None:
    """Give the server a port that it can keep, and room for connections of frozen proxies."""
    with (server.folder / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = 90\n")
    server.stop("fast")
    server.port = kept_port()
    server.start()


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def kept_port() -> int:
    """A free port that the system gives to nobody else while nobody listens."""
    while True:
        port = random.randrange(*BELOW_THE_EPHEMERAL)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def new_token(kind: str) -> str:
    return f"{kind}.{secrets.token_hex(20)}"
