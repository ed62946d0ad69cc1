"""The demo's PostgreSQL changes nothing of the machine, whoever runs it."""

import asyncio
import os
import pwd
import shutil
import stat
from pathlib import Path

import asyncpg
import pytest

from refresher import embedded
from refresher.demo import temporary_postgres
from refresher.embedded import folder_for_servers, installed, programs, server_user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")


def modes(*paths):
    return {
        path: (status.st_mode, status.st_uid, status.st_gid)
        for start in paths
        for path in (start, *start.parents)
        for status in [path.stat()]
    }


def users():
    return [Path(name).read_text() for name in ("/etc/passwd", "/etc/group")]


async def ask(url):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT sum(i) FROM generate_series(1, 10) AS i")
    finally:
        await connection.close()


def test_a_server_leaves_no_trace():
    """Users and the folders above the programs are as before; its own folders are gone."""
    programs = installed() / "pginstall"
    before = users(), modes(programs / "bin" / "postgres", programs / "lib")
    with temporary_postgres() as url:
        assert asyncio.run(ask(url)) == 55
        (own,) = (Path(part.removeprefix("host=")) for part in url.split("?")[1:])
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert (users(), modes(programs / "bin" / "postgres", programs / "lib")) == before
    assert not own.exists()


@as_root
def test_a_server_has_no_group_of_roots():
    """Neither of root's own nor of those that root is in."""
    nobody = pwd.getpwnam(server_user())
    assert embedded.run("/usr/bin/id", "-G").split() == [str(nobody.pw_gid)]
    with temporary_postgres() as url:
        (own,) = (Path(part.removeprefix("host=")) for part in url.split("?")[1:])
        sockets = [path.stat() for path in own.glob(".s.PGSQL.*")]
    assert {status.st_gid for status in sockets} == {nobody.pw_gid}


def copied(folder, mode):
    """The package in another place, with these rights for all of it."""
    package = folder / installed().name
    shutil.copytree(installed(), package, symlinks=True)
    libraries = f"{package.name}.libs"
    if installed().with_name(libraries).is_dir():
        shutil.copytree(installed().with_name(libraries), folder / libraries, symlinks=True)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode)
    return package


@as_root
@pytest.mark.parametrize(("above", "inside"), [(0o700, 0o755), (0o755, 0o700)])
def test_what_the_servers_user_may_not_read_is_copied_for_it(monkeypatch, above, inside):
    """An environment in root's home, or installed under a strict umask: it stays closed."""
    with folder_for_servers() as folder:
        shutil.chown(folder, "root")
        package = copied(folder, inside)
        folder.chmod(above)
        monkeypatch.setattr(embedded, "installed", lambda: package)
        kept = package / "pginstall" / "bin" / "postgres", package / "pginstall" / "share"
        before = users(), modes(*kept)
        with programs() as used:
            assert folder not in used.parents
        with temporary_postgres() as url:
            assert asyncio.run(ask(url)) == 55
        assert (users(), modes(*kept)) == before
    assert not used.exists()


@as_root
def test_programs_that_all_may_read_are_run_where_they_are(monkeypatch):
    """No copy without need."""
    with folder_for_servers() as folder:
        package = copied(folder, 0o755)
        folder.chmod(0o755)
        monkeypatch.setattr(embedded, "installed", lambda: package)
        with programs() as used:
            assert used == package / "pginstall" / "bin"


@as_root
def test_a_temporary_folder_out_of_the_servers_reach_is_not_used(monkeypatch, tmp_path):
    """TMPDIR in root's home: it stays closed, and another place is taken."""
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "closed"))
    with folder_for_servers() as folder:
        assert tmp_path not in folder.parents
        assert folder.owner() == server_user()


def test_what_went_wrong_is_said(tmp_path):
    """The program's own words, in an error that ends in one line and exit 2."""
    with programs() as folder, pytest.raises(OSError, match=r"^pg_ctl failed: .*is not a"):
        embedded.run(folder / "pg_ctl", "-D", "/", "-s", "stop")


def test_a_missing_extra_is_named(monkeypatch):
    """As an import would name it."""
    monkeypatch.setattr(embedded, "PACKAGE", "embedded_postgres_that_is_not_there")
    with pytest.raises(ModuleNotFoundError) as raised:
        installed()
    assert raised.value.name == "embedded_postgres_that_is_not_there"
