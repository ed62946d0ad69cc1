"""A proxy that can also lose a whole machine with its connections."""

import asyncio

from tests.proxy import PIECE, Proxy


class Network(Proxy):
    """A proxy with `swallow`: open connections freeze for ever, and new ones work."""

    def swallow(self) -> None:
        """Freeze the open connections. The database keeps its ends, and the locks, until it notices."""
        self.freeze()
        self._flowing = asyncio.Event()
        self.thaw()
        # A later `cut` must not reset them.
        self._writers.clear()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As in Proxy, but each connection keeps the event that it began with.
        flowing = self._flowing
        while True:
            try:
                piece = await reader.read(PIECE)
            except OSError:
                piece = b""
            if self._delay:
                await asyncio.sleep(self._delay)
            await flowing.wait()
            if not piece:
                return
            writer.write(piece)
            await writer.drain()
