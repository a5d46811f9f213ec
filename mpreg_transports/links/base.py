"""The border between the driver and whatever carries its bytes.

Every adapter (`websocket.py`, `tcp.py`, `memory.py`) is a `Link`: what comes off the wire leaves by `receive`, what the
core wants sent enters by `send`. A link never looks into what it carries, keeps no time but the bound on its own
closing, and never raises anything but `LinkEnded` for what the peer or the network did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mpreg_proto.effects import Framing
from mpreg_proto.errors import CloseCode

__all__ = ["MAX_MESSAGE", "Buffer", "Framing", "Link", "LinkEnded"]

Buffer = bytes | bytearray | memoryview
"""What may be sent. The caller must not change it before `send` returns."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of the longest message a WebSocket link takes unless told otherwise (`mpreg_proto.limits.Limits.message`)."""


class LinkEnded(Exception):
    """The link is over: by an orderly end (`clean`) or by a break.

    Attributes: `reason`, one line for a log; `clean`, whether the peer (or we) ended it in order; `code`, the WebSocket
    close code if there was one. Raised again by every later use of the link; call `close()` to free its socket.
    """

    def __init__(self, reason: str, *, clean: bool = False, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.clean = clean
        self.code = code

    def copy(self) -> LinkEnded:
        """A fresh one that says the same: an exception raised twice would carry its old traceback along."""
        return LinkEnded(self.reason, clean=self.clean, code=self.code)


class Link(Protocol):
    """One connection. One task may receive while another sends; two must not do the same at once.

    A class that names it as its base owes `framing`, `peer`, `receive`, `send` and `close`, and gets the rest.
    """

    framing: Framing
    """How what is carried becomes messages."""
    peer: str
    """The other end, for logs: `127.0.0.1:51234`."""
    local_host: str | None = None
    """The address of this machine that the link uses, None where there is none."""
    on_partial: Callable[[], None] = staticmethod(lambda: None)
    """Set by whoever reads the link; called when bytes came that complete no message, which are a sign of life."""

    @property
    def written_bytes(self) -> int | None:
        """Bytes that were written. None where the link does not count: then all that was sent counts as taken."""
        return None

    @property
    def acked_bytes(self) -> int | None:
        """Bytes of them that the peer has taken; None if `written_bytes` is."""
        return None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were written and that this system has not taken yet; they are lost if the process ends."""
        return 0

    async def receive(self) -> Sequence[bytes | bytearray | memoryview | str]:
        """Wait for data: at least one item.

        STREAM: one chunk of any length. Message framings: all messages that one read of the socket completed, text
        as str, binary as bytes. Raises LinkEnded when nothing more will come; may be cancelled without loss.
        """

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Write, and return when the system has taken everything (so a slow peer slows the sender).

        STREAM: the concatenation. NATIVE_MESSAGES: one binary message a chunk; CLASSIC_MESSAGES: one text message a
        chunk, which must be UTF-8. Raises LinkEnded. Cancelled in the middle, the link is broken.
        """

    def send_now(self, chunks: Sequence[Buffer]) -> bool:
        """Write a few short chunks without waiting; False, and nothing was written, where `send` is needed.

        Spares a switch to the writer's task for each small answer. Only where no `send` is under way.
        """
        return False

    async def keepalive(self) -> bool:
        """Ask the peer for a sign of life, which comes as bytes. Returns False where the link has no means to ask.

        Silence proves nothing then. Native links are pinged by the core, so only a classic one needs it. Raises
        LinkEnded.
        """
        return False

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """End the link in order, within two seconds, even when cancelled; free its socket.

        Never raises; the second call does nothing. Needed after LinkEnded too. `code` is a WebSocket close code and
        means nothing on a byte stream. A `receive` that waits meanwhile raises LinkEnded.
        """
