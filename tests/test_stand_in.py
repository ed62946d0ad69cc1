"""The benchmarks' stand-in of the endpoint is what they say it is, over a real socket."""

import asyncio
from contextlib import asynccontextmanager
from time import time
from urllib.parse import urlsplit

import pytest

from benchmarks.live import stand_in
from refresher.domain.expiry import read_cover
from refresher.tiktok.query_answer import read_answer
from refresher.tiktok.wire import MAX_VIDEO_IDS, build_query

TTL = 3600
IDS = [str(7_400_000_000_000_000_000 + n) for n in range(3 * MAX_VIDEO_IDS)]


@pytest.fixture(scope="module")
def endpoint():
    with stand_in(cover_ttl_seconds=TTL) as started:
        yield started


@asynccontextmanager
async def connected(endpoint):
    url = urlsplit(endpoint.base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def post(body):
    return b"POST /v2/video/query/ HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def query(ids):
    return post(build_query("act.x", ids).body)


async def answered(reader):
    """Status, headers and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.splitlines()[:-1]
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["Content-Length"]))
    return int(status.split()[1]), headers, body


async def test_answers_hold_exactly_the_ids_asked_for_with_usable_covers(endpoint):
    before = int(time())
    async with connected(endpoint) as (reader, writer):
        writer.write(query(IDS[:MAX_VIDEO_IDS]))
        urls = read_answer(*await answered(reader), IDS, 0.0)
    after = time()
    assert list(urls) == IDS[:MAX_VIDEO_IDS]
    covers = [read_cover(url, after, 0.0) for url in urls.values()]
    assert len({url for url, _ in covers}) == MAX_VIDEO_IDS
    assert all(before + TTL <= expires_at <= after + TTL for _, expires_at in covers)


async def test_pipelined_requests_are_answered_in_their_order(endpoint):
    chunks = [IDS[first : first + MAX_VIDEO_IDS] for first in range(0, len(IDS), MAX_VIDEO_IDS)]
    async with connected(endpoint) as (reader, writer):
        writer.write(b"".join(map(query, chunks)))
        assert [list(read_answer(*await answered(reader), IDS, 0.0)) for _ in chunks] == chunks


async def test_a_request_may_come_in_pieces_cut_anywhere(endpoint):
    request = query(IDS[:2])
    async with connected(endpoint) as (reader, writer):
        for byte in request:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        # The rest of one request and the beginning of the next in one piece.
        writer.write(request[:50])
        await writer.drain()
        writer.write(request[50:] + request[:-1])
        await writer.drain()
        writer.write(request[-1:])
        for _ in range(3):
            assert list(read_answer(*await answered(reader), IDS, 0.0)) == IDS[:2]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"filters":{"video_ids":[1]}}'])
async def test_a_body_that_asks_for_nothing_gets_400(endpoint, body):
    async with connected(endpoint) as (reader, writer):
        writer.write(post(body) + query(IDS[:1]))
        status, _, _ = await answered(reader)
        assert status == 400
        assert list(read_answer(*await answered(reader), IDS, 0.0)) == IDS[:1]


async def test_stats_count_requests_and_ids_but_not_what_was_refused():
    with stand_in() as fresh:
        assert fresh.stats().first_arrival == 0
        async with connected(fresh) as (reader, writer):
            writer.write(query(IDS[:20]) + post(b"{}") + query(IDS[:3]))
            for _ in range(3):
                await answered(reader)
        stats = fresh.stats()
    assert (stats.requests, stats.ids) == (2, 23)
    assert 0 < stats.first_arrival <= stats.last_arrival
    assert stats.cpu_seconds > 0
