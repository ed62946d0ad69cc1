"""The status page over HTTP: what it shows, what it withstands, what it costs."""

import asyncio
import csv
import io
import re
from contextlib import asynccontextmanager
from time import monotonic

import aiohttp
import pytest

from refresher.assembly import assembled, replica_name
from refresher.observed import sources
from refresher.operations.page import VIEWERS
from refresher.operations.server import served
from refresher.postgres.details import Wanted
from refresher.settings import read_settings
from tests.conftest import administer, eventually, free_port
from tests.test_query_plans import asked  # noqa: F401 - a fixture
from tests.test_status import settle, store


async def _ready():
    return None


@asynccontextmanager
async def visited(database, **settings):
    """A session of a browser at an endpoint that is served from this database."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    settings = read_settings(
        database_url=database, tiktok_base_url="http://127.0.0.1:9", **settings
    )
    async with (
        assembled(settings, replica_name()) as app,
        served(f"127.0.0.1:{port}", sources(app, _ready)),
        aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield session


async def text_of(session, path, status=200):
    async with session.get(path) as response:
        text = await response.text()
        assert response.status == status, text
    return text


async def test_all_that_operators_read_takes_one_connection(database):
    """However much is asked for at once: the others are there for the work."""
    settings = read_settings(database_url=database, tiktok_base_url="http://127.0.0.1:9")
    async with assembled(settings, replica_name()) as app:
        asked = sources(app, _ready)

        async def exported():
            return [part async for part in asked.lists.export(Wanted())]

        readings = await asyncio.gather(
            asked.fleet.latest(), asked.details.latest(), asked.lists.latest(Wanted()), exported()
        )
        assert all(readings)
        assert app.pool.get_size() == 1


async def park(pool, open_id, state="needs_reauthorization", reason="invalid_grant", days=0):
    await store(pool, open_id)
    await pool.execute(
        "UPDATE refresher.accounts SET state = $2, state_reason = $3,"
        " state_since = now() - $4 * interval '1 day' WHERE open_id = $1",
        open_id,
        state,
        reason,
        days,
    )


async def test_a_verdict_comes_first_and_details_behind_it(pool, database):
    """What is wrong is named with what to do, and leads to the section that shows more."""
    await store(pool, "ana", "valid", "dead")
    await settle(pool)
    await park(pool, "ben", days=3)
    async with visited(database) as session:
        text = await text_of(session, "/")
    assert '<h1 id="headline" class="bad">' in text
    assert '<a href="#covers">Freshness</a> 50 % of 4 covers are valid; 2 have expired.' in text
    assert "Ask the users of parked accounts to authorize again." in text
    assert 'href="/accounts?state=needs_reauthorization&amp;reason=invalid_grant"' in text
    for section in set(re.findall(r'<a href="#(\w+)"', text)):
        assert f'id="{section}"' in text


async def test_dead_tokens_and_missing_videos_lead_to_names(pool, database):
    """A verdict of each, and behind it the accounts by name."""
    await store(pool, "ana", "valid")
    await store(pool, "ben", "valid")
    await settle(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET access_token_expires_at = now() - interval '1 hour'"
        " WHERE open_id = 'ben';"
        "UPDATE refresher.accounts SET missing = 2, videos = 7 WHERE open_id = 'ana'"
    )
    credentials = {"tiktok_client_key": "key", "tiktok_client_secret": "secret"}
    async with visited(database, **credentials) as session:
        text = await text_of(session, "/")
        assert '<a href="#missing">Missing videos</a> TikTok leaves out 2 of 9 videos.' in text
        missing = text[text.index('id="table-missing"') :]
        assert re.findall(r'class="id">([^<]+)<', missing)[0] == "ana"
        assert '<a href="#accounts">Access tokens</a> 1 active account with a dead' in text
        link = "/accounts?state=dead_token&amp;reason=no_refresh_token"
        assert f'href="{link}"' in text
        listed = await text_of(session, link.replace("&amp;", "&"))
        assert re.findall(r'class="id">([^<]+)<', listed) == ["ben"]


async def test_an_account_is_slowed_down_only_below_all_of_its_rate(pool, database):
    """One that has nearly recovered has less than 100 %; one that only waits has all of it."""
    for open_id, share in (("ana", 0.999), ("ben", 1.0)):
        await store(pool, open_id, "valid")
        await settle(pool)
        await pool.execute(
            "UPDATE refresher.accounts SET rate_share = $2, rate_lowered_at = now(), failures = 1,"
            " next_slot_at = now() + interval '1 minute' WHERE open_id = $1",
            open_id,
            share,
        )
    async with visited(database) as session:
        text = await text_of(session, "/")
    throttled = text[text.index('id="table-throttled"') : text.index('id="accounts"')]
    assert "99.9" in throttled
    assert "all of it" in throttled
    assert "100 %" not in throttled


async def test_nothing_comes_from_elsewhere_and_nothing_inline(pool, database):
    """A strict policy on every answer, also on one that refuses; no inline style or script."""
    await store(pool, "ana", "valid")
    async with visited(database) as session:
        for path in ("/", "/accounts", "/accounts.csv", "/static/page.js", "/nowhere", "/livez"):
            async with session.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                text = await response.text()
            if path in {"/", "/accounts"}:
                assert not re.search(r"<style|\sstyle=|<script>|\son\w+=|https?://", text)
                assert re.findall(r'src="([^"?]+)', text) == ["/static/page.js"]


async def test_the_page_is_read_only(database):
    """It answers GET and HEAD, and nothing else."""
    async with visited(database) as session:
        for path in ("/", "/accounts", "/accounts.csv"):
            async with session.post(path) as response:
                assert response.status == 405
        async with session.head("/") as response:
            assert response.status == 200


async def test_what_is_stored_is_shown_as_text(pool, database):
    """An open_id or a reason is never markup, and no part of another parameter."""
    name, reason = "<script>alert(1)</script>&after=x", "a&b<i>"
    await park(pool, name, reason=reason)
    async with visited(database) as session:
        overview = await text_of(session, "/")
        listed = await text_of(session, "/accounts")
        assert name not in overview + listed
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;after=x" in listed
        (link,) = set(re.findall(r'"(/accounts\?state=[^"]*reason=[^"]+)"', overview))
        assert "&lt;script&gt;" in await text_of(session, link.replace("&amp;", "&"))


async def test_the_list_is_filtered_and_paged_by_its_address(pool, database):
    """100 accounts a page in the order of open_id; state and reason as the address says."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, state, state_reason)"
        " SELECT 'a-' || to_char(n, 'fm000'), 'paused', 'operator' FROM generate_series(1, 250) AS n"
    )
    await park(pool, "ben")
    async with visited(database) as session:
        seen, path = [], "/accounts?state=paused"
        while path:
            text = await text_of(session, path)
            page = re.findall(r'class="id">([^<]+)<', text)
            assert len(page) <= 100
            seen += page
            following = re.search(r'rel="next" href="([^"]+)"', text)
            path = following and following[1].replace("&amp;", "&")
        assert seen == [f"a-{n:03}" for n in range(1, 251)]
        parked = await text_of(session, "/accounts?reason=invalid_grant")
        assert re.findall(r'class="id">([^<]+)<', parked) == ["ben"]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (
            "state=sleepy",
            "state: expected one of needs_reauthorization, needs_scope, dead_token, isolated",
        ),
        ("reason=" + "x" * 300, "reason: expected at most 256 characters"),
        ("after=%00", "after: expected at most 256 characters"),
    ],
)
async def test_a_bad_filter_is_refused_in_plain_words(database, query, complaint):
    """And costs no statement."""
    async with visited(database) as session:
        for path in ("/accounts", "/accounts.csv"):
            assert complaint in await text_of(session, f"{path}?{query}", status=400)


async def test_the_export_is_complete_and_safe_in_a_spreadsheet(pool, database, monkeypatch):
    """All parts of it; what a spreadsheet would take for a formula begins with an apostrophe."""
    monkeypatch.setattr("refresher.operations.lists.EXPORTED_AT_ONCE", 2)
    monkeypatch.setattr("refresher.operations.lists.TURN_SECONDS", 0.0)
    for open_id in ("=1+1", "-000abc", "ana", "ben"):
        await park(pool, open_id, reason="@sum")
    await park(pool, "cleo", state="paused", reason=None)
    async with visited(database) as session:
        text = await text_of(session, "/accounts.csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        parked = await text_of(session, "/accounts.csv?state=paused")
    assert [row["open_id"] for row in rows] == ["'-000abc", "'=1+1", "ana", "ben", "cleo"]
    assert (rows[0]["reason"], rows[0]["state"]) == ("'@sum", "needs_reauthorization")
    assert list(rows[0]) == ["open_id", "state", "reason", "since", "videos", "valid"]
    assert [row["open_id"] for row in csv.DictReader(io.StringIO(parked))] == ["cleo"]


async def test_one_export_at_a_time(pool, database, monkeypatch):
    """A second one is told to come again."""
    monkeypatch.setattr("refresher.operations.lists.EXPORTED_AT_ONCE", 1)
    for open_id in ("ana", "ben", "cleo"):
        await park(pool, open_id)
    async with visited(database) as session, session.get("/accounts.csv") as first:
        assert "Try again" in await text_of(session, "/accounts.csv", status=503)
        assert len((await first.text()).splitlines()) == 4
        assert len((await text_of(session, "/accounts.csv")).splitlines()) == 4


async def test_an_export_that_breaks_off_is_no_complete_file(pool, server, database, monkeypatch):
    """The database goes away in between: the download is cut, and the next one is not blocked."""
    monkeypatch.setattr("refresher.operations.lists.EXPORTED_AT_ONCE", 1)
    for n in range(30):
        await park(pool, f"account-{n}")
    async with visited(database) as session, session.get("/accounts.csv") as response:
        await response.content.readuntil(b"account-0")
        await close(server, await pool.fetchval("SELECT current_database()"))
        with pytest.raises(aiohttp.ClientError):
            await response.text()
        assert "has not answered" in await text_of(session, "/accounts.csv", status=503)


async def test_who_stops_reading_an_export_holds_up_nobody(pool, database, monkeypatch):
    """It is cut after a while, and the next one gets its own."""
    monkeypatch.setattr("refresher.operations.page.STALLED_SECONDS", 0.5)
    monkeypatch.setattr("refresher.operations.lists.EXPORTED_AT_ONCE", 50_000)
    # More than the buffers on the way take.
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, state, state_reason)"
        " SELECT 'account-' || n, 'needs_scope', repeat('x', 1000)"
        " FROM generate_series(1, 20000) AS n"
    )
    async with visited(database) as session, session.get("/accounts.csv") as stalled:

        async def another():
            async with session.get("/accounts.csv?state=paused") as response:
                return response.status == 200

        await eventually(another, "another export")
        with pytest.raises(aiohttp.ClientError):
            await stalled.text()


async def test_a_flood_costs_the_database_what_one_viewer_does(pool, database, asked):  # noqa: F811
    """200 at once, and as many lists: pages are shared, and lists have a statement a second."""
    await store(pool, "ana", "valid")
    async with visited(database) as session:
        await text_of(session, "/")
        once = len(asked)
        texts = await asyncio.gather(*(text_of(session, "/") for _ in range(200)))
        assert len(asked) == once
        assert all("Freshness" in text for text in texts)
        began = monotonic()

        async def listed(n):
            async with session.get(f"/accounts?after={n}") as response:
                return response.status, await response.text()

        answers = await asyncio.gather(*(listed(n) for n in range(100)))
        lists = [query for query in asked[once:] if ":page" in query or "LIMIT" in query]
        assert len(lists) <= 1 + (monotonic() - began)
        statuses = {status for status, _ in answers}
        assert statuses == {200, 503}
        assert all("in a few seconds" in text for status, text in answers if status == 503)


async def test_who_waits_for_a_turn_is_answered(pool, database):
    """Three different lists at once: the last one's turn comes after two seconds."""
    await store(pool, "ana", "valid")
    async with visited(database) as session:
        await asyncio.gather(*(text_of(session, f"/accounts?after={n}") for n in range(3)))


async def test_the_database_is_away(pool, server, database, monkeypatch):
    """The page shows what it has and how old that is; without anything it says so."""
    monkeypatch.setattr("refresher.operations.verdicts.OLD_SECONDS", 0.5)
    await store(pool, "ana", "valid")
    async with visited(f"postgresql://nobody@127.0.0.1:{free_port()}/x") as session:
        text = await text_of(session, "/", status=503)
        assert "No answer from the database so far" in text
        assert "The database has not answered" in await text_of(session, "/accounts", status=503)
        assert "The database has not answered" in await text_of(
            session, "/accounts.csv", status=503
        )
    async with visited(database) as session:
        assert "It answers." in await text_of(session, "/")
        await close(server, await pool.fetchval("SELECT current_database()"))

        async def old():
            return "It does not answer in time. What is shown is" in await text_of(session, "/")

        await eventually(old, "the age")
        assert await text_of(session, "/livez") == "ok\n"


async def close(server, database):
    """Let nobody into the database any more."""
    await administer(
        server,
        f"ALTER DATABASE {database} ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{database}' AND application_name = 'refresher'",
    )


async def test_viewers_are_told_of_a_new_reading(pool, database):
    """Each is sent a number when it comes; one viewer too many is told to load the page again."""
    await store(pool, "ana", "valid")
    async with visited(database) as session:
        streams = [await session.get("/changes") for _ in range(VIEWERS)]
        told = await asyncio.gather(*(stream.content.readuntil(b"\r\n\r\n") for stream in streams))
        (number,) = {line.decode().strip().removeprefix("data: ") for line in told}
        assert f'data-reading="{number}"' in await text_of(session, "/")
        assert "viewers" in await text_of(session, "/changes", status=503)
        for stream in streams:
            stream.close()


async def test_a_daemon_that_stops_does_not_wait_for_its_viewers(serve, start):
    """Open streams end at once."""
    port = free_port()
    daemon = await start(await serve(), http_listen=f"127.0.0.1:{port}")
    await daemon.until_event("daemon.started")
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.get("/changes") as stream,
    ):
        await stream.content.readuntil(b"\r\n\r\n")
        assert await daemon.stopped() == 0
        # The stream was ended, not cut: that would raise.
        assert b"data" not in await stream.content.read()


async def test_the_last_warnings_are_shown_without_secrets(serve, start):
    """The last one of each event, of this replica."""
    world = await serve()
    await world.add_account("ana", videos=1)
    port = free_port()
    daemon = await start(world, http_listen=f"127.0.0.1:{port}")
    await daemon.until_event("daemon.started")
    await daemon.until_event("tokens.unsealed")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        text = await text_of(session, "/")
    assert "<code>tokens.unsealed</code>" in text
    assert "reason=<b>REFRESHER_TOKEN_KEYS is not set</b>" in text
    assert "act." not in text
