"""How little is loaded before a command runs."""

import subprocess
import sys

import pytest

#: What takes longest to load. Pydantic itself is missing: Typer checks options with it.
HEAVY = (
    "aiohttp", "alembic", "apscheduler", "asyncio", "asyncpg", "cryptography", "msgspec",
    "pydantic_settings", "rich", "sqlalchemy", "structlog", "uvloop",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["accounts", "--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    """Help is answered with what the standard library and Typer bring."""
    script = (
        "import sys\n"
        "from refresher.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    assert done.stderr == "loaded:\n"
