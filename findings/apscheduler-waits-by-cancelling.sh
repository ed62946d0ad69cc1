#!/usr/bin/env bash
# APScheduler's shutdown(wait=True) cancels the coroutine jobs it is asked to wait for.
#
# Library: APScheduler 3.11.3, AsyncIOScheduler.
# Documentation: wait is True to wait until all currently executing jobs have finished. That is its default, too.
# Surprise: with asyncio's executor it cannot wait, so it cancels: a job that was about to commit never does. The cancelled
#   job is logged as one that raised, which reads like a fault of its own.
# The refresher: lets a job only set an event. The work, and the wait for it at the end, are its own loop's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet apscheduler==3.11.3

cat > "$work/shutdown.py" <<'PY'
import asyncio
import logging
import sys
from datetime import UTC

import apscheduler
from apscheduler.schedulers.asyncio import AsyncIOScheduler

logging.disable()


async def main():
    began, ended = asyncio.Event(), []

    async def job():
        began.set()
        try:
            await asyncio.sleep(0.3)
            ended.append("finished")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_job(job)
    scheduler.start()
    await began.wait()
    scheduler.shutdown(wait=True)
    await asyncio.sleep(1)
    return ended


print(f"versions: APScheduler {apscheduler.version}")
EXPECTED, FOUND = ["finished"], ["cancelled"]
seen = asyncio.run(main())
print(f"expected: {EXPECTED}\nseen:     {seen}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/shutdown.py"
echo 'as found'
