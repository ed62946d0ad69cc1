"""A network that can also swallow a whole machine: nobody ever hears of its connections again."""

import asyncio

from tests.proxy import PIECE, Proxy


class Network(Proxy):
    """Beyond a proxy: `swallow` freezes the connections there are for ever; new ones flow."""

    def swallow(self) -> None:
        """The database keeps its ends open, with all that they hold, until it finds out itself."""
        self.freeze()
        self._flowing = asyncio.Event()
        self.thaw()
        # What comes later, a `cut` for one, is not for them.
        self._writers.clear()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As in a proxy, but each connection keeps to the event that it began with.
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
