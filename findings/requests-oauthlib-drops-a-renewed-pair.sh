#!/usr/bin/env bash
# requests-oauthlib renews TikTok's tokens, then throws the new pair away because of a comma.
#
# Library: PyPI requests-oauthlib 2.0.0 with oauthlib 4.0.1.
# Documentation: with auto_refresh_url and token_updater, an expired token is renewed before the request and handed to
#   token_updater. A server may grant other scopes than were asked for; oauthlib then warns.
# Surprise: the warning is raised as an exception. TikTok separates scopes by commas, oauthlib by blanks, so the list that
#   was asked for never equals what comes back. The first sign-in ends with that Warning, and so does each renewal: the
#   refresh token is used up, token_updater is not called, and the session keeps the dead pair. Scopes as one text with
#   commas go well until a user agrees to a part of them, as TikTok lets users do.
# The refresher: compares no scopes. It stores a pair before it judges anything else in the answer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet requests-oauthlib==2.0.0 oauthlib==4.0.1 requests==2.34.2

cat > "$work/renew.py" <<'PY'
import json
import sys
from importlib.metadata import version

import requests
from requests.adapters import BaseAdapter
from requests_oauthlib import OAuth2Session

URL = "https://open.tiktokapis.com/v2/oauth/token/"
LIST, TEXT = ["user.info.basic", "video.list"], "user.info.basic,video.list"


class TikTok(BaseAdapter):
    """Answers as TikTok does; nothing leaves this process."""

    def __init__(self, granted):
        super().__init__()
        self.granted, self.renewals = granted, 0

    def send(self, request, **_):
        self.renewals += request.url == URL
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        pair = {"access_token": "act.1", "refresh_token": "rft.1", "expires_in": 7200, "token_type": "Bearer"}
        answer._content = json.dumps({**pair, "open_id": "-000made-up", "scope": self.granted}).encode()
        return answer

    def close(self):
        pass


def renewed(asked, granted):
    """How often TikTok renewed, what was handed on, what the session holds, what was raised."""
    stored, raised, tiktok = [], None, TikTok(granted)
    session = OAuth2Session(
        "key",
        scope=asked,
        token={"access_token": "act.0", "refresh_token": "rft.0", "expires_in": -1},
        auto_refresh_url=URL,
        auto_refresh_kwargs={"client_key": "key", "client_secret": "secret"},
        token_updater=lambda token: stored.append(token["refresh_token"]),
    )
    session.mount("https://", tiktok)
    try:
        session.post("https://open.tiktokapis.com/v2/video/query/")
    except Exception as error:
        raised = type(error).__name__
    return [tiktok.renewals, stored, session.token["refresh_token"], raised]


print("versions:", ", ".join(f"{name} {version(name)}" for name in ("requests-oauthlib", "oauthlib")))
good, lost = [1, ["rft.1"], "rft.1", None], [1, [], "rft.0", "Warning"]
CASES = {"scopes as a list": (LIST, TEXT), "as one text": (TEXT, TEXT), "a part granted": (TEXT, "video.list")}
EXPECTED = dict.fromkeys(CASES, good)
FOUND = {"scopes as a list": lost, "as one text": good, "a part granted": lost}
seen = {name: renewed(*case) for name, case in CASES.items()}
print(f"expected: {EXPECTED}\nseen:     {seen}")
sys.exit(seen != FOUND)
PY
"$work/venv/bin/python" "$work/renew.py" || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
