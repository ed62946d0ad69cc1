#!/usr/bin/env bash
# What is logged by await and structlog waits for threads that others hold: it bears the time at which it got one, shows values as
# they are then, and is lost where its task has a time-out.
#
# Library: structlog 26.1.0 on asyncio.
# Documentation: await log.ainfo() runs in a thread, so that logging does not make the application hang. TimeStamper adds the
#   time; one would think, of the event.
# Surprise: the thread is one of asyncio's few for everything: to_thread, files and the look-up of host names have the same ones.
#   While a name server does not answer, they are all taken. Then the awaited call stands still for as long, so the task
#   that wanted to say so does no work either; the line, when it comes, is stamped later than what happened after it. Where a
#   time-out ends the wait, the line never comes, though the call had been made in time.
# The refresher: logs synchronously, a line of some hundred bytes to a pipe.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet structlog==26.1.0

cat > "$work/threads.py" <<'PY'
import asyncio
import importlib.metadata
import io
import json
import sys
import threading
import time

import structlog
from structlog.processors import JSONRenderer, TimeStamper

written = io.StringIO()
structlog.configure(
    processors=[TimeStamper(fmt=None), JSONRenderer()],
    wrapper_class=structlog.make_filtering_bound_logger("info"),
    logger_factory=structlog.PrintLoggerFactory(written),
)
log = structlog.get_logger()


async def main():
    answered = threading.Event()
    # More than asyncio has, on any machine; a resolver that gets no answer holds its thread alike.
    lookups = [asyncio.create_task(asyncio.to_thread(answered.wait)) for _ in range(64)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(0.5):
            await log.awarning("account.gave_up")
    except TimeoutError:
        pass
    counts = {"failures": 1}
    called = time.time()
    first = asyncio.create_task(log.awarning("host.away", counts=counts))
    await asyncio.sleep(0.5)
    counts["failures"] = 2
    log.info("host.asked_again")
    answered.set()
    await asyncio.gather(first, *lookups)
    return called


called = asyncio.run(main())
lines = [json.loads(line) for line in written.getvalue().splitlines()]
by_name = {line["event"]: line for line in lines}
late = by_name["host.away"]["timestamp"] - called
seen = {
    "events, in the order of their times": [line["event"] for line in sorted(lines, key=lambda line: line["timestamp"])],
    "failures when host.away was logged": by_name["host.away"]["counts"]["failures"],
    "host.away is stamped half a second late": late >= 0.5,
}
EXPECTED = dict(zip(seen, (["account.gave_up", "host.away", "host.asked_again"], 1, False), strict=True))
FOUND = dict(zip(seen, (["host.asked_again", "host.away"], 2, True), strict=True))
print(f"versions: structlog {importlib.metadata.version('structlog')}, Python {sys.version.split()[0]}")
for name, value in seen.items():
    print(f"{name}: expected {EXPECTED[name]}, seen {value}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/threads.py"
echo 'as found'
