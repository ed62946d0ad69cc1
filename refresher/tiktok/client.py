"""Sending queries: a thin aiohttp session around the wire module."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from refresher.domain.errors import UpstreamFailed
from refresher.tiktok.wire import build_query, read_answer

#: Twenty covers take about 10 kB; a body past this is no answer.
LARGEST_ANSWER_BYTES: Final = 1 << 20
TIMED_OUT: Final = "timed_out"
LONGEST_DETAIL: Final = 200


class TikTok:
    """The API as the flow needs it."""

    def __init__(self, session: ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")

    async def query(
        self, access_token: str, video_ids: Sequence[str], timeout_seconds: float
    ) -> dict[str, object]:
        """The covers of at most 20 videos: video ID to `cover_image_url`.

        Raises `UpstreamError`. Sent once: to try again, the caller needs another slot.
        """
        query = build_query(access_token, video_ids)
        if timeout_seconds <= 0:
            raise UpstreamFailed(TIMED_OUT)  # to aiohttp, 0 is for ever
        try:
            async with self._session.post(
                URL(self._base_url + query.path_and_query, encoded=True),
                data=query.body,
                headers=query.headers,
                timeout=ClientTimeout(total=timeout_seconds),
                allow_redirects=False,  # a redirect would carry the token elsewhere
            ) as response:
                body = await _read_body(response)
        except TimeoutError as error:
            raise UpstreamFailed(TIMED_OUT) from error
        except (ClientError, OSError) as error:
            raise UpstreamFailed("connection_failed", detail=_detail(error)) from error
        return read_answer(response.status, response.headers, body)


def _detail(error: Exception) -> str:
    """What kind of error; of a failed connection also where to and why, else no foreign text."""
    kind = type(error).__name__
    return f"{kind}: {error}"[:LONGEST_DETAIL] if isinstance(error, ClientConnectorError) else kind


async def _read_body(response: ClientResponse) -> bytes:
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > LARGEST_ANSWER_BYTES:
            raise UpstreamFailed("answer_too_large", status=response.status)
    return body


@asynccontextmanager
async def opened(base_url: str, concurrency: int) -> AsyncIterator[TikTok]:
    """A client over a session of its own, `concurrency` connections at most."""
    async with ClientSession(
        connector=TCPConnector(limit=concurrency, ttl_dns_cache=60),
        cookie_jar=DummyCookieJar(),  # accounts must not meet in a cookie
    ) as session:
        yield TikTok(session, base_url)
