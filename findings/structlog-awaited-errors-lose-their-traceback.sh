#!/usr/bin/env bash
# structlog's await log.aerror(…, exc_info=True) logs no traceback, and says nothing of it.
#
# Library: structlog 26.1.0, its own loggers and those before the standard library's logging.
# Documentation: every log method has an async variant, so await log.ainfo("hello") stands for log.info("hello"), run in a
#   thread. exc_info=True is replaced by the exception that is being handled.
# Surprise: it is replaced in the thread, where none is being handled, so the field goes away as if there had been
#   no exception. aexception alone looks before it changes threads. Calls that were made async with an "a" and an "await" log
#   without their tracebacks from then on, at the very lines that are for failures.
# The refresher: logs synchronously, and passes exceptions as values.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet structlog==26.1.0

cat > "$work/tracebacks.py" <<'PY'
import asyncio
import importlib.metadata
import io
import logging
import sys

import structlog
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import BoundLogger, LoggerFactory

written = io.StringIO()
logging.basicConfig(stream=written, format="%(message)s", level=logging.INFO)
logging.getLogger("asyncio").setLevel(logging.WARNING)
WAYS = {
    "structlog's own": {
        "wrapper_class": structlog.make_filtering_bound_logger("info"),
        "logger_factory": structlog.PrintLoggerFactory(written),
    },
    "before logging": {"wrapper_class": BoundLogger, "logger_factory": LoggerFactory()},
}


def traceback_logged():
    line = written.getvalue()
    written.seek(0)
    written.truncate()
    return {True: "traceback", False: "none"}["ZeroDivisionError" in line]


async def main():
    for way, settings in WAYS.items():
        structlog.configure(processors=[format_exc_info, JSONRenderer()], **settings)
        log = structlog.get_logger()
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            log.error("chunk.failed", exc_info=True)
            yield way, "error, True", traceback_logged()
            await log.aexception("chunk.failed")
            yield way, "aexception", traceback_logged()
            await log.aerror("chunk.failed", exc_info=error)
            yield way, "aerror, the exception", traceback_logged()
            await log.aerror("chunk.failed", exc_info=True)
            yield way, "aerror, True", traceback_logged()
            await log.awarning("chunk.failed", exc_info=True)
            yield way, "awarning, True", traceback_logged()


async def collected():
    return [row async for row in main()]


print(f"versions: structlog {importlib.metadata.version('structlog')}, Python {sys.version.split()[0]}")
seen = asyncio.run(collected())
for way, call, logged in seen:
    print(f"{way}, {call}: expected traceback, seen {logged}")
FOUND = ["traceback", "traceback", "traceback", "none", "none"] * len(WAYS)
sys.exit([logged for _, _, logged in seen] != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/tracebacks.py"
echo 'as found'
