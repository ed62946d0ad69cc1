"""A stand-in of TikTok's query endpoint, never the bottleneck: python -m benchmarks.stand_in.

Prints its base URL and serves until SIGTERM. Any request is answered with exactly the IDs it asks
for, in the shape and length of a real answer, however many come at once. It looks at no token, no
fields and no limit: whether a client keeps to the contract is what the emulator is there to tell.
`GET /stats` says what arrived and what it cost.
"""

import argparse
import asyncio
import re
import signal
import time
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import uvloop

STATS_PATH: Final = b"/stats"
CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
BETWEEN: Final = b"\r\n\r\n"

# URLs as long as the real ones, and like them different for every video in path and signature:
# what stands between the three places of its ID.
URL_START: Final = "https://p16-sign-va.tiktokcdn.com/tos-maliva-p-0068/oIAAHFqhfxKeDjz"
TO_SIGNATURE: Final = (
    "Q0PM4IS~tplv-tiktokx-cropcenter-q:300:400:q72.jpeg?dr=14782&refresh_token=15a6ba46"
    "&x-expires=%d&x-signature=8U0nJ26"
)
URL_END: Final = (
    "%3D&t=bacd0480&ps=933b5bde&shp=d05b14bd&shcp=8aecc5ac&idc=maliva&sc=cover"
    "&biz_tag=tt_video&s=TIKTOK_FOR_DEVELOPER"
)
TO_ID: Final = '{"id":"'
TO_URL: Final = f'","cover_image_url":"{URL_START}'
TO_END: Final = f'{URL_END}"}}'
LOG_ID: Final = "20260828021607B9B16EDC3EA4D6951B80"
BODY_START: Final = '{"data":{"videos":['
BODY_END: Final = (
    f'],"cursor":0,"has_more":false}},"error":{{"code":"ok","message":"","log_id":"{LOG_ID}"}}}}'
)
HEAD: Final = (
    "HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: application/json; charset=utf-8\r\n"
    f"X-Tt-Logid: {LOG_ID}\r\nContent-Length: %d\r\n\r\n"
)
OK: Final = "200 OK"
BAD_REQUEST: Final = "400 Bad Request"


class _Filters(msgspec.Struct):
    video_ids: list[str]


class _Query(msgspec.Struct):
    filters: _Filters


_decode = msgspec.json.Decoder(_Query).decode


@dataclass
class Stats:
    """What has arrived since the start; the moments are wall-clock, 0 before the first request."""

    requests: int = 0
    ids: int = 0
    first_arrival: float = 0.0
    last_arrival: float = 0.0
    cpu_seconds: float = 0.0


class StandIn:
    """Turns bodies into answers; one for all connections."""

    def __init__(self, cover_ttl_seconds: int) -> None:
        self._cover_ttl_seconds = cover_ttl_seconds
        self._second = 0
        self._to_signature = ""
        self.stats = Stats()

    def answer(self, body: bytes) -> bytes:
        """The whole response. Raises msgspec.MsgspecError for a body that asks for nothing."""
        ids = _decode(body).filters.video_ids
        now = time.time()
        self._count(len(ids), now)
        if int(now) != self._second:
            self._second = int(now)
            self._to_signature = TO_SIGNATURE % (self._second + self._cover_ttl_seconds)
        middle = self._to_signature
        videos = ",".join([f"{TO_ID}{i}{TO_URL}{i}{middle}{i}{TO_END}" for i in ids])
        size = len(BODY_START) + len(videos) + len(BODY_END)
        return f"{HEAD % (OK, size)}{BODY_START}{videos}{BODY_END}".encode()

    def report(self) -> bytes:
        self.stats.cpu_seconds = time.process_time()
        return _response(OK, msgspec.json.encode(self.stats))

    def _count(self, ids: int, now: float) -> None:
        stats = self.stats
        stats.requests += 1
        stats.ids += ids
        stats.first_arrival = stats.first_arrival or now
        stats.last_arrival = now


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and pipelining, of which only path and Content-Length are read."""

    def __init__(self, stand_in: StandIn, latency_seconds: float) -> None:
        self._stand_in = stand_in
        self._latency_seconds = latency_seconds
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._call_later = asyncio.get_running_loop().call_later

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        while (head_end := self._unread.find(BETWEEN)) >= 0:
            head = self._unread[:head_end]
            length = CONTENT_LENGTH.search(head)
            end = head_end + len(BETWEEN) + (int(length[1]) if length else 0)
            if len(self._unread) < end:
                return
            body = self._unread[head_end + len(BETWEEN) : end]
            self._unread = self._unread[end:]
            self._serve(head, body)

    def _serve(self, head: bytes, body: bytes) -> None:
        if head.split(b" ", 2)[1] == STATS_PATH:
            self._transport.write(self._stand_in.report())
            return
        try:
            answer = self._stand_in.answer(body)
        except msgspec.MsgspecError as error:
            answer = _response(BAD_REQUEST, str(error).encode())
        if self._latency_seconds:
            # Equal delays run out in the order in which they began: so do pipelined answers.
            self._call_later(self._latency_seconds, self._write, answer)
        else:
            self._transport.write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _response(status: str, body: bytes) -> bytes:
    return (HEAD % (status, len(body))).encode() + body


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stand_in = StandIn(options.cover_ttl)
    server = await loop.create_server(
        lambda: Connection(stand_in, options.latency), "127.0.0.1", options.port, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stand_in",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--cover-ttl", type=int, default=86_400, help="seconds a cover lives")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
