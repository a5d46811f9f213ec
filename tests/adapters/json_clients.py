"""Clients without the package: JSON texts over one WebSocket for many requests, and `POST /rpc`."""

from __future__ import annotations

from collections import deque

import anyio
import h11

from mpreg_transports.links.base import Link, LinkEnded
from tests.adapters.network import FaultyStream

_PIECE = 8_192


class JsonLink:
    """One link of a JSON client. `read` must run: it also answers pings."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._answers: deque[str] = deque()
        self._changed = anyio.Event()
        self.end: LinkEnded | None = None

    async def read(self) -> None:
        """Collect the answers until the link ends."""
        try:
            while True:
                self._answers.extend(str(answer) for answer in await self._link.receive())
                self._wake()
        except LinkEnded as end:
            self.end = end
        self._wake()
        await self._link.close()

    async def ask(self, text: str) -> str:
        """Send a request and return its answer. Raises LinkEnded."""
        await self._link.send([text.encode()])
        while not self._answers:
            if self.end is not None:
                raise self.end.copy()
            await self._changed.wait()
        return self._answers.popleft()

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


async def post(stream: FaultyStream, body: bytes) -> bytes:
    """Return the body of the response to `POST /rpc`. Raises LinkEnded."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", "localhost"), ("content-type", "application/json"), ("content-length", str(len(body)))]
    request = connection.send(h11.Request(method="POST", target="/rpc", headers=headers))
    assert request is not None
    found = bytearray()
    try:
        data = request + body
        for start in range(0, len(data), _PIECE):  # each arrives as a whole, and the first one in time on a slow link
            await stream.send(data[start : start + _PIECE])
        connection.send(h11.Data(data=body))
        connection.send(h11.EndOfMessage())
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive())
            elif isinstance(event, h11.Data):
                found += event.data
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
        raise LinkEnded(f"no response: {error!r}") from None
    return bytes(found)
