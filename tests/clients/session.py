"""authlib's OAuth2Session, taught TikTok's names: an application that signs in and asks for videos.

Arguments: the base URL of TikTok. It prints the page to open and reads from stdin where the browser
was sent; then, for each line, it prints what it was answered when it asked for these video IDs.
"""

import json
import sys

from authlib.common.errors import AuthlibBaseError
from authlib.common.urls import add_params_to_qs
from authlib.integrations.requests_client import OAuth2Session

FIELDS = {"fields": "id,cover_image_url"}


def credentials(client, method, url, headers, body):
    """TikTok says client_key where all others say client_id."""
    pairs = [("client_key", client.client_id), ("client_secret", client.client_secret)]
    return url, headers, add_params_to_qs(body, pairs)


def main(base_url: str) -> None:
    session = OAuth2Session(
        "key",
        "secret",
        scope="video.list",
        redirect_uri="https://app.test/callback",
        token_endpoint=f"{base_url}/v2/oauth/token/",
        token_endpoint_auth_method="tiktok",
        update_token=lambda *_, **__: print("renewed", flush=True),
    )
    session.register_client_auth_method(("tiktok", credentials))
    page, _ = session.create_authorization_url(f"{base_url}/v2/auth/authorize/", client_key="key")
    print(page, flush=True)
    token = session.fetch_token(authorization_response=sys.stdin.readline().strip())
    print(json.dumps(sorted(token)), flush=True)
    for line in sys.stdin:
        ids = {"filters": {"video_ids": line.split()}}
        try:
            answer = session.post(f"{base_url}/v2/video/query/", params=FIELDS, json=ids)
        except AuthlibBaseError as error:
            print(json.dumps({"failed": error.error}), flush=True)
        else:
            print(json.dumps([answer.status_code, answer.json()]), flush=True)


main(*sys.argv[1:])
