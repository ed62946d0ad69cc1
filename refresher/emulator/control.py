"""The control endpoint: change the emulated world while it is served, and read what was asked.

Not TikTok's. It is served only where somebody asks for it, under a path that no TikTok API has.
Bodies are JSON. What is wrong is answered with 400 (no JSON), 404 (no such thing) or 422 (not what
is expected), and one line that says so; nothing is changed then.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, fields
from inspect import signature
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET

from refresher.emulator.control_bodies import (
    AccountChange,
    Count,
    NewAccount,
    NewRefusal,
    Refused,
    checked,
    shown,
)
from refresher.emulator.grants import Account, Refusal
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.record import AnyArrival
from refresher.emulator.server import Emulator
from refresher.emulator.world import new_pair

CONTROL_PATH: Final = "/_control"
#: What is decided once, when the emulator starts.
FIXED_OPTIONS: Final = frozenset({"seed", "client_key", "client_secret", "public_url"})
CHANGEABLE_OPTIONS: Final = tuple(
    each.name for each in fields(EmulatorOptions) if each.name not in FIXED_OPTIONS
)
SHOWN_REQUESTS: Final = 1000
Handler = Callable[..., object]


class Control:
    """The resources. Each handler gets the body, or None, and the names in the path."""

    def __init__(self, emulator: Emulator, refill: Callable[[], None] = lambda: None) -> None:
        """`refill` adds what is there at the start."""
        self._emulator = emulator
        self._refill = refill
        # Once, so that a request has the same time in every answer.
        self._to_unix = time.time() - time.monotonic()
        self._handlers: dict[tuple[str, str], Handler] = {
            ("DELETE", ""): self.begin_again,
            ("GET", "/options"): self.options,
            ("PATCH", "/options"): self.change_options,
            ("GET", "/accounts"): self.accounts,
            ("GET", "/accounts/{open_id}"): self.account,
            ("PUT", "/accounts/{open_id}"): self.add_account,
            ("PATCH", "/accounts/{open_id}"): self.change_account,
            ("PUT", "/accounts/{open_id}/videos/{video_id}"): self.add_video,
            ("DELETE", "/accounts/{open_id}/videos/{video_id}"): self.remove_video,
            ("GET", "/record"): self.record,
            ("DELETE", "/record"): self.clear_record,
        }

    def routes(self) -> list[web.RouteDef]:
        known = [
            web.route(verb, CONTROL_PATH + path, _answering(handler))
            for (verb, path), handler in self._handlers.items()
        ]
        nothing = _answering(self.nothing)
        return [
            *known,
            web.route("*", CONTROL_PATH, nothing),
            web.route("*", CONTROL_PATH + "/{path:.*}", nothing),
        ]

    def nothing(self, _: object, path: str = "") -> object:  # noqa: ARG002 - whatever it is
        there_are = ", ".join(f"{verb} {CONTROL_PATH}{each}" for verb, each in self._handlers)
        raise Refused(404, f"expected one of {there_are}")

    def begin_again(self, _: object) -> object:
        """As it was at the start."""
        self._emulator.begin_again()
        self._refill()
        return {"accounts": len(self._emulator.accounts)}

    def options(self, _: object) -> object:
        return {name: getattr(self._emulator.options, name) for name in CHANGEABLE_OPTIONS}

    def change_options(self, body: object) -> object:
        changes = checked(dict[str, Any], body)
        if unknown := [name for name in changes if name not in CHANGEABLE_OPTIONS]:
            raise Refused(
                422, f"expected options of {', '.join(CHANGEABLE_OPTIONS)}, not {shown(unknown[0])}"
            )
        self._emulator.options = checked(
            EmulatorOptions, {**asdict(self._emulator.options), **changes}
        )
        return self.options(None)

    def accounts(self, _: object) -> object:
        return [self._view(account) for account in self._emulator.accounts.values()]

    def account(self, _: object, open_id: str) -> object:
        return self._view(self._known(open_id))

    def add_account(self, body: object, open_id: str) -> object:
        """The only answer that holds tokens: whoever asks has just set them."""
        new = checked(NewAccount, {} if body is None else body)
        access_token, refresh_token = new_pair()
        if new.access_token is not UNSET:
            access_token = new.access_token
        refresh = refresh_token if new.refresh_token is UNSET else new.refresh_token
        self._emulator.add_account(
            open_id,
            access_token,
            access_token_expires_at=self._moment(new.access_token_expires_in),
            refresh_token=refresh,
            refresh_token_expires_at=self._moment(new.refresh_token_expires_in),
            scope=new.scope,
        )
        for video_id in new.videos:
            self._emulator.add_video(open_id, video_id)
        return {"open_id": open_id, "access_token": access_token, "refresh_token": refresh}

    def change_account(self, body: object, open_id: str) -> object:
        account, change = self._known(open_id), checked(AccountChange, body)
        if change.scope is not UNSET:
            account.scope = change.scope
        if change.refusal is not UNSET:
            account.refusal = _refusal(change.refusal)
        if change.consent is not UNSET or change.access_token is not UNSET:
            self._emulator.revoke_access_token(open_id)
        if change.consent is not UNSET or change.refresh_token is not UNSET:
            self._emulator.revoke_refresh_token(open_id)
        return self._view(account)

    def add_video(self, _: object, open_id: str, video_id: str) -> object:
        account = self._known(open_id)
        self._emulator.add_video(open_id, video_id)
        return self._view(account)

    def remove_video(self, _: object, open_id: str, video_id: str) -> object:
        account = self._known(open_id)
        self._emulator.remove_video(open_id, video_id)
        return self._view(account)

    def record(self, _: object, last: str = str(SHOWN_REQUESTS)) -> object:
        """The last requests in order of arrival, and how many there were of each kind and code."""
        arrivals, count = self._emulator.arrivals(), _count("last", last)
        return {
            "totals": {
                "query": self._emulator.record.totals,
                "token": self._emulator.token_record.totals,
                "revoke": self._emulator.revoke_record.totals,
            },
            "requests": [
                _entry(each, self._to_unix) for each in arrivals[max(0, len(arrivals) - count) :]
            ],
        }

    def clear_record(self, _: object) -> object:
        for each in (
            self._emulator.record,
            self._emulator.token_record,
            self._emulator.revoke_record,
        ):
            each.clear()
        return self.record(None)

    def _known(self, open_id: str) -> Account:
        if open_id not in self._emulator.accounts:
            raise Refused(404, f"expected an account of the emulator, not {shown(open_id)}")
        return self._emulator.accounts[open_id]

    def _moment(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._emulator.clock() + seconds

    def _view(self, account: Account) -> object:
        now, open_id = self._emulator.clock(), account.open_id
        return {
            "open_id": open_id,
            "scope": account.scope,
            "videos": len(account.videos),
            "refusal": account.refusal and account.refusal._asdict(),
            "live_access_tokens": self._emulator.access_tokens.count(open_id, now),
            "live_refresh_tokens": self._emulator.refresh_tokens.count(open_id, now),
        }


def _count(name: str, text: str) -> int:
    try:
        return msgspec.convert(text, Count, strict=False)
    except msgspec.ValidationError:
        raise Refused(422, f"{name}: expected a whole number, not {shown(text)}") from None


def _refusal(new: NewRefusal | None) -> Refusal | None:
    return Refusal(new.code, new.http_status) if new else None


def _entry(arrival: AnyArrival, to_unix: float) -> dict[str, object]:
    """A request as JSON; `at` becomes Unix time. Nothing of a token is in it."""
    entry = {"kind": arrival.kind, **asdict(arrival), "at": round(arrival.at + to_unix, 6)}
    entry.pop("refresh_token_digest", None)
    return entry


def _answering(handler: Handler) -> Callable[[web.Request], Any]:
    parameters = signature(handler).parameters.values()
    known = [each.name for each in parameters if each.default is not each.empty]

    async def answer(request: web.Request) -> web.Response:
        try:
            names = _names(request, known)
            body = _document(request, await request.read())
            return _json(200, handler(body, **names))
        except Refused as refused:
            return _json(refused.status, {"error": str(refused)})

    return answer


def _names(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """The names in the path, and the parameters that the handler takes."""
    if unknown := [name for name in request.query if name not in known]:
        raise Refused(422, f"expected no parameter {shown(unknown[0])}")
    return {**request.query, **request.match_info}


def _document(request: web.Request, body: bytes) -> object:
    """The JSON of a request; None where there is no body."""
    if not body:
        return None
    # So that no page of another site can send it from a browser.
    if request.content_type != "application/json":
        raise Refused(400, f"Content-Type: expected application/json, not {request.content_type}")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(400, f"expected JSON: {error}") from None


def _json(status: int, content: object) -> web.Response:
    body = msgspec.json.encode(content)
    return web.Response(body=body, status=status, content_type="application/json")
