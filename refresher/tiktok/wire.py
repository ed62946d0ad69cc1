"""Names and numbers of the API, and the requests that we send.

Pure: no session, no clock. Facts are from the endpoint's official page unless said otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

import msgspec

from refresher.domain.errors import AccessTokenRefused
from refresher.domain.model import UNUSABLE_TOKEN, usable_token

QUERY_PATH: Final = "/v2/video/query/"
TOKEN_PATH: Final = "/v2/oauth/token/"  # noqa: S105 - a path, not a password
REVOKE_PATH: Final = "/v2/oauth/revoke/"
MAX_VIDEO_IDS: Final = 20
LOG_ID_HEADER: Final = "x-tt-logid"
VIDEO_FIELDS: Final = (
    "id",
    "create_time",
    "cover_image_url",
    "share_url",
    "video_description",
    "duration",
    "height",
    "width",
    "title",
    "embed_html",
    "embed_link",
    "like_count",
    "comment_count",
    "share_count",
    "view_count",
)
FORM: Final = "application/x-www-form-urlencoded"
#: The ones that we need.
ASKED_FIELDS: Final = "id,cover_image_url"


@dataclass(frozen=True, slots=True)
class Request:
    """One POST, ready to send: everything but the host."""

    path_and_query: str
    #: May hold an access token.
    headers: Mapping[str, str] = field(repr=False)
    #: May hold a refresh token and the app credentials.
    body: bytes = field(repr=False)


#: A query by nobody, for nothing: it only shows whether the API is there.
GREETING: Final = Request(
    path_and_query=f"{QUERY_PATH}?fields=id",
    headers={"Content-Type": "application/json"},
    body=b"{}",
)


def build_query(access_token: str, video_ids: Sequence[str]) -> Request:
    """The request for at most 20 video IDs of the token's user, in any order.

    Raises `AccessTokenRefused` for a token that no header can carry.
    """
    if not usable_token(access_token):
        raise AccessTokenRefused(UNUSABLE_TOKEN)
    return Request(
        path_and_query=f"{QUERY_PATH}?fields={ASKED_FIELDS}",
        headers={
            "Authorization": f"Bearer {access_token}",
            "Content-Type": "application/json",
        },
        body=msgspec.json.encode({"filters": {"video_ids": video_ids}}),
    )


def build_revocation(client_key: str, client_secret: str, access_token: str) -> Request:
    """The request that ends the app's authorization by the token's user.

    After the page "Revoke a User Access Token" of 2 November 2026. Raises `AccessTokenRefused` for
    a token that TikTok never gave.
    """
    if not usable_token(access_token):
        raise AccessTokenRefused(UNUSABLE_TOKEN)
    form = {"client_key": client_key, "client_secret": client_secret, "token": access_token}
    return Request(
        path_and_query=REVOKE_PATH,
        headers={"Content-Type": FORM},
        body=urlencode(form).encode(),
    )


def build_token_request(client_key: str, client_secret: str, refresh_token: str) -> Request:
    """The request for a new pair of tokens."""
    form = {
        "client_key": client_key,
        "client_secret": client_secret,
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
    }
    return Request(
        path_and_query=TOKEN_PATH,
        headers={"Content-Type": FORM},
        body=urlencode(form).encode(),
    )
