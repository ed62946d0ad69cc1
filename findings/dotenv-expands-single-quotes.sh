#!/usr/bin/env bash
# python-dotenv, and pydantic-settings with it, replaces ${NAME} in single quotes too, and a secret becomes another one.
#
# Libraries: python-dotenv 1.2.4, pydantic-settings 2.16.3.
# Documentation: values may be quoted, and variables are expanded as POSIX does it; POSIX expands nothing in single quotes.
# Surprise: it does not look at the quotes: '…${HOME}…' is expanded, '…$HOME…' is not, and the name of a variable that is not
#   set becomes nothing. pydantic-settings has no switch for it. A shell that reads the same file gets the secret as it is
#   written, so who tries a password by hand and then starts the program has two different ones.
# The refresher: reads .env by a reader of its own, as docker compose does. In single quotes every character stands for
#   itself; a $ outside of them is refused with line and name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet python-dotenv==1.2.4 pydantic-settings==2.16.3
cat > "$work/.env" <<'ENV'
TIKTOK_SECRET='made-${UP}-up$UP'
ENV

cat > "$work/read.py" <<'PY'
import sys

import dotenv
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    tiktok_secret: str


print({**dotenv.dotenv_values(sys.argv[1])}["TIKTOK_SECRET"], Settings(_env_file=sys.argv[1]).tiktok_secret)
PY
unset UP
echo 'versions: python-dotenv 1.2.4, pydantic-settings 2.16.3'
read -r dotenv settings < <("$work/venv/bin/python" "$work/read.py" "$work/.env")
shell=$(. "$work/.env" && echo "$TIKTOK_SECRET")

written='made-${UP}-up$UP'
seen="shell $shell, python-dotenv $dotenv, pydantic-settings $settings"
EXPECTED="shell $written, python-dotenv $written, pydantic-settings $written"
FOUND="shell $written, python-dotenv made--up\$UP, pydantic-settings made--up\$UP"
printf 'expected: %s\nseen:     %s\n' "$EXPECTED" "$seen"
[ "$seen" = "$FOUND" ] || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
