"""The SBOM: run by `make test-deploy`. What writes it also holds it to CycloneDX's schema."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"^[\w.-]+==.+?(?= \\$)", re.MULTILINE)


def locked():
    """What requirements.lock names for this machine."""
    for found in LOCKED.findall((ROOT / "requirements.lock").read_text()):
        requirement = Requirement(found)
        if not requirement.marker or requirement.marker.evaluate():
            yield requirement.name, str(requirement.specifier).removeprefix("==")


def test_the_sbom_names_what_the_image_holds(tmp_path):
    """Each package of the lock with its version and licence, and nothing else."""
    made = tmp_path / "sbom.json"
    subprocess.run(["make", "sbom", f"SBOM={made}"], cwd=ROOT, check=True)
    bom = json.loads(made.read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "cover-refresher",
    )
    listed = {(canonicalize_name(one["name"]), one["version"]) for one in bom["components"]}
    assert listed == set(locked())
    assert all(one["licenses"] for one in bom["components"])
    assert {one["ref"] for one in bom["dependencies"]} > {
        one["bom-ref"] for one in bom["components"]
    }
