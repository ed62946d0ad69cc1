"""Fetches the first byte of a cover, as a browser would: no token, no cookie, no redirect.

The URL comes from a table that an application may write, so it may name anything. Who calls this
has looked at the host; here the address is looked at, and it is the one that is connected to: a
name that resolves to another address the next time gains nothing.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from aiohttp import (
    AddrInfoType,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from refresher.domain.addresses import is_public
from refresher.domain.probing import Outcome

FETCH_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 6.0
#: Servers need not heed it: no more than the first bytes are read in any case.
HEADERS: Final = {
    "Accept": "image/*,*/*;q=0.8",
    "Accept-Encoding": "identity",
    "Range": "bytes=0-0",
    "User-Agent": "cover-refresher",
}
SERVED: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
REFUSED: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
READ_BYTES: Final = 1024


class LocalAddressError(OSError):
    """A host has an address that is not public."""


class Unreached(Exception):
    """A host could not be connected to. The message is the kind of error."""


class Fetcher:
    """Fetches covers: from the internet, and without that restriction from `local`."""

    def __init__(self, public: ClientSession, local: ClientSession) -> None:
        self._public = public
        self._local = local

    async def fetch(self, url: str, *, is_local: bool) -> Outcome:
        """What became of one request for a cover. Raises `Unreached`.

        `is_local`: it is on the operator's own TikTok, at whatever address that is.
        """
        session = self._local if is_local else self._public
        try:
            # As it is stored: aiohttp would encode it anew, which breaks its signature.
            async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
                return await _outcome(response)
        except ClientConnectorError as error:
            if isinstance(error.os_error, LocalAddressError):
                return Outcome.SKIPPED
            raise Unreached(type(error.os_error).__name__) from error
        except ConnectionTimeoutError as error:
            raise Unreached(type(error).__name__) from error
        except (ClientError, OSError, ValueError):
            return Outcome.UNKNOWN


async def _outcome(response: ClientResponse) -> Outcome:
    if response.status in REFUSED:
        return Outcome.REFUSED
    if response.status not in SERVED:
        return Outcome.UNKNOWN
    # An expired cover was once seen to be answered with a small page.
    if response.content_type == "text/html":
        return Outcome.REFUSED
    return Outcome.SERVED if await response.content.read(1) else Outcome.UNKNOWN


@asynccontextmanager
async def opened(trust: ssl.SSLContext | None = None) -> AsyncIterator[Fetcher]:
    """A fetcher with connections of its own; nothing is connected to so far.

    `trust`: else the system's authorities, which the client has loaded already.
    """
    tls = trust or True
    guarded = TCPConnector(force_close=True, ssl=tls, socket_factory=_public_socket)
    async with (
        _session(guarded) as public,
        _session(TCPConnector(force_close=True, ssl=tls)) as local,
    ):
        yield Fetcher(public, local)


def _session(connector: TCPConnector) -> ClientSession:
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        headers=HEADERS,
        timeout=ClientTimeout(total=FETCH_SECONDS, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        read_bufsize=READ_BYTES,
        trust_env=False,  # a proxy would connect to any address
    )


def _public_socket(address: AddrInfoType) -> socket.socket:
    """The socket for one address of a host. Raises `LocalAddressError` before it is connected."""
    family, kind, protocol, _, endpoint = address
    if not is_public(str(endpoint[0])):
        raise LocalAddressError("not a public address")
    return socket.socket(family, kind, protocol)
