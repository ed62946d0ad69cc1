"""The labels of the image, held to the package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r'org\.opencontainers\.image\.(\w+)="([^"]*)"')


def test_the_labels_are_those_of_the_package():
    """Only the commit is said by who builds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dict(LABEL.findall((ROOT / "Dockerfile").read_text())) == {
        "title": project["name"],
        "description": project["description"],
        "version": project["version"],
        "licenses": project["license"],
        "revision": "${REVISION}",
    }
