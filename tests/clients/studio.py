"""tiktok-studio-mcp: sign in in a browser, then ask for videos as its MCP server does.

Arguments: the base URL of TikTok, a free port for its callback, a file for what it stores. It
prints the page to open; then, for each line on stdin, what its tool `video_stats` says of these
video IDs.
"""

import asyncio
import json
import sys
from pathlib import Path

from tiktok_mcp import auth, client
from tiktok_mcp.secrets import FileStore
from tiktok_mcp.server import build_app


def main(base_url: str, port: str, stored: str) -> None:
    auth.PORT, auth.REDIRECT_URI = int(port), f"http://localhost:{port}/"
    auth.AUTHORIZE_URL = f"{base_url}/v2/auth/authorize/"
    client.API = base_url
    auth.TOKEN_URL = client.TOKEN_URL = f"{base_url}/v2/oauth/token/"
    store = FileStore(Path(stored))
    auth.run_auth_flow("key", "secret", store)
    app = build_app(client.TikTok(store))
    for line in sys.stdin:
        asking = app.call_tool("video_stats", {"video_ids": line.split()})
        try:
            content = asyncio.run(asking)
        except Exception as error:  # noqa: BLE001 - whatever its server would tell the model
            print(json.dumps({"failed": str(error)}), flush=True)
        else:
            print(json.dumps({"said": str(content)}), flush=True)


main(*sys.argv[1:])
