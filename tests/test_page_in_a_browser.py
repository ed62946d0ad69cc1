"""The status page as people see it: in Debian's Chromium, light, dark, narrow, without JavaScript."""

import re
import shutil
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import product

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright, expect

from tests.conftest import eventually, free_port
from tests.test_page import close, park, visited
from tests.test_status import settle, store

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
PATIENCE_MS = 60_000.0
WIDE, NARROW = {"width": 1100, "height": 900}, {"width": 360, "height": 740}
MIDDLE = {"width": 500, "height": 740}
#: The tables of a page that are wider than their place.
SCROLLING = """[...document.querySelectorAll(".scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.id)"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@asynccontextmanager
async def chromium():
    """The browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(browser, **options):
    """A page of the browser. Whatever its console says against the page fails the test."""
    complaints = []
    async with await browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


@asynccontextmanager
async def browsing(**options):
    """A page of a browser of its own."""
    async with chromium() as browser, opened(browser, **options) as page:
        yield page


async def until_drawn(session, *paths):
    """A page that cannot be drawn yet is a 503: the console would complain of a slow database."""
    for path in paths:

        async def drawn(path=path):
            async with session.get(path) as response:
                return response.status == HTTPStatus.OK

        await eventually(drawn, f"{path} to be drawn")


@asynccontextmanager
async def answering(database, *paths):
    """`visited`, when these pages can be drawn."""
    async with visited(database) as session:
        await until_drawn(session, *paths)
        yield session


async def trouble(pool):
    """A fleet with something on every part of the page."""
    await store(pool, "ana-" + "x" * 60, "valid", "dead", "new", "gone")
    await store(pool, "ben", "valid")
    await settle(pool)
    await park(pool, "cleo", days=9)
    await store(pool, "dora", "dead", "valid")
    await pool.execute(
        "UPDATE refresher.accounts SET rate_share = 0.5, rate_lowered_at = now(),"
        " refresh_token_expires_at = now() + interval '2 days' WHERE open_id = 'ben';"
        "UPDATE refresher.accounts SET missing = 3 WHERE open_id LIKE 'ana%'"
    )
    await pool.execute(
        "INSERT INTO refresher.replicas (replica, version, seen_at) VALUES"
        " ('a', '1', now()), ('b', '1', now() - interval '1 hour')"
    )


async def test_it_is_accessible_and_fits(pool, database):
    """No finding of axe, in light and dark; at 360 px nothing sticks out, and no table scrolls."""
    await trouble(pool)
    async with answering(database, "/", "/accounts") as session, chromium() as browser:
        for scheme, viewport in product(["light", "dark"], [WIDE, MIDDLE, NARROW]):
            async with opened(browser, color_scheme=scheme, viewport=viewport) as page:
                for path in ("/", "/accounts"):
                    await page.goto(f"{session._base_url}{path}")
                    results = await Axe().run(page)
                    assert results.violations_count == 0, (scheme, results.generate_report())
                    too_wide = "document.documentElement.scrollWidth - window.innerWidth"
                    assert await page.evaluate(too_wide) <= 0
                    assert await page.evaluate(SCROLLING) == []
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


async def test_it_works_by_keyboard(pool, database):
    """The first stop leads to the content; a filter is chosen and sent without a mouse."""
    await trouble(pool)
    pages = "/", "/accounts", "/accounts?reason=invalid_grant"
    async with answering(database, *pages) as session, browsing() as page:
        await page.goto(f"{session._base_url}/")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        assert page.url.endswith("#main")
        await page.goto(f"{session._base_url}/accounts")
        await page.focus("#reason")
        await page.keyboard.type("invalid_grant")
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile(r"reason=invalid_grant"))
        await expect(page.locator("tbody tr")).to_have_count(1)


@pytest.mark.long
async def test_without_javascript_it_loads_itself_again(pool, database):
    """All of it is there, and a newer reading comes by itself."""
    await store(pool, "ana", "valid")
    await settle(pool)
    async with answering(database, "/") as session, browsing(java_script_enabled=False) as page:
        await page.goto(f"{session._base_url}/")
        await expect(page.locator("#number-videos")).to_have_text("2")
        await store(pool, "ben", "valid")
        await expect(page.locator("#number-videos")).to_have_text("4", timeout=PATIENCE_MS)


async def test_the_database_goes_away_and_the_page_says_so(pool, server, database, monkeypatch):
    """It changes by itself; what was shown stays, with its age."""
    monkeypatch.setattr("refresher.operations.verdicts.OLD_SECONDS", 5.0)
    await store(pool, "ana", "valid")
    await settle(pool)
    async with answering(database, "/") as session, browsing() as page:
        await page.goto(f"{session._base_url}/")
        await close(server, await pool.fetchval("SELECT current_database()"))
        shown = page.get_by_text("It does not answer in time.")
        await expect(shown).to_be_visible(timeout=PATIENCE_MS)
        await expect(page.locator("#number-videos")).to_have_text("2")


@pytest.mark.long
async def test_covers_are_seen_expiring_and_being_refreshed(serve, start, pool):
    """The page follows: TikTok refuses, covers die; it answers again, and all are valid."""
    world = await serve(cover_ttl=15)
    await world.add_account("ana", videos=40)
    port = free_port()
    await start(world, http_listen=f"127.0.0.1:{port}", lead_seconds=5, spread_seconds=0)
    await world.until_valid(40)
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(base) as session:
        await until_drawn(session, "/")
    async with browsing() as page:
        await page.goto(f"{base}/")
        valid, expired = page.locator("#number-valid"), page.locator("#number-expired")
        await expect(valid).to_have_text("40", timeout=PATIENCE_MS)
        soon = page.locator("#table-expiring tr", has_text="under 1 min").locator(".count")
        await expect(soon).to_have_text("40", timeout=PATIENCE_MS)
        await page.locator("#table-replicas").focus()
        world.emulator.down = "failed"
        await expect(expired).to_have_text("40", timeout=PATIENCE_MS)
        await expect(page.locator("#headline")).to_contain_text("problem")
        world.emulator.down = None
        await expect(valid).to_have_text("40", timeout=PATIENCE_MS)
        assert await page.evaluate("document.activeElement.id") == "table-replicas"
