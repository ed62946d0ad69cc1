"""The token endpoint: a pair of tokens for a refresh token or for an authorization code."""

from typing import Final

import msgspec

from refresher.emulator.answers import Answer
from refresher.emulator.authorization import is_of_desktop, proves
from refresher.emulator.grants import Account, Consent, Grant
from refresher.emulator.oauth import Form, OAuth
from refresher.emulator.options import REFRESH_TOKEN_TTL_SECONDS
from refresher.emulator.world import World

CREDENTIALS: Final = ("client_key", "client_secret", "grant_type")
#: What else each grant type needs, as documented.
NEEDED: Final = {
    "refresh_token": ("refresh_token",),
    "authorization_code": ("code", "redirect_uri"),
}
BAD_CODE: Final = "Authorization code is invalid or expired."
BAD_VERIFIER: Final = "Code verifier or code challenge is invalid."


class TokenEndpoint:
    """Answers token requests, with the faults that were ordered."""

    def __init__(self, world: World, oauth: OAuth) -> None:
        self._world = world
        self._oauth = oauth

    def answer(self, form: Form, log_id: str, now: float) -> Answer:
        """A pair, or what is wrong with the request."""
        if error_code := self._error_code(form):
            return self._oauth.refusal(error_code, log_id)
        if form["grant_type"] == "authorization_code":
            return self._exchange(form, log_id, now)
        return self._renewal(form["refresh_token"], log_id, now)

    def _error_code(self, form: Form) -> str | None:
        """Not documented: which of several errors comes first."""
        grant_type = form.get("grant_type", "")
        if not all(form.get(name) for name in (*CREDENTIALS, *NEEDED.get(grant_type, ()))):
            return "invalid_request"
        if grant_type not in NEEDED:
            return "unsupported_grant_type"
        return None if self._oauth.knows_app(form) else "invalid_client"

    def _renewal(self, token: str, log_id: str, now: float) -> Answer:
        grant = self._world.refresh_tokens.get(token)
        if grant is None or grant.expires_at <= now:
            return self._oauth.refusal("invalid_grant", log_id)
        return self._oauth.carried_out(lambda: self._new_pair(token, grant, now), log_id)

    def _exchange(self, form: Form, log_id: str, now: float) -> Answer:
        """Not documented: that any try spends the code. The error of a wrong verifier was seen."""
        code, redirect_uri = form["code"], form["redirect_uri"]
        consent = self._world.consents.get(code)
        if consent is None or consent.expires_at <= now or consent.redirect_uri != redirect_uri:
            self._world.consents.pop(code, None)
            return self._oauth.refusal("invalid_grant", log_id, BAD_CODE)
        if not _verified(consent, form.get("code_verifier", "")):
            del self._world.consents[code]
            return self._oauth.refusal("invalid_request", log_id, BAD_VERIFIER)
        return self._oauth.carried_out(lambda: self._first_pair(code, consent, now), log_id)

    def _new_pair(self, used: str, grant: Grant, now: float) -> bytes:
        pair = self._world.renew(used, grant, now)
        return self._body(pair, grant.account, grant.expires_at - now)

    def _first_pair(self, code: str, consent: Consent, now: float) -> bytes:
        del self._world.consents[code]
        pair = self._world.exchange(consent, now)
        account = self._world.accounts[consent.open_id]
        return self._body(pair, account, REFRESH_TOKEN_TTL_SECONDS)

    def _body(self, pair: tuple[str, str], account: Account, consent_seconds: float) -> bytes:
        access_token, refresh_token = pair
        return msgspec.json.encode(
            {
                "access_token": access_token,
                "expires_in": self._world.options.access_token_ttl_seconds,
                "open_id": account.open_id,
                "refresh_expires_in": int(consent_seconds),
                "refresh_token": refresh_token,
                "scope": account.scope,
                "token_type": "Bearer",
            }
        )


def _verified(consent: Consent, code_verifier: str) -> bool:
    """Whether the verifier is the one of the challenge, where there must be one.

    Documented for desktop apps alone. Not documented: what becomes of a web app's challenge. Here
    nobody looks at it.
    """
    if not consent.code_challenge or not is_of_desktop(consent.redirect_uri):
        return True
    return proves(code_verifier, consent.code_challenge)
