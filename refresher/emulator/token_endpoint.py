"""The token endpoint: a new pair of tokens for a refresh token."""

from collections.abc import Mapping
from typing import assert_never

import msgspec

from refresher.emulator.answers import Answer, gateway_error, reply, token_error
from refresher.emulator.faults import Chances, drawn
from refresher.emulator.grants import Grant
from refresher.emulator.requests import TOKEN_FORM
from refresher.emulator.world import World


class TokenEndpoint:
    """Answers token requests, with the faults that were ordered."""

    def __init__(self, world: World, chances: Chances) -> None:
        self._world = world
        self._chances = chances

    def answer(self, form: Mapping[str, str], log_id: str, now: float) -> Answer:
        """A new pair, or what is wrong with the request."""
        token = form.get("refresh_token", "")
        grant = self._world.refresh_tokens.get(token)
        error_code = self._error_code(form, grant, now)
        if grant is None or error_code is not None:
            return self._refusal(error_code or "invalid_grant", log_id)
        return self._renewal(token, grant, log_id, now)

    def _error_code(self, form: Mapping[str, str], grant: Grant | None, now: float) -> str | None:
        """Not documented: which of several errors comes first."""
        if not all(form.get(name) for name in TOKEN_FORM):
            return "invalid_request"
        if form["grant_type"] != "refresh_token":
            return "unsupported_grant_type"
        if not self._knows_app(form):
            return "invalid_client"
        return "invalid_grant" if grant is None or grant.expires_at <= now else None

    def _knows_app(self, form: Mapping[str, str]) -> bool:
        options = self._world.options
        knows_key = options.client_key in (None, form["client_key"])
        return knows_key and options.client_secret in (None, form["client_secret"])

    def _refusal(self, code: str, log_id: str) -> Answer:
        """Not documented: the status. 200 has been seen, so half of the errors come with it."""
        return token_error(code, log_id, self._chances.other.choice((200, 400)))

    def _renewal(self, token: str, grant: Grant, log_id: str, now: float) -> Answer:
        """The new pair, or a fault. Only `failed` leaves the old pair as it is."""
        fault = drawn(self._chances.token_faults, self._world.options.token_faults)
        if fault == "failed":
            return self._failure(log_id)
        body = self._new_pair(token, grant, now)
        match fault:
            case None:
                return Answer("ok", reply(body, log_id))
            case "timeout":
                return Answer("no_answer", "hang")
            case "cut":
                return Answer("cut", "cut")
            case "malformed":
                return Answer("malformed", reply(body[: len(body) // 2], log_id))
            case _:
                assert_never(fault)

    def _new_pair(self, used: str, grant: Grant, now: float) -> bytes:
        access_token, refresh_token = self._world.renew(used, grant, now)
        return msgspec.json.encode(
            {
                "access_token": access_token,
                "expires_in": self._world.options.access_token_ttl_seconds,
                "open_id": grant.account.open_id,
                "refresh_expires_in": int(grant.expires_at - now),
                "refresh_token": refresh_token,
                "scope": grant.account.scope,
                "token_type": "Bearer",
            }
        )

    def _failure(self, log_id: str) -> Answer:
        """Not documented: the status that comes with either code."""
        chance = self._chances.token_faults
        code = chance.choice(("server_error", "temporarily_unavailable", None))
        if code is None:
            return gateway_error("server_error", log_id, chance.choice((502, 503)))
        return token_error(code, log_id, chance.choice((200, 500, 503)))
