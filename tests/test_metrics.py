"""/metrics of a real daemon, as Prometheus reads it."""

import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from refresher.events import EVENTS
from refresher.operations.fleet_metrics import MOST_REASONS, bounded
from refresher.postgres.snapshot import Kind
from tests.conftest import eventually, free_port
from tests.test_tokens import SETTINGS, authorize, oauth_error

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(refresher_\w+)` \| (\w+) \| (.+?) \| .+ \|$", re.MULTILINE)


async def text_of(port, **wanted):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics", params=wanted) as response,
    ):
        assert response.status == 200
        return await response.text()


def read(text):
    """Of each metric: its type, and its samples as labels and value."""
    families = {}
    for family in text_string_to_metric_families(text):
        suffix = "_total" if family.type == "counter" else ""
        families[family.name + suffix] = (family.type, family.samples)
    return families


async def scraped(port):
    return read(await text_of(port))


def value(families, name, **labels):
    """The value of the sample with exactly these labels."""
    found = [sample.value for sample in families[name][1] if sample.labels == labels]
    assert len(found) == 1, (name, labels)
    return found[0]


async def busy_daemon(serve, start):
    """A daemon that has seen much. Its port."""
    world = await serve()
    await world.add_account("ana", videos=20)  # full chunks: nothing is asked for twice
    await authorize(world, "bob", 5, lives=-1)
    await world.add_account("carol", videos=1)
    await world.pool.execute("""
        UPDATE refresher.app SET rate = 100, rate_lowered_at = now(), client_refused_at = now()
    """)
    await world.pool.execute("""
        UPDATE refresher.accounts
        SET state = 'paused', state_reason = 'as carol asked', state_since = now(),
            refresh_token = 'rft.x', refresh_token_expires_at = now() + interval '2 days'
        WHERE open_id = 'carol'
    """)
    port = free_port()
    settings = {**SETTINGS, "rate_limit_per_app": 6000}
    daemon = await start(world, http_listen=f"127.0.0.1:{port}", **settings)
    await world.until_valid(25)
    await daemon.until_event("token.refreshed")

    async def seen():
        # The fleet is read anew every ten seconds; results are counted at the end of an account's work.
        families = await scraped(port)
        return (
            "refresher_videos" in families  # where the first reading was slow, it comes later
            and families["refresher_replicas"][1]
            and value(families, "refresher_videos", state="valid") == 25
            and value(families, "refresher_results_total", outcome="refreshed") == 25
        )

    await eventually(seen, "the fleet in /metrics")
    return port


async def test_metrics_of_a_daemon_are_those_of_the_page(serve, start):
    """Names, types and labels as in docs/metrics.md, and what happened is counted."""
    text = await text_of(await busy_daemon(serve, start))
    families = read(text)
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(PAGE)
    }
    assert listed == {
        name: (kind, {label for sample in samples for label in sample.labels})
        for name, (kind, samples) in families.items()
        if name.startswith("refresher_")
    }
    assert value(families, "refresher_requests_total", endpoint="token", outcome="ok") == 1
    assert value(families, "refresher_requests_total", endpoint="video_query", outcome="ok") == 2
    assert value(families, "refresher_token_renewals_total", outcome="renewed") == 1
    assert value(families, "refresher_results_total", outcome="refreshed") == 25
    assert value(families, "refresher_requested_videos_total") == 25
    assert value(families, "refresher_throttles_total", scope="app") == 0
    assert value(families, "refresher_accounts", state="active", reason="") == 2
    assert value(families, "refresher_accounts", state="paused", reason="other") == 1
    assert value(families, "refresher_ending_consents", within_days="3") == 1
    assert value(families, "refresher_database_up") == value(families, "refresher_upstream_up") == 1
    assert value(families, "refresher_requests_in_flight") == 0
    waits = [s for s in families["refresher_slot_wait_seconds"][1] if s.name.endswith("_count")]
    assert [sample.value for sample in waits] == [2]
    events = {sample.labels["event"] for sample in families["refresher_log_events_total"][1]}
    assert {"daemon.started", "account.refreshed", "token.refreshed"} <= events <= EVENTS.keys()
    for name in ("ana", "bob", "carol"):
        assert f'"{name}"' not in text
    check_by_promtool(text)


async def test_a_scrape_may_ask_for_some_metrics(serve, start):
    """By their names, those of the fleet and those of the replica."""
    port = await busy_daemon(serve, start)
    wanted = ["refresher_due_videos", "refresher_database_up"]
    text = await text_of(port, **{"name[]": wanted})
    assert set(read(text)) == set(wanted)


def check_by_promtool(text):
    """The form of the metrics, judged by Prometheus' own tool where it is installed."""
    if promtool := shutil.which("promtool"):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert done.stdout + done.stderr == ""


async def test_token_renewals_are_counted_by_outcome(serve, start):
    """Three accounts: one's grant is refused, one's request fails, and then the app is refused."""
    world = await serve()
    for name in ("ana", "bob", "carol"):
        await authorize(world, name, lives=-1)
    scripted = [oauth_error("invalid_grant", 400), oauth_error("server_error", 500)]
    world.emulator.answer_token_with = lambda _: (
        scripted.pop() if scripted else oauth_error("invalid_client", 401)
    )
    port = free_port()
    # One at a time: what is in flight when the app is refused would be refused, too.
    daemon = await start(world, http_listen=f"127.0.0.1:{port}", concurrency=1, **SETTINGS)
    await daemon.until_event("operations.served")

    async def counted():
        samples = (await scraped(port))["refresher_token_renewals_total"][1]
        found = {sample.labels["outcome"]: sample.value for sample in samples}
        return found == {"renewed": 0, "failed": 1, "parked": 1, "suspended": 1, "lost": 0}

    await eventually(counted, "an outcome of each kind")
    families = await scraped(port)
    for outcome in ("grant_refused", "token_request_failed", "client_refused"):
        assert value(families, "refresher_requests_total", endpoint="token", outcome=outcome) == 1


async def test_metrics_are_served_while_the_database_is_away(start):
    """Without what only the database knows."""
    port = free_port()
    daemon = await start(
        database_url=f"postgresql://127.0.0.1:{free_port()}/x", http_listen=f"127.0.0.1:{port}"
    )
    await daemon.until_event("database.lost")
    families = await scraped(port)
    assert "refresher_videos" not in families
    assert "refresher_accounts" not in families
    assert value(families, "refresher_database_up") == 0
    assert value(families, "refresher_snapshot_age_seconds") > 0
    assert value(families, "refresher_log_events_total", event="database.lost") == 1


def kinds(*counted):
    return [Kind(state, reason, accounts, None) for state, reason, accounts in counted]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param(kinds(("active", None, 9)), {("active", ""): 9}, id="no-reason"),
        pytest.param(
            kinds(("paused", "user 4711", 1), ("paused", "user 4712", 2), ("paused", "legal", 1)),
            {("paused", "other"): 3, ("paused", "legal"): 1},
            id="sentences",
        ),
        pytest.param(
            kinds(*(("paused", "a" * size, size) for size in range(1, MOST_REASONS + 6))),
            {
                **{("paused", "a" * size): size for size in range(6, MOST_REASONS + 6)},
                ("paused", "other"): 1 + 2 + 3 + 4 + 5,
            },
            id="many",
        ),
    ],
)
def test_reasons_do_not_make_the_metrics_grow(given, shown):
    """What others write as a reason is shown only if it is a word and frequent."""
    assert bounded(given) == shown
