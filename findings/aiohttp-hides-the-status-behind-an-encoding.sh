#!/usr/bin/env bash
# aiohttp raises before one sees the status where a body came in br or zstd that was not asked for.
#
# Library: aiohttp 3.14.5, without the optional Brotli and zstd.
# Documentation: `async with session.get(…)` gives the response with its status and headers; a body that cannot be decoded
#   fails when it is read. The client asks for encodings by Accept-Encoding, so one would expect no other.
# Surprise: a proxy that compresses anyway (and many do, of error pages too) makes the request itself raise
#   ClientResponseError with a status of its own, 400: the server's 429 or 500, its Retry-After and the ID for its support
#   are gone. Encodings that aiohttp does not know at all (x-gzip, a known alias; `gzip, br`) pass undecoded without a word.
# The refresher: has bodies handed over as they came and undoes gzip, x-gzip and deflate itself. What it cannot undo is said as
#   what it is (unreadable_encoding, with the encoding) instead of a connection that failed, and asked for again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet aiohttp==3.14.5

cat > "$work/encodings.py" <<'PY'
import asyncio
import gzip
import sys

import aiohttp

PLAIN = b'{"error":{"code":"rate_limit_exceeded"}}'
# The same in brotli, where it is stored as it is.
BROTLI = bytes.fromhex("8b1380") + PLAIN + b"\x03"
BODIES = {"br": BROTLI, "x-gzip": gzip.compress(PLAIN), "gzip": gzip.compress(PLAIN)}


async def answer(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    encoding = request.split()[1].decode().strip("/")
    body = BODIES[encoding]
    head = f"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


async def asked(session, url):
    try:
        async with session.get(url, headers={"Accept-Encoding": "identity"}) as response:
            read = "decoded" if await response.read() == PLAIN else "undecoded"
            return f"{response.status}, {read}"
    except aiohttp.ClientResponseError as error:
        return f"raises, status {error.status}, headers {len(error.headers or ())}"


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        return {encoding: await asked(session, f"http://127.0.0.1:{port}/{encoding}") for encoding in BODIES}


print(f"versions: aiohttp {aiohttp.__version__}")
EXPECTED = {"br": "429, undecoded", "x-gzip": "429, decoded", "gzip": "429, decoded"}
FOUND = {"br": "raises, status 400, headers 0", "x-gzip": "429, undecoded", "gzip": "429, decoded"}
seen = asyncio.run(main())
print(f"expected: {EXPECTED}\nseen:     {seen}")
sys.exit(seen != FOUND and 'changed: see "seen"')
PY
"$work/venv/bin/python" "$work/encodings.py"
echo 'as found'
