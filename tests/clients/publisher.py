"""tiktok-api-client: sign in, renew, revoke.

Arguments: the base URL of TikTok. It prints the page to open and reads from stdin where the browser
was sent; then it prints each pair, and what it makes of its revocation.
"""

import json
import sys
from urllib.parse import parse_qs, urlsplit

from tiktok_api_client.main import TikTok


def main(base_url: str) -> None:
    TikTok.AUTH_URL = f"{base_url}/v2/auth/authorize/"
    TikTok.TOKEN_URL = f"{base_url}/v2/oauth/token/"
    TikTok.TOKEN_REVOKE_URL = f"{base_url}/v2/oauth/revoke/"
    client = TikTok("key", "secret", "https://app.test/callback", state="a state")
    print(client.get_authorization_url(), flush=True)
    code = parse_qs(urlsplit(sys.stdin.readline().strip()).query)["code"][0]
    print(json.dumps(client.exchange_code_for_token(code)), flush=True)
    print(json.dumps(client.refresh_access_token()), flush=True)
    try:
        print(json.dumps({"said": client.revoke_access_token()}), flush=True)
    except Exception as error:  # noqa: BLE001 - the only class it raises
        print(json.dumps({"failed": str(error)}), flush=True)


main(*sys.argv[1:])
