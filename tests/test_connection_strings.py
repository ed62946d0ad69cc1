"""Connection strings as people paste them: each means what it means to libpq, or is said."""

import asyncio
import os
import subprocess
import sys

import pytest

from refresher.domain.connection_string import (
    ConnectionStringError,
    Host,
    read_connection_string,
)
from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres import opening
from refresher.postgres.database import acquired, connected
from refresher.postgres.failures import DatabaseRefusedError
from tests import faults
from tests.conftest import administer, eventually

HUSH = faults.PASSWORD
AS_NOBODY = """
import os, sys
import rich.console, rich.table
import refresher.cli.database, refresher.cli.errors, refresher.logs
import refresher.postgres.listing, refresher.postgres.status
from refresher.cli import main
from refresher.cli.commands import app
app(["accounts", "list", "--help"], standalone_mode=False)  # imports what is left
os.setuid(65534)
sys.argv[1:] = ["accounts", "list"]
main()
"""


def read(url, **environment):
    return read_connection_string(url, environment)


# --- What is read without a server ---


@pytest.mark.parametrize(
    ("url", "hosts", "database"),
    [
        ("postgresql://h/d", [("h", 5432)], "d"),
        ("postgres://h/d", [("h", 5432)], "d"),
        ("postgresql+asyncpg://h/d", [("h", 5432)], "d"),
        ("postgresql+psycopg2://h/d", [("h", 5432)], "d"),
        ("postgres+psycopg2://h/d", [("h", 5432)], "d"),
        ("postgres+psycopg://h/d", [("h", 5432)], "d"),
        ("postgresql://h:5432/d?port=6432", [("h", 6432)], "d"),
        ("postgresql://h/d?host=i&dbname=e", [("i", 5432)], "e"),
        ("postgresql://h:1,i:2/d", [("h", 1), ("i", 2)], "d"),
        ("postgresql://h,i/d?port=7", [("h", 7), ("i", 7)], "d"),
        ("postgresql://[::1]:6000/d", [("::1", 6000)], "d"),
        ("postgresql://%2Frun%2Fpg/d", [("/run/pg", 5432)], "d"),
        ("postgresql:///", [(None, 5432)], None),
    ],
)
def test_places(url, hosts, database):
    """Hosts, ports and database as libpq finds them; what stands behind the ? counts."""
    found = read(url)
    assert found.hosts == tuple(Host(*host) for host in hosts)
    assert found.database == database


@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("postgresql://u:p%40ss%2F%25@h/d", "u", "p@ss/%"),
        ("postgresql://u:p?s#s@h/d", "u", "p?s#s"),
        ("postgresql://u:p+s@h/d", "u", "p+s"),
        ("postgresql://h/d?user=v&password=q", "v", "q"),
    ],
)
def test_logins(url, user, password):
    """Decoded; a + stays one; and no password is in the repr."""
    found = read(url)
    assert (found.user, found.password) == (user, password)
    assert f"'{password}'" not in repr(found)


KEPT = [
    *(
        f"sslmode={mode}"
        for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
    ),
    *("connect_timeout=10", "keepalives=1", "keepalives_idle=30", "keepalives_interval=10"),
    *("keepalives_idle=32767", "keepalives_count=127", "keepalives_count=-1"),
    *("keepalives_count=3", "tcp_user_timeout=10000", "gssencmode=disable", "options=endpoint%3Dx"),
    *("channel_binding=disable", "application_name=a", "client_encoding=utf8"),
    *("target_session_attrs=read-write", "target_session_attrs=any", "load_balance_hosts=disable"),
    *("sslrootcert=system", "passfile=f", "sslmode=require&sslnegotiation=direct"),
]
IGNORED = [
    *("channel_binding=prefer", "channel_binding=require", "gssencmode=prefer", "pgbouncer=true"),
    *("schema=app", "load_balance_hosts=random", "sslcompression=1"),
]
REFUSED = [
    ("sslmode=no-verify", "expected sslmode=require"),
    ("ssl=true", "expected sslmode=require, not ssl=true"),
    ("requiressl=1", "expected sslmode=require"),
    ("supa=base-pooler.x", "not supa: leave it out"),
    ("statement_timeout=0", "options=-c%20name%3Dvalue"),
    ("database=d", "expected dbname"),
    ("hostaddr=127.0.0.1", "expected the address as host"),
    ("port=0", "expected a port"),
    ("port=x", "expected a port"),
    ("port=1,2", "one for each host, not 2 for 1"),
    ("keepalives_idle=32768", "32767 at most, not keepalives_idle=32768"),
    ("keepalives_interval=86400", "32767 at most, not keepalives_interval=86400"),
    ("keepalives_count=128", "127 at most, not keepalives_count=128"),
    ("tcp_user_timeout=2147483648", "not tcp_user_timeout=2147483648"),
    ("connect_timeout=soon", "expected whole seconds, not connect_timeout=soon"),
    ("channel_binding=yes", "expected require, prefer or disable"),
    ("channel_binding=require&sslmode=disable", "expected a host and TLS"),
    ("gssencmode=require", "expected gssencmode=disable"),
    ("require_auth=scram-sha-256", "expected a server known by sslmode=verify-full"),
    ("target_session_attrs=standby", "expected target_session_attrs=read-write"),
    ("service=s", "expected the service's own parameters"),
    ("sslrootcert=system&sslmode=require", "expected sslmode=verify-full"),
    ("sslnegotiation=direct", "expected sslmode=require with sslnegotiation=direct"),
    ("client_encoding=latin1", "expected client_encoding=UTF8"),
    ("options=endpoint=x", "expected = written as %3D"),
    ("application_name=%zz", "expected % written as %25"),
    ("sslmode", "expected parameters as name=value"),
    (f"scram_client_key={HUSH}", "not scram_client_key"),
]


@pytest.mark.parametrize("query", KEPT)
def test_parameters_that_are_kept(query):
    """No word is said about what means what it means to libpq."""
    assert read(f"postgresql://h/d?{query}").ignored == ()


@pytest.mark.parametrize("query", IGNORED)
def test_parameters_that_cannot_matter(query):
    """They are left out and named."""
    assert read(f"postgresql://h/d?{query}").ignored == (query.partition("=")[0],)


@pytest.mark.parametrize(("query", "words"), REFUSED)
def test_parameters_that_are_refused(query, words):
    """By name, with the word to write instead, and never with the password."""
    with pytest.raises(ConnectionStringError) as refused:
        read(f"postgresql://u:{HUSH}@h/d?{query}")
    assert words in str(refused.value)
    assert HUSH not in str(refused.value)


def test_a_bound_channel_becomes_a_certificate_that_is_checked():
    """The driver binds no channel: what it protects from is kept off in another way, not less."""
    found = read("postgresql://h/d?sslmode=require&channel_binding=require").parameters
    assert found == {"sslmode": "verify-full", "sslrootcert": "system"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://u:{HUSH}@x@h/d", "write @ as %40"),
        (f"postgresql://u:{HUSH}/x@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:x@x/{HUSH}@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:x@{HUSH}/x@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:x@x?{HUSH}=x@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:x@x/x?{HUSH}=x@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:x@x/x?x={HUSH}@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://u:5/x?{HUSH}=x@h/d", "write @ as %40, / as %2F"),
        (f"postgresql://h/d?password=x&{HUSH}=x", "& written as %26 in the value of password"),
        (f"postgresql://h/d?password=x&{HUSH}=x=x", "& written as %26 in the value of password"),
        (f"postgresql://h/d?sslpassword=x&{HUSH}", "& written as %26 in the value of sslpassword"),
        (f"postgresql://u:{HUSH}%zz@h/d", "% written as %25 in the password"),
        (f"postgresql://u:{HUSH}@h/d ", "ends with a blank or a line break"),
        (f"postgresql://u:{HUSH}@h/d\n", "ends with a blank or a line break"),
        (f" postgresql://u:{HUSH}@h/d", "begins with a blank"),
        (f"'postgresql://u:{HUSH}@h/d'", "quotes"),
        (f'"postgresql://u:{HUSH}@h/d"', "quotes"),
        (f"jdbc:postgresql://h/d?password={HUSH}", "JDBC"),
        (f"host=h dbname=d password={HUSH}", "keywords"),
        (f"psql 'postgresql://u:{HUSH}@h/d'", "command"),
        (f"DATABASE_URL=postgresql://u:{HUSH}@h/d", "a name stands before it"),
        ("postgresql://postgres:[YOUR-PASSWORD]@h/d", "placeholder"),
        (f"mysql://u:{HUSH}@h/d", "not the value given"),
    ],
)
def test_shapes_that_people_paste(url, words):
    """Each is named with what to do; the password is not."""
    with pytest.raises(ConnectionStringError) as refused:
        read(url)
    assert words in str(refused.value)
    assert HUSH not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PGSSLMODE", "no-verify", "not PGSSLMODE=no-verify"),
        ("PGSERVICE", "s", "not PGSERVICE=s"),
        ("PGTARGETSESSIONATTRS", "standby", "not PGTARGETSESSIONATTRS=standby"),
        ("PGREQUIREAUTH", "scram-sha-256", "not PGREQUIREAUTH"),
        ("PGHOSTADDR", "127.0.0.1", "expected the address as host"),
        ("PGPORT", "x", "expected a port"),
    ],
)
def test_variables_that_are_refused(variable, value, words):
    """As in the string, under the name they have in the environment."""
    with pytest.raises(ConnectionStringError) as refused:
        read("postgresql://h/d", **{variable: value})
    assert words in str(refused.value)


def test_variables_fill_what_the_string_leaves_open():
    """And only that; those that cannot matter are named."""
    found = read(
        "postgresql://h/",
        PGHOST="i",
        PGPORT="7",
        PGDATABASE="d",
        PGUSER="u",
        PGPASSWORD="p",
        PGSSLMODE="require",
        PGCHANNELBINDING="prefer",
        PGTZ="UTC",
        PGOPTIONS="-c a=b",
    )
    assert (found.hosts, found.user, found.password) == ((Host("h", 7),), "u", "p")
    assert found.database == "d"
    assert found.parameters == {"sslmode": "require", "options": "-c a=b"}
    assert found.ignored == ("PGCHANNELBINDING", "PGTZ")


# --- What only a server shows ---


@pytest.fixture(scope="module")
def own_server():
    """A server with TLS, which the embedded one is built without; its certificate is localhost's."""
    if not (faults.OLDEST / "pg_ctl").exists():
        pytest.skip(f"no server with TLS in {faults.OLDEST}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(faults, "programs", lambda: faults.OLDEST)
        yield from _server_with_tls()


def _server_with_tls():
    with faults.own_server() as server:
        folder = server.folder
        folder.parent.chmod(0o755)
        folder.chmod(0o750)
        subprocess.run(
            "openssl req -new -x509 -days 2 -nodes -subj /CN=localhost"
            " -addext subjectAltName=DNS:localhost -keyout server.key -out server.crt",
            shell=True, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        if user := faults.server_user():
            for name in ("server.key", "server.crt"):
                faults.shutil.chown(folder / name, user)
        (folder / "server.key").chmod(0o600)
        with (folder / "postgresql.conf").open("a") as settings:
            settings.write(f"ssl = on\nunix_socket_directories = '{folder}'\n")
        server.restart("fast")
        yield server


async def asked(url, query="SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"):
    async with connected(url, application_name="tests") as pool, acquired(pool) as connection:
        return await connection.fetchval(query)


@pytest.mark.parametrize(
    ("query", "encrypted"),
    [
        ("", True),
        ("sslmode=disable", False),
        ("sslmode=allow", False),
        ("sslmode=prefer", True),
        ("sslmode=require", True),
        ("sslmode=verify-ca&sslrootcert={ca}", True),
        ("sslmode=verify-full&sslrootcert={ca}", True),
        ("channel_binding=require&sslrootcert={ca}", True),
        ("sslmode=require&pgbouncer=true&schema=app&gssencmode=prefer", True),
        ("connect_timeout=10&keepalives_idle=30&tcp_user_timeout=9000&gssencmode=disable", True),
    ],
)
async def test_what_connects(own_server, query, encrypted):
    """Against a real server, with and without TLS as libpq would."""
    query = query.format(ca=own_server.folder / "server.crt")
    url = own_server.url.replace("127.0.0.1", "localhost")
    assert await asked(f"{url}?{query}".rstrip("?")) is encrypted


async def test_options_reach_the_server(own_server):
    """As libpq passes them on in the first message."""
    url = f"{own_server.url}?options=-c%20work_mem%3D5MB&application_name=mine"
    query = "SELECT current_setting('work_mem') || ' ' || current_setting('application_name')"
    assert await asked(url, query) == "5MB mine"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("options=endpoint%3Dep-cool-1234", "endpoint=ep-cool-1234"),
        ("sslmode=verify-full&sslrootcert=system", "sslrootcert"),
        ("sslmode=require&channel_binding=require", "sslrootcert"),
        ("sslmode=verify-ca&sslrootcert=/nowhere/ca.crt", "/nowhere/ca.crt: No such file"),
        ("sslcert=/nowhere/my.crt", "sslcert to be a file that can be read: /nowhere/my.crt"),
        ("sslkey=/nowhere/my.key", "/nowhere/my.key"),
        ("sslmode=require&sslcrl=/nowhere/crl", "/nowhere/crl"),
        ("sslmode=require&sslrootcert=/dev/null", "/dev/null"),
        ("sslmode=require&sslrootcert=/tmp", "/tmp: Is a directory"),
        ("dbname=postgres%20", "its name ends with a blank"),
    ],
)
async def test_what_is_refused_on_the_way(own_server, query, words):
    """In one line, with the place or the file, at once: nothing is tried again at the start."""
    url = own_server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(DatabaseRefusedError) as refused:
        await asyncio.wait_for(asked(f"{url}?{query}"), 20)
    assert words in str(refused.value)
    assert HUSH not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "encrypted"), [("", True), ("sslmode=disable", False), ("sslmode=require", True)]
)
async def test_the_machine_itself_without_a_socket(own_server, query, encrypted):
    """No host means a socket; where there is none, TCP has the TLS that is asked for."""
    url = f"postgresql://postgres:{HUSH}@/postgres?port={own_server.port}&{query}".rstrip("&")
    assert await asked(url) is encrypted
    with pytest.raises(DatabaseRefusedError, match="sslrootcert"):
        await asked(f"postgresql://postgres@:{own_server.port}/postgres?sslmode=verify-full")


async def test_the_machine_itself_through_its_socket(own_server, tmp_path, monkeypatch):
    """There nobody can listen: TLS has no place, and no file of it is looked for."""
    monkeypatch.setattr(opening, "SOCKET_FOLDERS", (tmp_path, own_server.folder))
    url = f"postgresql://postgres@:{own_server.port}/postgres?sslmode=verify-full"
    assert await asked(url) is False


async def test_a_keepalive_that_the_system_does_not_take(own_server, monkeypatch):
    """It is named, and no connection stays open behind it."""
    monkeypatch.setattr(opening, "KEEPALIVE", (("TCP_KEEPIDLE", 40_000, "keepalives_idle"),))
    for _ in range(3):
        with pytest.raises(DatabaseRefusedError, match="expected keepalives_idle as"):
            await asked(f"{own_server.url}?application_name=leaky")
    monkeypatch.undo()
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaky'"

    async def none_left():
        return await asked(own_server.url, left) == 0

    await eventually(none_left, "no connection left")


@pytest.mark.parametrize("command", ["run", "once", "status", "migrate"])
async def test_commands_end_with_one_line(own_server, start, command):
    """Exit 2, and no traceback."""
    url = f"{own_server.url}?sslmode=require&sslrootcert=/nowhere/ca.crt"
    done = await start(command=command, database_url=url)
    assert await done.ended() == 2
    text = done.output.read_text()
    assert "/nowhere/ca.crt" in text.splitlines()[-1]
    assert "Traceback" not in text


async def test_what_is_ignored_is_said_by_commands(own_server, start):
    """On a line of its own."""
    done = await start(command="status", database_url=f"{own_server.url}?pgbouncer=true")
    await done.ended()
    assert "left out: pgbouncer;" in done.output.read_text()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["end", "HTTP"])
async def test_a_port_that_speaks_no_postgresql(answer):
    """Host, port and database are named, with what may be wrong."""

    async def serve(reader, writer):
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match="does PostgreSQL answer") as away:
            await asked(f"postgresql://u:{HUSH}@127.0.0.1:{port}/d")
    assert f"127.0.0.1:{port}/d: " in str(away.value)


async def test_a_host_that_nobody_knows():
    """The hint is at what mostly made it one."""
    with pytest.raises(DatabaseUnavailable, match=r"nowhere\.invalid:5432/d: .*percent-encoded"):
        await asked(f"postgresql://u:{HUSH}@nowhere.invalid/d")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as another user")
async def test_a_home_of_somebody_else(own_server, tmp_path):
    """A key that may not be looked at ends with its name."""
    home = tmp_path / "home"
    (home / ".postgresql").mkdir(parents=True)
    home.chmod(0o700)
    environment = {**os.environ, "HOME": str(home), "REFRESHER_DATABASE_URL": own_server.url}
    done = await asyncio.to_thread(
        subprocess.run,
        # It becomes the other user when all is imported: that one may not read our folders.
        [sys.executable, "-c", AS_NOBODY],
        env=environment, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 2
    assert "postgresql.crt: Permission denied" in done.stderr


async def test_a_role_that_may_not_write(own_server, start):
    """default_transaction_read_only is named at the start."""
    await administer(
        own_server.url,
        "DROP DATABASE IF EXISTS reading",
        "CREATE DATABASE reading",
    )
    url = own_server.url_of("reading")
    assert await (await start(command="migrate", database_url=url)).ended() == 0
    await administer(
        own_server.url, "ALTER DATABASE reading SET default_transaction_read_only = on"
    )
    done = await start(database_url=url)
    assert await done.ended() == 2
    assert "default_transaction_read_only is on" in done.output.read_text()
