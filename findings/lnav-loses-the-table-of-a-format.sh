#!/usr/bin/env bash
# A field of a log that is called "limit" takes the whole table of its format away, and no check says so.
#
# Program: lnav 0.11.1 (Debian 12).
# Documentation: a format's values become columns of an SQL table named after the format; `lnav -C` checks the formats.
# Surprise: with a value whose name is a word of SQL ("limit"), the table does not exist: the name is not quoted where the
#   table is declared. The check passes without a word, the log is shown as it should be, and only who asks by SQL is told
#   "no such table". One field takes away all the others.
# The refresher: `connections.limited` has a field `limit`; the format in ops/lnav/ leaves its column out, and a test holds
#   that the table is there.
set -euo pipefail
VERSION=0.11.1-3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/debian"
cd "$work/debian"
# The package and the libraries it links, unpacked here and not installed.
if ! apt-get -qq -o APT::Sandbox::User=root download "lnav=$VERSION" libarchive13 libcurl3-gnutls libncursesw6 libpcre2-8-0 \
  libsqlite3-0 libtinfo6 >log 2>&1; then
  echo "this needs apt-get, and lnav $VERSION to be had by it (Debian 12; apt-get update)"
  exit 2
fi
for package in ./*.deb; do dpkg -x "$package" .; done
libraries=$(echo "$work"/debian/usr/lib/*-linux-gnu):$(echo "$work"/debian/lib/*-linux-gnu)
lnav() { env HOME="$work/$field" XDG_CONFIG_HOME="$work/$field" LD_LIBRARY_PATH="$libraries" "$work/debian/usr/bin/lnav" "$@"; }
field=any
if ! lnav -V >log 2>&1; then
  echo "this needs the libraries that lnav $VERSION links: $(tail -n 1 log)"
  exit 2
fi
seen=
for field in limit ceiling; do
  mkdir -p "$work/$field/lnav/formats/installed"
  cat >"$work/$field/lnav/formats/installed/app.json" <<JSON
{
 "\$schema": "https://lnav.org/schemas/format-v1.schema.json",
 "app_log": {
  "title": "app", "description": "A log of an app.", "json": true,
  "timestamp-field": "timestamp", "body-field": "event",
  "value": {"event": {"kind": "string"}, "$field": {"kind": "integer"}, "waited": {"kind": "integer"}}
 }
}
JSON
  line='{"timestamp": "2026-11-28T10:00:00.000000Z", "event": "app.waited", "%s": 3, "waited": 7}\n'
  # shellcheck disable=SC2059
  printf "$line" "$field" >"$work/$field.log"
  checked=$(lnav -C 2>&1) && checked=${checked:-good}
  asked=$(lnav -n -c ';SELECT waited FROM app_log' "$work/$field.log" 2>&1 || true)
  seen+="$field: check $checked; $(grep -Eo 'no such table: app_log|\b7\b' <<<"$asked" | head -n 1)"$'\n'
done
echo "versions: $(lnav -V)"
EXPECTED='7 for each'
FOUND='limit: check good; no such table: app_log
ceiling: check good; 7
'
printf 'expected: %s\nseen:\n%s' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
