"""Versions of the refresher that a benchmark compares."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.world import module


@dataclass(frozen=True, slots=True)
class Build:
    """A version of the refresher. `folder`: of its checkout; None: this one."""

    name: str
    folder: Path | None = None

    @property
    def variables(self) -> Mapping[str, str]:
        """Lead a Python process to its checkout."""
        if self.folder is None:
            return {}
        return {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}

    def migrate(self, url: str) -> None:
        """Bring a database to the revision of this build."""
        environment = {**os.environ, **self.variables, "REFRESHER_DATABASE_URL": url}
        subprocess.run(module("refresher", "migrate"), env=environment, check=True)


def compared(against: Path | None) -> Sequence[Build]:
    """This build, and the one of the checkout that `--against` names."""
    ours = Build("this build")
    return [ours] if against is None else [ours, Build("the build before", against.resolve())]
