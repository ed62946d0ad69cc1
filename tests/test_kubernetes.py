"""The manifests of ops/kubernetes, held to each other and to what a daemon does."""

import tomllib
from dataclasses import fields
from pathlib import Path

import aiohttp
import pytest
import yaml

from refresher.settings import Settings
from tests.conftest import eventually, free_port

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "ops" / "kubernetes"
MANIFESTS = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.glob("*.yaml")}
PODS = {name: MANIFESTS[name]["spec"]["template"] for name in ("deployment", "migrate")}
DAEMON = PODS["deployment"]
CONTAINER = DAEMON["spec"]["containers"][0]
SETTINGS = dict(
    literal.split("=", 1)
    for literal in MANIFESTS["kustomization"]["configMapGenerator"][0]["literals"]
)


def selects(selector, labels):
    return selector.items() <= labels.items()


async def test_a_daemon_answers_the_probes(serve, start):
    """At the paths and the port that Kubernetes asks."""
    port = free_port()
    listens = SETTINGS["REFRESHER_HTTP_LISTEN"]
    assert listens == f"0.0.0.0:{CONTAINER['ports'][0]['containerPort']}"
    daemon = await start(await serve(), http_listen=listens.replace("8080", str(port)))
    await daemon.until_event("daemon.started")
    probes = [CONTAINER[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert {probe["port"] for probe in probes} == {CONTAINER["ports"][0]["name"]}
    scraped = MANIFESTS["servicemonitor"]["spec"]["endpoints"][0]["path"]
    async with aiohttp.ClientSession() as session:
        for path in (*(probe["path"] for probe in probes), scraped):

            async def is_good(path=path):
                async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                    return response.status == 200

            await eventually(is_good, path)


def test_what_is_selected_is_there():
    """By labels and names of ports: a wrong one selects nothing, and nobody says so."""
    labels = DAEMON["metadata"]["labels"]
    service, monitor = MANIFESTS["service"], MANIFESTS["servicemonitor"]
    for selector in (
        MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["poddisruptionbudget"]["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
    ):
        assert selects(selector, labels)
        assert not selects(selector, PODS["migrate"]["metadata"]["labels"])
    assert selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    port = service["spec"]["ports"][0]
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    assert port["targetPort"] == CONTAINER["ports"][0]["name"]
    policy = MANIFESTS["networkpolicy"]["spec"]
    for pod in PODS.values():
        assert selects(policy["podSelector"]["matchLabels"], pod["metadata"]["labels"])


def test_nothing_is_reached_but_names_tiktok_and_the_database():
    """By port; and only who scrapes reaches a daemon."""
    policy = MANIFESTS["networkpolicy"]["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert (set(policy["policyTypes"]), ports) == ({"Ingress", "Egress"}, {53, 443, 5432})
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_has_few_rights(pod):
    """What the level `restricted` of Kubernetes asks for, and no token, no file to write."""
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"secrets": "/run/secrets", "tmp": "/tmp"}


def test_a_stop_has_the_time_that_it_needs():
    """Kubernetes kills later than the daemon gives up."""
    (grace,) = (
        field.default for field in fields(Settings) if field.name == "shutdown_grace_seconds"
    )
    assert DAEMON["spec"]["terminationGracePeriodSeconds"] >= grace + 5


def test_both_pods_run_this_version():
    """A schema of another version than the daemon's would be refused."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (image,) = MANIFESTS["kustomization"]["images"]
    assert image["name"] == CONTAINER["image"]
    assert image["newTag"] == version
    migrates = PODS["migrate"]["spec"]["containers"][0]["image"]
    assert migrates == f"{image['newName']}:{version}"


def test_the_daemon_is_made_of_all_manifests():
    """But for what goes before it, and what not every cluster knows."""
    files = {file.name for file in FOLDER.glob("*.yaml")}
    resources = set(MANIFESTS["kustomization"]["resources"])
    assert files - resources == {"kustomization.yaml", "migrate.yaml", "servicemonitor.yaml"}
