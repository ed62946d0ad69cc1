"""What the token and the revoke endpoint have in common: the app, refusals, ordered faults."""

from collections.abc import Callable, Mapping
from typing import assert_never

from refresher.emulator.answers import Answer, gateway_error, reply, token_error
from refresher.emulator.faults import Chances, drawn
from refresher.emulator.world import World

Form = Mapping[str, str]


class OAuth:
    """Judges the app, refuses, and carries out what was asked unless a fault prevents it."""

    def __init__(self, world: World, chances: Chances) -> None:
        self._world = world
        self._chances = chances

    def knows_app(self, form: Form) -> bool:
        return self.knows_key(form) and self._world.options.client_secret in (
            None,
            form["client_secret"],
        )

    def knows_key(self, form: Form) -> bool:
        return self._world.options.client_key in (None, form["client_key"])

    def refusal(self, code: str, log_id: str, description: str | None = None) -> Answer:
        """Not documented: the status. 200 has been seen, so half of the errors come with it."""
        return token_error(code, log_id, self._chances.other.choice((200, 400)), description)

    def either(self, *bodies: bytes) -> bytes:
        """One of the bodies that the documentation leaves open."""
        return self._chances.other.choice(bodies)

    def carried_out(self, act: Callable[[], bytes], log_id: str) -> Answer:
        """The body that `act` answers with, or a fault. Only `failed` keeps it from acting."""
        fault = drawn(self._chances.token_faults, self._world.options.token_faults)
        if fault == "failed":
            return self._failure(log_id)
        body = act()
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

    def _failure(self, log_id: str) -> Answer:
        """Not documented: the status that comes with either code."""
        chance = self._chances.token_faults
        code = chance.choice(("server_error", "temporarily_unavailable", None))
        if code is None:
            return gateway_error("server_error", log_id, chance.choice((502, 503)))
        return token_error(code, log_id, chance.choice((200, 500, 503)))
