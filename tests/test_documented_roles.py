"""The roles and grants of docs/security.md: enough for each, and no more than it says."""

import re
from pathlib import Path

import asyncpg
import pytest

from refresher.domain.checkup.findings import Outcome
from refresher.postgres.database import connected
from refresher.postgres.migrate import migrate
from refresher.postgres.outbox import end, put_off, take
from refresher.webhooks.delivery import LEASE, tidy
from tests import faults
from tests.conftest import administer, eventually
from tests.test_doctor import findings
from tests.test_page import text_of, visited
from tests.test_tokens import CLIENT

ATTACH = (Path(__file__).parents[1] / "docs" / "attach.md").read_text()
SECURITY = Path(__file__).parents[1] / "docs" / "security.md"
ROLES, GRANTS = re.findall(
    r"```sql\n(.*?)```", SECURITY.read_text().partition("## Database roles")[2], re.DOTALL
)


@pytest.fixture(scope="module")
def own_server():
    with faults.own_server() as server:
        yield server


@pytest.fixture
async def as_role(own_server):
    """The URL of database refresher for a role, all made as the page says."""

    def url(role):
        return own_server.url_of("refresher").replace("postgres:", f"{role}:")

    await administer(own_server.url, "CREATE DATABASE refresher", *filter(None, ROLES.split(";\n")))
    await migrate(url("refresher_owner"))
    await administer(url("refresher_owner"), GRANTS)
    yield url
    await administer(
        own_server.url,
        "DROP DATABASE refresher WITH (FORCE)",
        "DROP ROLE refresher_owner, refresher_daemon, refresher_app",
    )


async def test_the_daemon_and_the_application_can_do_their_work(as_role, own_server, serve, start):
    """The daemon keeps covers alive that the application has stored; it reads them, no token."""
    beside = await serve()
    async with faults.looking(beside, own_server.url_of("refresher")) as world:
        world.emulator.add_account("ana", "act.ana")
        world.emulator.add_video("ana", "7")
        application = await asyncpg.connect(as_role("refresher_app"))
        await application.execute(
            """
            INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.old');
            INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '7');
            UPDATE refresher.accounts
            SET access_token = 'act.ana', access_token_expires_at = now() + interval '24 hours',
                refresh_token = 'rft.ana', refresh_token_expires_at = now() + interval '365 days'
            WHERE open_id = 'ana'
            """
        )
        daemon = await start(world, database_url=as_role("refresher_daemon"))
        await world.until_valid(1)
        assert await daemon.stopped() == 0
        assert {line["level"] for line in daemon.lines()} <= {"info", "warning"}
        cover = "SELECT cover_image_url, cover_expires_at FROM refresher.videos"
        assert (await application.fetchrow(cover))["cover_image_url"]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.fetchval("SELECT access_token FROM refresher.accounts")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute("UPDATE refresher.videos SET cover_image_url = ''")
        await application.execute("DELETE FROM refresher.accounts WHERE open_id = 'ana'")
        await application.close()


async def test_who_may_remove_an_account(as_role, refresher, serve):
    """The owner; for any other role nothing is begun, so no consent is revoked in vain."""
    world = await serve()
    world.emulator.add_account("ana", "act.ana")
    owner, daemon = as_role("refresher_owner"), as_role("refresher_daemon")
    await administer(
        owner, "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.ana')"
    )
    command = ("accounts", "remove", "ana", "--yes")
    settings = {**CLIENT, "tiktok_base_url": world.base_url}
    code, _, err = await refresher(*command, url=daemon, **settings)
    assert (code, err.count("\n")) == (2, 1)
    assert "permission denied" in err
    await administer(
        owner, "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA refresher TO refresher_daemon"
    )
    code, _, err = await refresher(*command, url=daemon, **settings)
    expected = "the role lacks DELETE on refresher.accounts: run it as the owner of the tables"
    assert (code, err) == (2, f"refresher: {expected}\n")
    assert not world.emulator.revoke_record
    code, _, err = await refresher(*command, url=owner, **settings)
    assert (code, err) == (0, "")
    assert len(world.emulator.revoke_record) == 1


async def test_an_application_cannot_read_tokens_through_a_function(as_role):
    """Not of its own and not of others, unless somebody grants it that."""
    application = await asyncpg.connect(as_role("refresher_app"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.fetch("SELECT * FROM refresher.access_token('ana')")
    await application.close()


async def test_an_applications_changes_go_to_the_outbox(as_role):
    """Though it may not read it; the daemon takes them and ends them."""
    application = await asyncpg.connect(as_role("refresher_app"))
    async with connected(as_role("refresher_daemon"), application_name="tests") as daemon:
        await tidy(daemon, on=True)
        await application.execute(
            """
            INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.1');
            UPDATE refresher.accounts SET state = 'needs_scope' WHERE open_id = 'ana';
            UPDATE refresher.accounts SET access_token = 'act.2' WHERE open_id = 'ana';
            """
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.fetch("SELECT * FROM refresher.outbox")
        types = []
        while taken := await take(daemon, 8, LEASE):
            types += [one.webhook.type for one in taken]
            await put_off(daemon, taken[0], LEASE)
            await end(daemon, taken[0])
        assert types == ["account.parked", "account.recovered"]
    await application.close()


async def test_doctor_finds_all_rights_with_them(as_role, own_server):
    """And names each that is missing."""
    found = await findings(as_role("refresher_daemon"))
    told = [finding for group in found.values() for finding in group]
    problems = [finding.text for finding in told if finding.outcome is Outcome.PROBLEM]
    assert problems == ["no replica runs"]
    assert not [finding for finding in told if "permission" in finding.text]
    assert found["role.rights"][0].outcome is Outcome.OK
    await administer(
        as_role("refresher_owner"),
        "REVOKE UPDATE ON refresher.videos FROM refresher_daemon",
        "REVOKE EXECUTE ON FUNCTION refresher.wake_account FROM PUBLIC, refresher_daemon",
    )
    found = await findings(as_role("refresher_daemon"))
    assert found["role.rights"][0].outcome is Outcome.PROBLEM
    assert "lacks UPDATE on refresher.videos, EXECUTE on" in found["role.rights"][0].text
    await administer(
        as_role("refresher_owner"), "REVOKE USAGE ON SCHEMA refresher FROM refresher_daemon"
    )
    found = await findings(as_role("refresher_daemon"))
    assert found["role.rights"][0].text.startswith("the role lacks USAGE on schema refresher")
    assert found["freshness.lead"][0].outcome is Outcome.SKIPPED


async def test_rows_that_are_hidden_and_connections_that_are_few(as_role, own_server):
    """A policy that hides rows, a limit, sessions that the role may not see into."""
    past, url = own_server.url_of("refresher"), as_role("refresher_daemon")
    await administer(past, "ALTER TABLE refresher.videos ENABLE ROW LEVEL SECURITY")
    assert "hides every row of refresher.videos" in (await findings(url))["role.rows"][0].text
    await administer(
        past,
        "CREATE POLICY all_rows ON refresher.videos TO refresher_daemon USING (true)",
        "ALTER ROLE refresher_daemon CONNECTION LIMIT 3",
    )
    other = await asyncpg.connect(past)
    found = await findings(url)
    await other.close()
    assert found["role.rows"][0].outcome is Outcome.WARNING
    assert "allows 3 connections" in found["role.connections"][0].text
    assert "GRANT pg_read_all_stats shows 1 more" in found["storage.snapshots"][0].text


async def test_with_the_grants_of_before_only_the_replicas_are_not_known(as_role):
    """Page and metrics show all the rest, and say what is missing."""
    await administer(
        as_role("refresher_owner"),
        "REVOKE ALL ON refresher.replicas, refresher.outbox FROM refresher_daemon",
    )
    async with visited(as_role("refresher_daemon")) as browser:
        page = await text_of(browser, "/")
        metrics = await text_of(browser, "/metrics")
    assert "Not known: the database does not tell which replicas run." in page
    assert "No video of an active account is stored." in page
    assert "refresher_due_videos 0" in metrics
    assert "# TYPE refresher_replicas " not in metrics
    assert "# TYPE refresher_waiting_webhooks " not in metrics


async def test_the_owner_attaches_a_table_of_the_application(
    as_role, own_server, serve, start, refresher
):
    """With the grants of docs/attach.md; the daemon's role then writes covers into the table."""
    beside = await serve(cover_ttl=7200)
    async with faults.looking(beside, own_server.url_of("refresher")) as world:
        for name in ("ana", "bo"):
            world.emulator.add_account(name, f"act.{name}")
            world.emulator.add_video(name, "7")
        await world.pool.execute(
            """
            CREATE SCHEMA app;
            CREATE TABLE app.users (id bigint PRIMARY KEY, tiktok_open_id text UNIQUE);
            CREATE TABLE app.clips (user_id bigint, tiktok_id text, cover_url text,
                cover_expires timestamptz, PRIMARY KEY (user_id, tiktok_id));
            INSERT INTO app.users VALUES (1, 'ana'), (2, 'bo');
            INSERT INTO app.clips VALUES (1, '7');
            GRANT ALL ON SCHEMA app TO refresher_app;
            GRANT ALL ON app.clips TO refresher_app;
            """
        )
        (grants,) = re.findall(r"```sql\n(GRANT USAGE ON SCHEMA public.*?)```", ATTACH, re.DOTALL)
        named = grants.replace("public", "app").replace("clips", "app.clips")
        await world.pool.execute(named.replace("users", "app.users"))
        await world.pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token)"
            " VALUES ('ana', 'act.ana'), ('bo', 'act.bo')"
        )
        code, out, err = await refresher(
            *("attach", "--table", "app.clips", "--video-id", "tiktok_id", "--account", "user_id"),
            *("--account-table", "app.users", "--open-id", "tiktok_open_id"),
            *("--cover", "cover_url", "--expires", "cover_expires"),
            url=as_role("refresher_owner"),
        )
        assert code == 0, out
        assert err == (
            "refresher: the functions of app.clips belong to refresher_owner, and a trigger on the"
            " table runs with its rights when a cover is written: best attach as postgres, who owns"
            " the table\n"
        )
        daemon = await start(world, database_url=as_role("refresher_daemon"))
        application = await asyncpg.connect(as_role("refresher_app"))
        await application.execute("INSERT INTO app.clips VALUES (2, '7')")

        async def covered():
            living = "SELECT count(*) FROM app.clips WHERE cover_expires > now()"
            return await application.fetchval(living) == 2

        await eventually(covered, "covers in the application's own rows")
        await application.close()
        assert not daemon.events("loop.failed")
        assert await daemon.stopped() == 0
        detach = ("detach", "--table", "app.clips")
        refused = await refresher(*detach, url=as_role("refresher_owner"))
        assert refused == (
            2,
            "",
            (
                "refresher: must be owner of relation clips: run it as the owner of app.clips, app.users;"
                " if you do, that role lacks a right in our schema\n"
            ),
        )
        assert (await refresher(*detach, url=own_server.url_of("refresher")))[0] == 0
