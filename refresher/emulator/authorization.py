"""The authorization page, to which an application sends a user.

Sure: the parameters, and those of the redirect back (`code`, `scopes`, `state`, or `error` and
`error_description`). Not documented, as it is made for people to look at: the page itself. Real
users log in; here whoever opens the page picks the account, or names it with `&open_id=`. The
user agrees to every scope that is asked for.
"""

import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from aiohttp import hdrs, web

from refresher.emulator.world import World

AUTHORIZE_PATH: Final = "/v2/auth/authorize/"
LONGEST_REDIRECT_URI: Final = 512
#: Hosts that only desktop apps may be sent back to. They must use PKCE.
LOOPBACK: Final = ("localhost", "127.0.0.1")
DENIED: Final = {"error": "access_denied", "error_description": "User denied the authorization"}


class AuthorizationRequest(NamedTuple):
    """What an application asks a user for."""

    scope: str
    redirect_uri: str
    state: str
    code_challenge: str


def read_authorization(query: Mapping[str, str], client_key: str | None) -> AuthorizationRequest:
    """Raises ValueError for what TikTok's page would refuse; the message names the parameter."""
    if not query.get("client_key") or client_key not in (None, query["client_key"]):
        raise ValueError(f"client_key: expected the app's, not {query.get('client_key', '')!r}")
    if query.get("response_type") != "code":
        raise ValueError(f"response_type: expected code, not {query.get('response_type', '')!r}")
    if not query.get("scope"):
        raise ValueError("scope: expected at least one, not ''")
    if problem := _redirect_uri_problem(query.get("redirect_uri", "")):
        raise ValueError(f"redirect_uri: expected {problem}, not {query.get('redirect_uri', '')!r}")
    return AuthorizationRequest(
        query["scope"],
        query["redirect_uri"],
        query.get("state", ""),
        query.get("code_challenge", ""),
    )


class AuthorizationPage:
    """What a user sees, and where the user's choice leads."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, query: Mapping[str, str]) -> web.Response:
        try:
            request = read_authorization(query, self._world.options.client_key)
            if "deny" in query:
                return _redirect(denied(request))
            if "open_id" in query:
                return _redirect(self.agreed(request, query["open_id"]))
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        page = _choices(self._world.accounts, query)
        return web.Response(text=page, content_type="text/html")

    def agreed(self, request: AuthorizationRequest, open_id: str) -> str:
        """Where a user who agrees is sent. ValueError for an account that was never added."""
        if open_id not in self._world.accounts:
            raise ValueError(f"open_id: expected an account of the emulator, not {open_id!r}")
        scope, redirect_uri, state, code_challenge = request
        code = self._world.consent(open_id, scope, redirect_uri, code_challenge)
        return f"{redirect_uri}?{urlencode({'code': code, 'scopes': scope, 'state': state})}"


def denied(request: AuthorizationRequest) -> str:
    """Where a user who does not agree is sent."""
    return f"{request.redirect_uri}?{urlencode({**DENIED, 'state': request.state})}"


def _redirect(url: str) -> web.Response:
    return web.Response(status=302, headers={hdrs.LOCATION: url})


def _choices(open_ids: Iterable[str], query: Mapping[str, str]) -> str:
    """A link for each account, and one to deny."""
    links = [(f"Continue as {name}", {"open_id": name}) for name in open_ids]
    items = (
        f'<li><a href="?{escape(urlencode({**query, **choice}))}">{escape(words)}</a></li>'
        for words, choice in (*links, ("Deny", {"deny": "1"}))
    )
    return (
        "<!doctype html><html><head><title>Emulated TikTok: authorize</title></head><body>"
        f"<h1>{escape(query['client_key'])} asks for {escape(query['scope'])}</h1>"
        f"<ul>{''.join(items)}</ul></body></html>"
    )


def is_of_desktop(redirect_uri: str) -> bool:
    return urlsplit(redirect_uri).hostname in LOOPBACK


def proves(code_verifier: str, code_challenge: str) -> bool:
    """As TikTok documents it, the challenge is the digest in hex, not in base64url as elsewhere."""
    return hashlib.sha256(code_verifier.encode(errors="replace")).hexdigest() == code_challenge


def _redirect_uri_problem(uri: str) -> str | None:
    """What TikTok refuses to register, in the words of what it expects."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "a URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "an absolute URL"
    if "?" in uri or "#" in uri:
        return "a URL without parameters and fragment"
    return None if len(uri) < LONGEST_REDIRECT_URI else "less than 512 characters"
