"""The revoke endpoint: the app ends a user's authorization with the user's access token.

Sure (page of 2 November 2026): path, form, that the app is disconnected from the user's account,
that a good answer is empty. Of what is not said there, see each "Not documented".
"""

from typing import Final

from refresher.emulator.answers import Answer
from refresher.emulator.oauth import Form, OAuth
from refresher.emulator.world import World

REVOKE_FORM: Final = ("client_key", "client_secret", "token")
BAD_TOKEN: Final = "Access token is invalid or expired."  # noqa: S105 - no password


class RevokeEndpoint:
    """Answers requests to revoke, with the faults that were ordered for token requests."""

    def __init__(self, world: World, oauth: OAuth) -> None:
        self._world = world
        self._oauth = oauth

    def answer(self, form: Form, log_id: str, now: float) -> Answer:
        """An empty answer, or what is wrong with the request.

        Not documented: the error for a token that is dead or was never given (RFC 7009 asks for
        200), and that errors look like those of the token endpoint.
        """
        if not all(form.get(name) for name in REVOKE_FORM):
            return self._oauth.refusal("invalid_request", log_id)
        if not self._oauth.knows_app(form):
            return self._oauth.refusal("invalid_client", log_id)
        grant = self._world.access_tokens.get(form["token"])
        if grant is None or grant.expires_at <= now:
            return self._oauth.refusal("invalid_grant", log_id, BAD_TOKEN)
        open_id = grant.account.open_id
        return self._oauth.carried_out(lambda: self._revoked(open_id), log_id)

    def _revoked(self, open_id: str) -> bytes:
        """The page says "empty" and shows `{}`: either may come."""
        self._world.end_consent(open_id)
        return self._oauth.either(b"", b"{}")
