"""Alerts and dashboard of ops/, held to what a real daemon shows."""

import asyncio
import json
import re
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import eventually, free_port
from tests.test_metrics import busy_daemon, scraped

ROOT = Path(__file__).parents[1]
RULES = ROOT / "ops" / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "refresher.json").read_text())
ALERTS = re.compile(r"- alert: (\w+)")
METRIC = re.compile(r"\b(?:refresher|process)_\w+")
MATCHER = re.compile(r"\b(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
#: What Prometheus adds.
ADDED = {"job", "instance"}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed"
)
needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="Prometheus is not installed"
)


def queries():
    """Each query of the dashboard, with its variables filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$job", ".*").replace("$__rate_interval", "10s")
            yield f"{panel['title']}: {target['refId']}", query


def test_the_dashboard_is_portable():
    """Each panel takes the data source that is chosen at the top."""
    sources = [
        part["datasource"]["uid"]
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
        for part in (panel, *panel["targets"])
    ]
    assert set(sources) == {"${datasource}"}
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "job"]


def test_each_alert_leads_to_its_section_of_the_runbook():
    """And each says in words what is wrong."""
    rules = re.split(r"\n(?= +- alert:)", RULES.read_text())[1:]
    for rule in rules:
        name = ALERTS.search(rule)[1]
        assert f"/docs/runbook.md#{name.lower()}\n" in rule + "\n"
        assert re.search(r"severity: (critical|warning)\n", rule)
        assert "summary: " in rule
        assert "description: " in rule


@needs_promtool
@pytest.mark.parametrize(
    "check", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_the_alerts_fire_when_they_should(check):
    """By promtool: the rules are well-formed, and each fires and does not fire."""
    done = subprocess.run(
        ["promtool", *check], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested():
    """Each is expected to fire in one of the tests."""
    tested = (RULES.parent / "alerts_test.yml").read_text()
    assert all(f'alertname="{name}"' in tested for name in ALERTS.findall(RULES.read_text()))


@asynccontextmanager
async def prometheus(folder, target):
    """A Prometheus that scrapes the target every second. Its port."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{RULES}']\n"
        "scrape_configs: [{job_name: refresher, static_configs:"
        f" [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def ask(session, port, query):
    """The result of a query; empty while Prometheus does not answer."""
    url = f"http://127.0.0.1:{port}/api/v1/query"
    try:
        async with session.get(url, params={"query": query}) as response:
            answer = await response.json()
    except aiohttp.ClientError:
        return []
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


async def test_queries_name_what_a_daemon_shows(serve, start):
    """Each metric and label of dashboard and alerts is one that a scrape has."""
    families = await scraped(await busy_daemon(serve, start))
    shown = {sample.name: set() for _, samples in families.values() for sample in samples}
    for _, samples in families.values():
        for sample in samples:
            shown[sample.name] |= set(sample.labels)
    texts = dict(queries())
    texts["alerts"] = RULES.read_text().replace("refresher/docs", "").replace("name: refresher", "")
    for title, text in texts.items():
        metrics = set(METRIC.findall(text))
        assert metrics <= set(shown), title
        labels = {label for group in GROUPED.findall(text) for label in re.split(r",\s*", group)}
        known = ADDED.union(*(shown[metric] for metric in metrics))
        assert labels | set(MATCHER.findall(text)) <= known, title


@needs_prometheus
async def test_each_query_of_the_dashboard_returns_data(serve, start, tmp_path):
    """From a real Prometheus that has scraped a real daemon; no rule of the alerts fails there."""
    target = await busy_daemon(serve, start)
    async with prometheus(tmp_path, target) as port, aiohttp.ClientSession() as session:
        for title, query in queries():

            async def answered(query=query):
                return await ask(session, port, query)

            await eventually(answered, f"data for {title}")
        url = f"http://127.0.0.1:{port}/api/v1/rules"
        async with session.get(url) as response:
            groups = (await response.json())["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health.values()) == {"ok"}
    assert set(health) == set(ALERTS.findall(RULES.read_text()))
