"""The status page: read-only, from shared readings, nothing loaded from elsewhere."""

import asyncio
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.spreadsheet import safe_cell
from refresher.logs import notable
from refresher.operations.lists import Busy
from refresher.operations.server import Sources
from refresher.postgres.details import TROUBLES, Troubled, Wanted

if TYPE_CHECKING:
    from refresher.operations.drawing import Drawing

#: Nothing from elsewhere, nothing inline, in no frame.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Browsers that are told of changes. Others load the page again from time to time.
VIEWERS: Final = 50
#: How often a stream looks for a newer reading.
LOOK_SECONDS: Final = 2.0
#: A page is drawn once in so long, however many ask for it.
DRAWN_SECONDS: Final = 3.0
DRAWN_AT_ONCE: Final = 16
#: Longer words in an address are no state, reason or open_id of ours.
LONGEST_WORD: Final = 256
#: Who takes no more of an export for so long has gone: others wait for it to end.
STALLED_SECONDS: Final = 30.0
COLUMNS: Final = ("open_id", "state", "reason", "since", "videos", "valid")
STATIC: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
BUSY: Final = "Too many different lists or exports at once. Try again in a few seconds.\n"
NO_ANSWER: Final = "The database has not answered in time. Try again in a few seconds.\n"


def install(app: web.Application, sources: Sources, clock: Clock) -> None:
    """Add the page's routes, its headers, and the end of its streams when the server stops."""
    page = Page(sources, clock)
    app.add_routes(
        [
            web.get("/", page.overview),
            web.get("/accounts", page.accounts),
            web.get("/accounts.csv", page.export, allow_head=False),
            web.get("/changes", page.changes, allow_head=False),
            *(web.get(f"/static/{name}", page.static) for name in STATIC),
        ]
    )
    app.on_response_prepare.append(_protect)
    app.on_shutdown.append(page.close)


async def _protect(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A page as it was sent last, of which reading and when."""

    reading: object
    at: float
    body: bytes
    status: int

    def response(self) -> web.Response:
        return web.Response(
            body=self.body,
            status=self.status,
            content_type="text/html",
            charset="utf-8",
            headers={"Cache-Control": "no-store"},
        )


class Page:
    """The handlers, and what is kept between two requests."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock
        self._closing = asyncio.Event()
        self._viewers = 0
        self._static = {name: _static(name) for name in STATIC}
        self._drawn: dict[Wanted | None, Drawn] = {}

    @cached_property
    def _drawing(self) -> "Drawing":
        # Loaded by the first one who looks: mostly nobody does, and it takes as much memory as the
        # database driver.
        from refresher.operations.drawing import Drawing  # noqa: PLC0415

        return Drawing(
            self._sources.known,
            versions={name: sha256(text).hexdigest()[:12] for name, text in self._static.items()},
        )

    async def overview(self, _request: web.Request) -> web.Response:
        """The verdicts, and the details behind them."""
        if drawn := self._kept(None, self._sources.fleet.reading):
            return drawn
        sources, drawing = self._sources, self._drawing  # a reading would age while it is loaded
        reading, details, demand = await asyncio.gather(
            sources.fleet.latest(), sources.details.latest(), sources.demand.latest()
        )
        return self._kept(None, reading) or self._keep(
            None,
            reading,
            drawing.overview(reading, details, demand, self._clock(), notable()),
            HTTPStatus.OK if reading else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    async def accounts(self, request: web.Request) -> web.Response:
        """A page of the accounts in trouble: those of a state, or of a reason, or all."""
        wanted = _wanted(request)
        try:
            rows = await self._sources.lists.latest(wanted)
        except Busy:
            return _later(BUSY)
        fleet = await self._sources.fleet.latest()
        if rows is None or fleet is None:
            return _later(NO_ANSWER)
        return self._kept(wanted, rows) or self._keep(
            wanted,
            rows,
            self._drawing.accounts(rows, fleet, self._clock(), wanted),
            HTTPStatus.OK,
        )

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The same accounts as CSV, all pages of them."""
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": 'attachment; filename="accounts.csv"',
            }
        )
        async with aclosing(self._sources.lists.export(_wanted(request))) as parts:
            try:
                first = await anext(parts)
            except Busy:
                return _later(BUSY)
            except DatabaseUnavailable:
                return _later(NO_ANSWER)
            await response.prepare(request)
            try:
                await _send(response, [COLUMNS, *_cells(first)])
                async for part in parts:
                    await _send(response, _cells(part))
            except (DatabaseUnavailable, TimeoutError):
                _cut(request)
        return response

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """Tells a browser the number of each new reading, until it leaves or we stop."""
        if self._viewers >= VIEWERS:
            return _later(f"{VIEWERS} viewers are told of changes already. Load the page again.\n")
        self._viewers += 1
        try:
            async with sse_response(request) as stream:
                with suppress(ConnectionResetError):
                    await self._tell(stream)
                return stream
        finally:
            self._viewers -= 1

    async def _tell(self, stream: EventSourceResponse) -> None:
        told = None
        while not self._closing.is_set() and stream.is_connected():
            reading = await self._sources.fleet.latest()
            if reading and reading.read_at != told:
                told = reading.read_at
                await stream.send(f"{told:.3f}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LOOK_SECONDS)

    async def static(self, request: web.Request) -> web.Response:
        """Style and script, named with their content's number: a browser may keep them."""
        name = request.path.rpartition("/")[2]
        return web.Response(
            body=self._static[name],
            content_type=STATIC[name],
            charset="utf-8",
            headers={"Cache-Control": "max-age=86400"},
        )

    async def close(self, _app: web.Application) -> None:
        """End the streams: the daemon does not wait for its viewers."""
        self._closing.set()

    def _kept(self, wanted: Wanted | None, reading: object) -> web.Response | None:
        drawn = self._drawn.get(wanted)
        if drawn is None or drawn.reading is not reading:
            return None
        return drawn.response() if self._clock() - drawn.at < DRAWN_SECONDS else None

    def _keep(self, wanted: Wanted | None, reading: object, text: str, status: int) -> web.Response:
        self._drawn.pop(wanted, None)
        while len(self._drawn) >= DRAWN_AT_ONCE:
            self._drawn.pop(next(iter(self._drawn)))
        drawn = self._drawn[wanted] = Drawn(reading, self._clock(), text.encode(), status)
        return drawn.response()


async def _send(response: web.StreamResponse, rows: Iterable[Sequence[object]]) -> None:
    """Raises TimeoutError where nobody takes it."""
    async with asyncio.timeout(STALLED_SECONDS):
        await response.write(_lines(rows))


def _cut(request: web.Request) -> None:
    """Break the connection, so that nobody takes what has come for all there is."""
    if request.transport:
        request.transport.abort()


def _static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


def _later(text: str) -> web.Response:
    return web.Response(
        text=text, status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "5"}
    )


def _wanted(request: web.Request) -> Wanted:
    """What the address asks for. Raises HTTPBadRequest that says what was expected."""
    state, reason, after = (request.query.get(name) for name in ("state", "reason", "after"))
    if state and state not in TROUBLES:
        raise web.HTTPBadRequest(text=f"state: expected one of {', '.join(TROUBLES)}\n")
    for name, word in (("reason", reason), ("after", after)):
        if word and not _is_word(word):
            raise web.HTTPBadRequest(text=f"{name}: expected at most {LONGEST_WORD} characters\n")
    return Wanted(state or None, reason or None, after or "")


def _is_word(word: str) -> bool:
    if len(word) > LONGEST_WORD or "\0" in word:
        return False
    with suppress(UnicodeEncodeError):
        return bool(word.encode())
    return False


def _cells(accounts: Sequence[Troubled]) -> Iterable[Sequence[object]]:
    return (
        (
            safe_cell(one.open_id),
            one.state,
            safe_cell(one.reason or ""),
            one.since.isoformat(timespec="seconds"),
            one.videos,
            one.valid,
        )
        for one in accounts
    )


def _lines(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
