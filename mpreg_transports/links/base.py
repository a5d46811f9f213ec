"""The interface between the driver and the transports that carry its bytes.

Every adapter (`websocket.py`, `tcp.py`, `memory.py`) is a `Link`: `receive` returns the received data, and `send` takes
what the core sends. A link does not interpret its data and has no timer except the bound on its own closing. For an
action of the peer or the network it raises nothing but `LinkEnded`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mpreg_proto.effects import Framing
from mpreg_proto.errors import CloseCode
from mpreg_proto.wire.handshake import Authentication

__all__ = ["MAX_MESSAGE", "Buffer", "Framing", "Link", "LinkEnded"]

Buffer = bytes | bytearray | memoryview
"""The types that may be sent. The caller must not change the data before `send` returns."""

MAX_MESSAGE = 16 * 1024 * 1024
"""The default for the longest message that a WebSocket link accepts, in bytes (`mpreg_proto.limits.Limits.message`)."""


class LinkEnded(Exception):
    """The link has ended, in order (`clean`) or by a break.

    Attributes: `reason`, one line for a log; `clean`, True if the peer or this end closed it in order; `code`, the
    WebSocket close code if there was one; `denied`, True if one end did not accept the other's certificate. Every later
    use of the link raises it again. Call `close()` to free the socket.
    """

    def __init__(self, reason: str, *, clean: bool = False, code: int | None = None, denied: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.clean = clean
        self.code = code
        self.denied = denied

    def copy(self) -> LinkEnded:
        """Return a new exception with the same content: an exception raised twice would keep its old traceback."""
        return LinkEnded(self.reason, clean=self.clean, code=self.code, denied=self.denied)


class Link(Protocol):
    """One connection. One task may receive while another sends; two must not do the same at once.

    A subclass must define `framing`, `peer`, `receive`, `send` and `close`; it inherits the rest.
    """

    framing: Framing
    """The way in which the data is divided into messages."""
    peer: str
    """The other end, for logs: `127.0.0.1:51234`."""
    verdict: Authentication = Authentication.NODE
    """The verdict on the peer, by what it has proved; the listener sets it."""
    local_host: str | None = None
    """The address of this machine that the link uses, None where there is none."""
    on_partial: Callable[[], None] = staticmethod(lambda: None)
    """A callback that the reader of the link sets.

    It is called when bytes arrived that complete no message: a sign of life.
    """

    @property
    def written_bytes(self) -> int | None:
        """The number of bytes that were written.

        None where the link does not count: then all sent bytes count as taken.
        """
        return None

    @property
    def acked_bytes(self) -> int | None:
        """The number of these bytes that the peer has taken; None if `written_bytes` is None."""
        return None

    @property
    def unsent_bytes(self) -> int:
        """The number of written bytes that this system has not taken yet; they are lost if the process ends."""
        return 0

    async def receive(self) -> Sequence[bytes | bytearray | memoryview | str]:
        """Wait for data: at least one item.

        STREAM: one chunk of any length. Message framings: all messages that one read of the socket completed, text as
        str, binary as bytes. Raises LinkEnded when no more data will come; may be cancelled without loss.
        """

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Write, and return when the system has taken everything (so a slow peer slows the sender).

        STREAM: the concatenation. NATIVE_MESSAGES: one binary message for each chunk. CLASSIC_MESSAGES: one text
        message for each chunk, which must be UTF-8. Raises LinkEnded. If it is cancelled halfway, the link is broken.
        """

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        """Write a few short chunks without waiting. Return False, with nothing written, where `send` is needed.

        It saves a switch to the writer's task for each small reply. Call it only while no `send` runs.
        """
        return False

    def pace(self, size: int) -> None:
        """Keep about `size` written bytes at most that the system has not taken: this end can write that in 50 ms."""
        return

    async def keepalive(self) -> bool:
        """Request a sign of life from the peer, which arrives as bytes. Return False where the link cannot do that.

        Where it cannot, silence proves nothing. The core pings native links, so only a classic link needs this. Raises
        LinkEnded.
        """
        return False

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """End the link in order, within two seconds, even when cancelled; free its socket.

        Never raises; a second call does nothing. It is needed after LinkEnded too. `code` is a WebSocket close code and
        has no effect on a byte stream. A `receive` that waits at that time raises LinkEnded.
        """
