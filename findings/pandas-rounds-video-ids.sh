#!/usr/bin/env bash
# One empty cell makes pandas round all video IDs of a file, so that two videos become one.
#
# Library: pandas 3.1.1.
# Documentation: read_csv infers int64 for whole numbers, which holds TikTok's 19 digits; empty cells are NaN. read_json keeps
#   what JSON says, where an ID is a string. One would think that a missing value is that row's matter.
# Surprise: NaN is a float, so the whole column is: 7077642457847994444 and …445 are the same number, written as
#   7.077642457847994e+18, or as 7077642457847994368 where somebody asks for no exponent, which looks like an ID. read_json
#   makes numbers of strings, so a list of videos in JSON with one null among the IDs loses them too.
# The refresher: refuses IDs with an exponent and says why, keeps IDs as text everywhere, and warns of IDs that look rounded (they end
#   in zeros); an ID like …368 cannot be told from a true one: it comes back as missing, never as another video's cover.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pandas==3.1.1

cat > "$work/ids.py" <<'PY'
import io
import sys

import pandas

IDS = ("7077642457847994444", "7077642457847994445")
whole = "open_id,video_id\n-000a,{}\n-000a,{}\n".format(*IDS)
from_csv = pandas.read_csv(io.StringIO(whole + "-000b,\n"))
from_json = pandas.read_json(io.StringIO('[{"id":"%s"},{"id":"%s"},{"id":null}]' % IDS))


def written(column, **options):
    return column.dropna().to_csv(index=False, header=False, **options).split()


print(f"versions: pandas {pandas.__version__}")
EXPECTED = {name: list(IDS) for name in ("no cell empty", "one cell empty", "without exponent", "JSON, one null")}
FOUND = {
    "no cell empty": list(IDS),
    "one cell empty": ["7.077642457847994e+18"] * 2,
    "without exponent": ["7077642457847994368"] * 2,
    "JSON, one null": ["7077642457847994368"] * 2,
}
seen = {
    "no cell empty": written(pandas.read_csv(io.StringIO(whole)).video_id),
    "one cell empty": written(from_csv.video_id),
    "without exponent": written(from_csv.video_id, float_format="%.0f"),
    "JSON, one null": written(from_json.id, float_format="%.0f"),
}
for name, expected in EXPECTED.items():
    print(f"{name}: expected {expected}, seen {seen[name]}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/ids.py"
echo 'as found'
