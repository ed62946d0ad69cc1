"""What the stand-in answers when its client costs next to nothing: python -m benchmarks.load URL.

One request, the same bytes over and over, pipelined over raw sockets; the answers are counted by
their length and never looked at. Prints videos/s.
"""

import argparse
import json
import selectors
import socket
import time
from typing import Final
from urllib.parse import urlsplit

CONNECTIONS: Final = 8
PIPELINED: Final = 16
CHUNK: Final = 20
RECEIVED: Final = 1 << 18


def request() -> bytes:
    ids = [str(7_000_000_000_000_000_000 + number) for number in range(CHUNK)]
    body = json.dumps({"filters": {"video_ids": ids}}).encode()
    head = (
        "POST /v2/video/query/?fields=id,cover_image_url HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer act.{0:064x}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def length_of_answer(connection: socket.socket) -> int:
    """All are as long as the first."""
    connection.sendall(request())
    received = connection.recv(RECEIVED)
    head, _, _ = received.partition(b"\r\n\r\n")
    length = len(head) + 4 + int(head.lower().partition(b"content-length: ")[2])
    left = length - len(received)
    while left:
        left -= len(connection.recv(left))
    return length


def measure(url: str, seconds: float) -> float:
    """Videos a second over so many seconds."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    connections = [socket.create_connection((host or "", port or 80)) for _ in range(CONNECTIONS)]
    length = length_of_answer(connections[0])
    volley, expected = request() * PIPELINED, length * PIPELINED
    waiting = selectors.DefaultSelector()
    left = dict.fromkeys(connections, expected)
    for opened in connections:
        waiting.register(opened, selectors.EVENT_READ, opened)
        opened.sendall(volley)
    answered, started = 0, time.monotonic()
    while time.monotonic() < started + seconds:
        for key, _ in waiting.select():
            connection: socket.socket = key.data
            left[connection] -= len(connection.recv(RECEIVED))
            if left[connection] == 0:
                left[connection] = expected
                connection.sendall(volley)
                answered += PIPELINED * CHUNK
    return answered / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url", help="the stand-in's base URL")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print(f"{measure(options.url, options.seconds):.0f}")


if __name__ == "__main__":
    main()
