"""Asks an operations endpoint so often a second until it is ended: python -m benchmarks.asking.

A process of its own that costs little: one connection, each path in turn. At its end it prints how
many answers were good, how many were bad, how often there was none, and what the slowest took.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import cycle

from benchmarks.arguments import parser_of, real, whole

TRY_AGAIN_SECONDS = 0.2


def main() -> None:
    parser = parser_of("python -m benchmarks.asking", __doc__)
    parser.add_argument("--port", type=whole(1, 65_535), required=True)
    parser.add_argument("--rate", type=real(0.1), default=50, help="a second (default %(default)s)")
    parser.add_argument("paths", nargs="+")
    ask(parser.parse_args())


def ask(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    connection = HTTPConnection("127.0.0.1", options.port, timeout=10)
    answers: Counter[str] = Counter(good=0, bad=0, none=0)
    slowest = 0.0
    try:
        connect(connection)
        next_at = time.monotonic()
        for path in cycle(options.paths):
            time.sleep(max(0.0, next_at - time.monotonic()))
            began = time.monotonic()
            answers[ask_once(connection, path)] += 1
            slowest = max(slowest, time.monotonic() - began)
            next_at = max(next_at + 1 / options.rate, began)
    finally:
        print(json.dumps({**answers, "slowest": slowest}))


def connect(connection: HTTPConnection) -> None:
    """Wait until it is served."""
    while True:
        with suppress(OSError):
            connection.connect()
            return
        time.sleep(TRY_AGAIN_SECONDS)


def ask_once(connection: HTTPConnection, path: str) -> str:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        connection.close()
        return "none"  # as before the daemon serves and after it has ended
    return "good" if answer.status == 200 else "bad"


if __name__ == "__main__":
    main()
