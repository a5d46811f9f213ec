"""A TCP proxy that delays, swallows one direction without a word, or resets what goes through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress

_CHUNK = 64 * 1024


class Proxy:
    """The way to one port, with the faults of that way. New and open connections have the same."""

    def __init__(self) -> None:
        self.target = 0
        """The port behind it."""
        self.delay = 0.0
        """Seconds by which each chunk is late."""
        self.swallows: frozenset[str] = frozenset()
        """The directions whose bytes vanish: "in" to the target, "out" from it."""
        self.muted: set[asyncio.StreamWriter] = set()
        """The ends of connections whose bytes vanish in both directions, while others go on; see `ends`."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port in front."""
        assert self._server is not None, "start() opens it"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def ends(self) -> set[asyncio.StreamWriter]:
        """Both ends of each connection that is open now."""
        return set(self._writers)

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    def heal(self) -> None:
        """End the delay and the swallowing. What was swallowed is lost, so those connections are reset."""
        if self.swallows:
            self.reset()
        self.delay, self.swallows = 0.0, frozenset()

    def reset(self) -> None:
        """Reset all open connections."""
        for writer in list(self._writers):
            sock: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def close(self) -> None:
        """End all."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # killed; a process that is stopped accepts all the same
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(back)
        for pump in (self._pump(reader, back, "in", writer), self._pump(there, writer, "out", back)):
            self._spawn(pump)

    def _spawn(self, pump: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(pump)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, other: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if way not in self.swallows and writer not in self.muted:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:  # a half-closed connection is closed whole
            for one in (writer, other):
                if one in self.muted and one is writer:
                    continue  # not even the end of a connection is seen behind it
                self._writers.discard(one)
                one.transport.abort() if self.delay else one.close()
