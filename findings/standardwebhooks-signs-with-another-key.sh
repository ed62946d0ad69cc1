#!/usr/bin/env bash
# standardwebhooks for Python takes a secret that is no base64, and signs with another key; and it signs another second.
#
# Libraries: standardwebhooks 1.1.0 (Python) and 1.1.1 (npm), the reference libraries of Standard Webhooks.
# Documentation: the specification says that a secret is whsec_ and base64. One would think that both libraries refuse another one,
#   and that sign() tells the moment that it is given.
# Surprise: a secret in URL-safe base64, as many generators print it, loses its - and _ in Python: here 28 bytes are left of 32,
#   without an error. So it goes with half of all such secrets; a quarter is refused, depending on the padding that is left.
#   Signer and verifier in Python agree by accident; the library for JavaScript refuses the secret, and a receiver that
#   decodes it as URL-safe base64 finds every signature wrong. And a time in another zone than UTC is signed with the zone
#   struck out, hours away from the header beside it: the library's own verify() refuses it.
# The refresher: takes secrets in plain base64 of 24 to 64 bytes only, and gives sign() times in UTC.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet standardwebhooks==1.1.0
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts standardwebhooks@1.1.1

cat > by_node.cjs <<'JS'
const { Webhook } = require("standardwebhooks");
try {
  new Webhook(process.argv[2]);
  console.log("taken");
} catch {
  console.log("refused");
}
JS

cat > sign.py <<'PY'
import base64
import hashlib
import hmac
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version

from standardwebhooks import Webhook, WebhookVerificationError

NODE = subprocess.check_output(["node", "-p", 'require("./node_modules/standardwebhooks/package.json").version'], text=True)
KEY = bytes.fromhex("fb" * 3 + "41" * 26 + "ff" * 3)  # begins and ends with - and _
SECRET = "whsec_" + base64.urlsafe_b64encode(KEY).decode()
NOW = datetime.now(UTC)


def signed_with(key):
    content = f"1.{int(NOW.timestamp())}.{{}}".encode()
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def in_python():
    try:
        return "taken" if Webhook(SECRET).sign("1", NOW, "{}") == signed_with(KEY) else "taken, another key"
    except Exception:
        return "refused"


def verified(zone):
    webhook = Webhook(base64.b64encode(KEY).decode())
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(NOW.timestamp())),
        "webhook-signature": webhook.sign("1", NOW.astimezone(zone), "{}"),
    }
    try:
        webhook.verify("{}", headers)
    except WebhookVerificationError as error:
        return str(error)
    return "verified"


print(f"versions: Python {version('standardwebhooks')}, npm {NODE.strip()}")
EXPECTED = {"secret in URL-safe base64, Python": "refused", "npm": "refused", "time in UTC": "verified", "in another zone": "verified"}
FOUND = {**EXPECTED, "secret in URL-safe base64, Python": "taken, another key", "in another zone": "No matching signature found"}
seen = dict(
    zip(
        EXPECTED,
        (
            in_python(),
            subprocess.check_output(["node", "by_node.cjs", SECRET], text=True).strip(),
            verified(UTC),
            verified(timezone(timedelta(hours=2))),
        ),
        strict=True,
    )
)
for name, expected in EXPECTED.items():
    print(f"{name}: expected {expected}, seen {seen[name]}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" sign.py
echo 'as found'
