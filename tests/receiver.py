"""A receiver of webhooks over a real socket, which answers as a test wants."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from refresher.domain.webhooks import Target

#: Three secrets of 24 bytes.
SECRET, OTHER_SECRET, THIRD_SECRET = (f"whsec_{letter * 8}" for letter in ("MTIz", "NDU2", "Nzg5"))


@dataclass(frozen=True)
class Attempt:
    """A request that came."""

    headers: Mapping[str, str]
    body: str

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> dict[str, object]:
        read: dict[str, object] = json.loads(self.body)
        return read

    @property
    def type(self) -> object:
        return self.told["type"]

    @property
    def open_id(self) -> object:
        return self.told["data"].get("open_id")  # type: ignore[attr-defined]

    def verified(self, secret: str = SECRET) -> object:
        """What the library makes of it. Raises its error if the signature is not good."""
        return Verifier(secret).verify(self.body, dict(self.headers))


@dataclass
class Receiver:
    """Takes all webhooks, but for those of accounts with other `answers`."""

    url: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    #: By open_id (None: of no account): a status or a response for each attempt in turn, "late" for
    #: an answer that comes when nobody waits for it any more.
    answers: dict[object, deque[object]] = field(default_factory=dict)
    #: For all that have none there; what comes while it hangs is kept without an answer.
    answer: object = 204
    hanging: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def will_answer(self, open_id: object, *answers: object) -> None:
        self.answers[open_id] = deque(answers)

    @property
    def taken(self) -> list[Attempt]:
        """The first attempt of each webhook, in the order in which they came."""
        seen: dict[str, Attempt] = {}
        for attempt in self.attempts:
            seen.setdefault(attempt.webhook_id, attempt)
        return list(seen.values())

    def target(self, *secrets: str) -> Target:
        return Target(self.url, secrets or (SECRET,))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        attempt = Attempt(request.headers.copy(), await request.text())
        self.attempts.append(attempt)
        planned = self.answers.get(attempt.open_id)
        answer = planned.popleft() if planned else self.answer
        if self.hanging or answer == "late":
            await self.closing.wait()
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(status=answer if isinstance(answer, int) else 204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{tail:.*}", receiver._handle)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hooks"
    try:
        yield receiver
    finally:
        receiver.closing.set()
        await runner.cleanup()
