#!/usr/bin/env bash
# A wall clock that is set back stops APScheduler's interval jobs for as long, and one that is set ahead makes it list each
# missed run although they are coalesced.
#
# Library: APScheduler 3.11.3, AsyncIOScheduler; libfaketime sets the clock of one process.
# Documentation: an interval trigger runs a job at fixed intervals; coalesce runs it once instead of many times where several
#   runs were missed. asyncio, which it runs on, goes by the monotonic clock.
# Surprise: after ten minutes back, a job of every second does not run for ten minutes. After six hours ahead, 21,600
#   times are made and held before all but one are dropped: at a step of months the loop stands still meanwhile.
# The refresher: decides by the monotonic clock what is due; the scheduler is told how long is left, anew within a second of a
#   step, which is said (clock.stepped).
set -euo pipefail
library=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -n 1)
if [ -z "$library" ]; then
  echo 'this needs libfaketime (Debian: apt-get install libfaketime)'
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet apscheduler==3.11.3

cat > "$work/clock.py" <<'PY'
import asyncio
import sys
import time
from datetime import UTC
from pathlib import Path

import apscheduler
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

listed = 0


class Counted(IntervalTrigger):
    """Counts the times that the scheduler asks for."""

    def get_next_fire_time(self, previous, now):
        global listed
        listed += 1
        return super().get_next_fire_time(previous, now)


def set_clock(seconds):
    Path(sys.argv[1]).write_text(f"{seconds:+d}\n")


async def main():
    runs = []

    async def job():
        runs.append(time.monotonic())

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_job(job, Counted(seconds=1, timezone=UTC), coalesce=True, max_instances=1, misfire_grace_time=None)
    scheduler.start()
    await asyncio.sleep(3.5)
    kept = len(runs)
    set_clock(-600)
    await asyncio.sleep(1.5)  # the run that is already timed
    runs.clear()
    await asyncio.sleep(5)
    back = len(runs)
    runs.clear()
    set_clock(+21_600)
    before = listed
    scheduler.wakeup()
    await asyncio.sleep(0.5)
    return kept >= 2, back, len(runs), listed - before > 20_000


wall, monotonic = time.time(), time.monotonic()
set_clock(3_600)
if not (time.time() - wall > 3_000 and time.monotonic() - monotonic < 60):
    sys.exit("libfaketime does not set this process's wall clock alone")
set_clock(0)
print(f"versions: APScheduler {apscheduler.version}")
NAMES = ("runs every second at first", "runs in 5 s after 10 min back", "runs after 6 h ahead", "more than 20,000 times listed")
EXPECTED, FOUND = (True, 5, 1, False), (True, 0, 1, True)
seen = asyncio.run(main())
for name, expected, was in zip(NAMES, EXPECTED, seen, strict=True):
    print(f"{name}: expected {expected}, seen {was}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
echo '+0' > "$work/clock"
# The two DONT_FAKE names are one setting in two ages of the library.
LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE="$work/clock" FAKETIME_NO_CACHE=1 \
  FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 "$work/venv/bin/python" "$work/clock.py" "$work/clock"
echo 'as found'
