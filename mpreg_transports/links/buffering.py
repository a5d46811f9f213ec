"""The interface of byte streams that take bytes before the system does: a sender need not wait for each write.

`asyncio_stream.py` is one, and so is TLS over one (`tls.py`). anyio's own streams are not: their `send` returns once
the system has taken the bytes.
"""

from __future__ import annotations

from abc import abstractmethod

from anyio.abc import ByteStream


class BufferingStream(ByteStream):
    """A byte stream with a buffer of its own for sent bytes."""

    @property
    @abstractmethod
    def unwritten(self) -> int:
        """The number of sent bytes that the system has not taken."""

    @property
    @abstractmethod
    def writable(self) -> bool:
        """True if `send_now` would write."""

    @abstractmethod
    def send_now(self, item: bytes) -> bool:
        """Write without waiting.

        Returns False, and nothing is written, where a sender would have to wait or the stream has ended.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Wait until the system has taken all sent bytes. Raises the exceptions of `send`."""

    @abstractmethod
    def limit_unwritten(self, size: int) -> None:
        """Make senders wait from that many unwritten bytes on."""
