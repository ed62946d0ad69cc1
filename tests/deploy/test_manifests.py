"""The manifests by Kubernetes' own schemas: run by `make test-deploy`, not by `make test`.

The schemas weigh 100 MB, so they lie in an environment of their own, `.venv-deploy`. A
ServiceMonitor is not Kubernetes' own: tests/test_kubernetes.py holds it to what it selects.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops" / "kubernetes"
OTHERS = {"kustomization.yaml", "servicemonitor.yaml"}
MANIFESTS = sorted(file for file in FOLDER.glob("*.yaml") if file.name not in OTHERS)
#: The oldest that knows all properties, and the newest that the validator knows.
VERSIONS = ("1.27", "1.37")


def judged(version, *files):
    """The validator's exit code and what it says. Unknown properties are errors."""
    program = ROOT / ".venv-deploy/bin/kubernetes-validate"
    done = subprocess.run(
        [program, "--strict", "--kubernetes-version", version, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_valid(version):
    """Each of them, in old and new clusters."""
    code, said = judged(version, *MANIFESTS)
    assert (code, said.count(" passed ")) == (0, len(MANIFESTS)), said


def test_a_misspelt_property_is_refused(tmp_path):
    """So the validator judges, and does not only read."""
    wrong = tmp_path / "deployment.yaml"
    text = (FOLDER / "deployment.yaml").read_text()
    wrong.write_text(text.replace("readinessProbe", "readynessProbe"))
    code, said = judged(VERSIONS[-1], wrong)
    assert code
    assert "readynessProbe" in said


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_what_kustomize_makes_is_valid(tmp_path):
    """With the image and the settings put in."""
    made = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, check=True).stdout
    (tmp_path / "made.yaml").write_bytes(made)
    code, said = judged(VERSIONS[-1], tmp_path / "made.yaml")
    assert code == 0, said
    assert b"image: registry.example.com/cover-refresher:" in made
