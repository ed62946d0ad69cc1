"""A TCP proxy that breaks connections the way networks do."""

import asyncio
from contextlib import suppress
from typing import Self

PIECE = 65_536


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`. Use it with `async with`.

    A test may break it at any time: `cut`, `freeze` and `thaw`, `strand`, `refuse` and `accept`,
    `slow`, or another `target`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.accepted = 0
        self._delay = 0.0
        self._stranded = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def accept(self) -> None:
        """Listen. After `refuse` it is the same port again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections. Open ones stay."""
        if self._server:
            # Do not wait for the end: Python 3.12 would wait for the open connections, too.
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Hold back all bytes and all ends of connections. New connections are accepted."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward what was held back."""
        self._flowing.set()

    def strand(self) -> None:
        """No byte comes through open connections any more, and nobody says so. New ones work."""
        self._stranded.set()
        self._stranded = asyncio.Event()

    def slow(self, seconds: float) -> None:
        """Delay each piece of data, in both directions; 0 ends it."""
        self._delay = seconds

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            # asyncio would log the cancelled task of a server.
            with suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._close(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self._writers.add(far_writer)
        try:
            ways = [
                asyncio.create_task(self._pump(reader, far_writer)),
                asyncio.create_task(self._pump(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._close(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranded = self._stranded
        while True:
            try:
                piece = await reader.read(PIECE)
            except OSError:
                piece = b""
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing.wait()
            if stranded.is_set():
                await asyncio.Event().wait()  # until its task is cancelled
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._writers.discard(writer)
