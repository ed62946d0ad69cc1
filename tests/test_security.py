"""docs/security.md: its SQL is run as it stands, and the daemon lives within the rights it gives."""

import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from cryptography.fernet import Fernet

from refresher.domain.pacing import Pace
from refresher.postgres import status
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.database import connected
from refresher.postgres.migrate import migrate
from refresher.postgres.sealing import SEALED, Sealer, check_readable, rotate_all, seal_all
from refresher.postgres.tokens import consents_ending
from tests.conftest import World, administer

DOCUMENT = Path(__file__).parents[1] / "docs" / "security.md"
KEY, NEXT = (Fernet.generate_key().decode() for _ in range(2))
CLIENT = {"tiktok_client_key": "key-of-the-app", "tiktok_client_secret": "secret-of-the-app"}


def url_of(database, role):
    parts = urlsplit(database)
    _, _, host = parts.netloc.rpartition("@")
    _, _, password = parts.netloc.rpartition("@")[0].partition(":")
    login = f"{role}:{password}" if password else role
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


@pytest.fixture
async def roles(server, empty_database):
    """The document carried out: URLs for the owner, the daemon and the application."""
    suffix, name = secrets.token_hex(4), urlsplit(empty_database).path[1:]
    blocks = [
        re.sub(r"\brefresher_(owner|daemon|app)\b", rf"\1_{suffix}", block).replace(
            "DATABASE refresher ", f"DATABASE {name} "
        )
        for block in re.findall(
            r"^```sql\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
        )
    ]
    names = [f"{role}_{suffix}" for role in ("owner", "daemon", "app")]
    urls = [url_of(empty_database, role) for role in names]
    as_superuser, as_owner = blocks
    await administer(
        empty_database,
        as_superuser,
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {names[0]} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    )
    if password := urlsplit(urls[0]).password:
        await administer(server, *(f"ALTER ROLE {role} PASSWORD '{password}'" for role in names))
    await migrate(urls[0])
    await administer(urls[0], as_owner, as_owner)  # after an upgrade once more
    yield urls
    for role in reversed(names):
        await administer(empty_database, f"DROP OWNED BY {role} CASCADE")
        await administer(server, f"DROP ROLE {role}")


async def refused(url, *statements):
    """Each of them is forbidden to the role."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


FORBIDDEN = (
    "DROP TABLE refresher.videos",
    "DROP SCHEMA refresher CASCADE",
    "ALTER TABLE refresher.accounts ADD spy text",
    "ALTER TABLE refresher.accounts DISABLE TRIGGER ALL",
    "TRUNCATE refresher.videos",
    "CREATE TABLE refresher.own (x int)",
    "CREATE TABLE public.own (x int)",
    "CREATE FUNCTION refresher.own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA own",
    "CREATE TEMPORARY TABLE own (x int)",
    "UPDATE refresher.alembic_version SET version_num = '0'",
)


async def test_the_daemon_needs_no_more_than_it_is_given(serve, start, roles):
    """It works, refreshes and seals tokens, and all its other statements run; nothing is refused."""
    _, as_daemon, as_app = roles
    async with (
        connected(as_daemon, application_name="tests") as pool,
        connected(as_app, application_name="tests") as application,
    ):
        served = await serve()
        world = World(served.emulator, served.base_url, application, served.ids)
        await world.add_account("ana", videos=25)
        world.emulator.add_account("ben", "act.old", refresh_token="rft.old")
        world.emulator.revoke_access_token("ben")
        await application.execute(
            "INSERT INTO refresher.accounts (open_id, access_token, refresh_token)"
            " VALUES ('ben', 'act.old', 'rft.old')"
        )
        # Paused, so that no claim holds its row and no refresh prolongs its consent meanwhile.
        await application.execute(
            "INSERT INTO refresher.accounts (open_id, access_token, refresh_token_expires_at)"
            " VALUES ('cal', 'act.cal', now() + interval '5 days')"
        )
        await application.execute(
            "UPDATE refresher.accounts SET state = 'paused' WHERE open_id = 'cal'"
        )
        await world.add_videos("ben", 5)
        daemon = await start(
            world, database_url=as_daemon, token_keys=KEY, rate_limit_per_app=600, **CLIENT
        )
        await world.until_valid(30)
        await daemon.until_event("consent.warned")
        assert await daemon.stopped() == 0
        shown = {line["event"] for line in daemon.lines()}
        assert shown.isdisjoint({"account.failed", "loop.failed", "daemon.failed", "database.lost"})
        assert {"token.refreshed", "account.refreshed"} <= shown
        rows = await pool.fetch("SELECT access_token FROM refresher.accounts")
        assert all(SEALED.fullmatch(row["access_token"]) for row in rows)
        await every_other_statement(pool)
    for command in ("status --json", "accounts pause ana"):
        done = await start(command=command, database_url=as_daemon)
        assert await done.ended() == 0


async def every_other_statement(pool):
    """What a daemon does only now and then, and the commands."""
    claims = Accounts(
        pool,
        replica="a",
        pace=Pace(600, 600, lease_seconds=60),
        managed=True,
        sealer=Sealer([KEY]),
    )
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")

    claim, *_ = await claims.claim(10)
    assert await claims.reserve(claim)
    assert (await claims.extend([claim]))[0]
    await claims.tell_answers([100])
    assert await claims.limit_app(0.0)
    await audit_step(pool, managed=True)
    now = await status.read_now(pool)
    assert (await status.read_summary(pool)).videos == 30
    await status.read_quota(pool)
    assert await status.read_leases(pool)
    await status.count_due(pool, now)
    await status.any_due(pool, now)
    await status.any_left(pool, now, 3)
    await consents_ending(pool)
    await check_readable(pool, Sealer([KEY]))
    assert await seal_all(pool, Sealer([KEY])) == 0
    assert await rotate_all(pool, Sealer([NEXT, KEY])) == 3


async def test_the_daemons_role_can_change_rows_and_nothing_else(roles):
    """No DROP, no CREATE, no new rows, none gone."""
    _, as_daemon, _ = roles
    await refused(
        as_daemon,
        *FORBIDDEN,
        "INSERT INTO refresher.accounts (open_id) VALUES ('x')",
        "INSERT INTO refresher.videos (open_id, video_id) VALUES ('x', '1')",
        "DELETE FROM refresher.accounts",
        "DELETE FROM refresher.videos",
    )


async def test_the_application_stores_tokens_and_cannot_read_them(roles):
    """It adds accounts and videos, replaces tokens, reads covers and states, and deletes."""
    _, _, as_app = roles
    await administer(
        as_app,
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token, refresh_token_expires_at, scope)"
        " VALUES ('ana', 'act.x', now(), 'rft.x', now(), 'video.list')",
        "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '1')",
        "UPDATE refresher.accounts SET access_token = 'act.y', access_token_expires_at = now(),"
        " refresh_token = 'rft.y', refresh_token_expires_at = now(), scope = 'video.list',"
        " state = 'paused', state_reason = 'by the application' WHERE open_id = 'ana'",
        "SELECT open_id, state, state_reason, state_since, access_token_expires_at,"
        " refresh_token_expires_at, scope FROM refresher.accounts",
        "SELECT open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,"
        " missing_since, gone_at FROM refresher.videos",
    )
    await refused(
        as_app,
        *FORBIDDEN,
        "SELECT access_token FROM refresher.accounts",
        "SELECT refresh_token FROM refresher.accounts",
        "UPDATE refresher.accounts SET open_id = access_token",
        "UPDATE refresher.accounts SET state_reason = access_token",
        "UPDATE refresher.accounts SET lease_owner = 'me'",
        "UPDATE refresher.videos SET cover_image_url = 'https://x'",
        "UPDATE refresher.app SET next_slot_at = now()",
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.z')"
        " ON CONFLICT (open_id) DO UPDATE SET access_token = EXCLUDED.access_token",
    )
    await administer(
        as_app,
        "DELETE FROM refresher.videos WHERE video_id = '1'",
        "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '2')",
        "DELETE FROM refresher.accounts WHERE open_id = 'ana'",
    )


async def test_the_owner_imports(start, roles, tmp_path):
    """Sealed before it is written; migrating again is as fine as ever."""
    as_owner, _, _ = roles
    file = tmp_path / "accounts.csv"
    file.write_text("open_id,access_token,refresh_token\nana,act.one,rft.one\n")
    command = f"accounts import {file}"
    assert await (await start(command=command, database_url=as_owner, token_keys=KEY)).ended() == 0
    assert await (await start(command="migrate", database_url=as_owner)).ended() == 0
    async with connected(as_owner, application_name="tests") as pool:
        row = await pool.fetchrow("SELECT access_token, refresh_token FROM refresher.accounts")
    assert [Sealer([KEY]).unseal(token) for token in row] == ["act.one", "rft.one"]
    assert all(SEALED.fullmatch(token) for token in row)
