"""An emulator that remembers what it served and tells who asks for a token."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from refresher.emulator.options import EmulatorOptions
from refresher.emulator.query_endpoint import QueryEndpoint
from refresher.emulator.record import TokenArrival
from refresher.emulator.requests import Query
from refresher.emulator.server import Emulator

#: Status and body of every answer for a restricted account.
RESTRICTIONS = (
    (403, {"data": {}, "error": {"code": "user_account_restricted", "message": "", "log_id": "r"}}),
    (500, {"data": {}, "error": {"code": "internal_error", "message": "", "log_id": "r"}}),
    (200, {"data": {}, "error": {"code": "spam_risk_user_banned", "message": "", "log_id": "r"}}),
    (502, "<html><body>Bad Gateway</body></html>"),
)

#: Each replica has its own port of the emulator.
asked_port: ContextVar[int] = ContextVar("asked_port")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token request and its port."""

    arrival: TokenArrival
    port: int


class WatchedEmulator(Emulator):
    """Remembers the video of each cover URL, and when it did not serve a video.

    It calls `on_token_request` with the port of a token request before it answers.
    """

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.query_endpoint = WatchedQueries(self)
        self.handed_out: dict[str, str] = {}
        self.not_served: dict[str, float] = {}
        self.on_token_request: Callable[[int], None] = lambda _port: None
        self.shortened_seconds = 0
        #: An index of RESTRICTIONS for each restricted open_id.
        self.restricted: dict[str, int] = {}
        self.answer_with = self._restrict
        self._calm = options
        self._disturbances: dict[str, Mapping[str, float]] = {}
        self._ports: list[int] = []

    @property
    def token_requests(self) -> list[TokenRequest]:
        return [
            TokenRequest(arrival, port)
            for arrival, port in zip(self.token_record, self._ports, strict=True)
        ]

    def videos_of(self, open_id: str) -> set[str]:
        return self.accounts[open_id].videos

    def disturb(self, kind: str, **shares: float) -> None:
        """Start a kind of disturbance; `settle` ends it. Several kinds add up."""
        self._disturbances[kind] = shares
        self._disturb()

    def settle(self, kind: str) -> None:
        del self._disturbances[kind]
        self._disturb()

    def _disturb(self) -> None:
        shares = added_up(self._disturbances.values())
        self.options = replace(self._calm, **shares)

    def _restrict(self, query: Query) -> web.Response | None:
        if query.open_id not in self.restricted:
            return None
        status, body = RESTRICTIONS[self.restricted[query.open_id]]
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")

    def note_not_served(self, video_ids: Iterable[str]) -> None:
        self.not_served.update(dict.fromkeys(video_ids, time.time()))

    async def _serve_token(self, request: web.Request) -> web.Response:
        assert request.transport
        asked_port.set(request.transport.get_extra_info("sockname")[1])
        return await super()._serve_token(request)

    def _answer_token(self, form):
        # The caller records it without an await in between.
        self._ports.append(asked_port.get())
        self.on_token_request(asked_port.get())
        return super()._answer_token(form)


class WatchedQueries(QueryEndpoint):
    """Tells the emulator what was handed out and what was not served."""

    def __init__(self, watched: WatchedEmulator) -> None:
        super().__init__(watched, watched._chances, watched._covers)
        self._watched = watched

    def videos(self, *args):
        videos = super().videos(*args)
        self._watched.handed_out.update((video["cover_image_url"], video["id"]) for video in videos)
        return videos

    def cover_expiry(self, now):
        return super().cover_expiry(now) - self._watched.shortened_seconds

    def present(self, video_ids, account):
        self._watched.note_not_served(set(video_ids) - account.videos)
        return super().present(video_ids, account)

    def refusal(self, query, grant, now):
        refusal = super().refusal(query, grant, now)
        if refusal == "invalid_params":
            self._watched.note_not_served(self._watched.refused.intersection(query.video_ids))
        return refusal


def added_up(disturbances: Collection[Mapping[str, float]]) -> dict[str, Any]:
    """The sum of all shares. Faults of queries, and those of tokens, come to at most 1."""
    total: dict[str, Any] = {}
    for shares in disturbances:
        for name, share in shares.items():
            total[name] = min(1.0, total.get(name, 0.0) + share)
    for is_token in (True, False):
        family = {
            name for name in total if name.startswith("token_") == is_token and name != "slow_share"
        }
        # A little less than 1, because sums are rounded.
        scale = min(1.0, 0.999 / max(sum(total[name] for name in family), 0.999))
        total.update({name: total[name] * scale for name in family})
    return total
