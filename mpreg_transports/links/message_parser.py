"""Parse WebSocket: bytes of the stream become whole messages, by wsproto.

`websocket.py` passes the bytes that it reads to the parser and returns the messages. The parser keeps the end of the
messages with its close code, and the pongs to send. It never raises for what the peer sent, never writes, and works in
slices, because one read may contain tens of thousands of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from wsproto import events as ws
from wsproto.connection import Connection, ConnectionState
from wsproto.frame_protocol import CloseReason

from mpreg_transports.links.base import LinkEnded

_ORDERLY = (CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD)
SLICE = 256
"""The frames that are parsed at once: about 3 ms."""
MAX_PONG_BYTES = 4096
"""The bytes of pongs that may wait to be written."""
_TAIL = 1024  # pieces kept apart; each is an object of about 50 bytes beside its content

Piece = TypeVar("Piece", bound="bytes | bytearray | str")


class MessageParser:
    """Parses bytes into whole messages, one slice of work at a time; keeps the end and the pongs to send."""

    def __init__(self, connection: Connection, *, max_message: int) -> None:
        self.end: LinkEnded | None = None
        self.violation_code: int | None = None  # the code to close with, after a violation
        self.peer_close_code: int | None = None  # the code of the peer's close frame
        self.more: bool = False
        """True if `parse` has not processed all bytes of `feed`."""
        self._pongs: list[bytes] = []
        self._pong_bytes = 0
        self._connection = connection
        self._limit = max_message
        self._size = 0  # the bytes of the unfinished message
        self._binary: _Pieces[bytes | bytearray] = _Pieces(b"".join)
        self._text: _Pieces[str] = _Pieces("".join)

    def feed(self, data: bytes) -> None:
        """Take the bytes of a read. Call `parse` afterwards as long as `more` is True."""
        self._connection.receive_data(data)
        self.more = True

    def parse(self) -> list[bytes | bytearray | str]:
        """Return the messages that the next SLICE frames complete. Never raises: see `end`."""
        messages: list[bytes | bytearray | str] = []
        left = SLICE
        for event in self._connection.events():
            self._handle(event, messages)
            left -= 1
            if self.end is not None or not left:
                break
        self.more = self.end is None and not left
        return messages

    @property
    def has_pongs(self) -> bool:
        """True if a pong waits to be written."""
        return bool(self._pongs)

    def pongs(self) -> list[bytes]:
        """Remove and return the pongs to send, in the order of their pings."""
        pongs, self._pongs, self._pong_bytes = self._pongs, [], 0
        return pongs

    def _handle(self, event: ws.Event, messages: list[bytes | bytearray | str]) -> None:
        if isinstance(event, ws.BytesMessage):
            self._count(len(event.data))
            if not event.message_finished:
                self._binary.add(event.data)
            elif self.end is None:
                messages.append(self._binary.join_with(event.data))
                self._size = 0
        elif isinstance(event, ws.TextMessage):
            text = event.data
            self._count(len(text) if text.isascii() else len(text.encode()))
            if not event.message_finished:
                self._text.add(text)
            elif self.end is None:
                messages.append(self._text.join_with(text))
                self._size = 0
        elif isinstance(event, ws.Ping):
            if self._connection.state is ConnectionState.OPEN:
                self._queue_pong(self._connection.send(event.response()))
        elif isinstance(event, ws.CloseConnection):
            self._close(event)

    def _queue_pong(self, pong: bytes) -> None:
        """Keep a pong to be written; over the bound the oldest are dropped, as section 5.5.3 allows."""
        self._pongs.append(pong)
        self._pong_bytes += len(pong)
        while self._pong_bytes > MAX_PONG_BYTES:
            self._pong_bytes -= len(self._pongs.pop(0))

    def _count(self, size: int) -> None:
        """Count the received bytes, as wsproto hides the declared length: at most one read over the limit is kept."""
        self._size += size
        if self._size > self._limit:
            self._fail(CloseReason.MESSAGE_TOO_BIG, f"the peer sent a message of over {self._limit} bytes")

    def _close(self, event: ws.CloseConnection) -> None:
        if self._connection.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            self.peer_close_code = event.code
            clean = event.code in _ORDERLY
            self.end = LinkEnded(_close_reason(event), clean=clean, code=event.code)
        else:  # wsproto reports a violation like a close frame; only the state differs
            self._fail(event.code, f"the peer broke the WebSocket protocol: {event.reason}")

    def _fail(self, code: int, reason: str) -> None:
        self.violation_code = code
        self._binary = _Pieces(b"".join)
        self._text = _Pieces("".join)
        self.end = LinkEnded(reason, code=code)


class _Pieces(Generic[Piece]):
    """The pieces of one message, joined in linear time; thousands of tiny pieces do not stay objects."""

    def __init__(self, join: Callable[[Iterable[Piece]], Piece]) -> None:
        self._join = join
        self._joined: list[Piece] = []
        self._tail: list[Piece] = []

    def add(self, piece: Piece) -> None:
        """Keep a piece that is not the last."""
        if piece:
            self._tail.append(piece)
        if len(self._tail) >= _TAIL:
            self._joined.append(self._join(self._tail))
            self._tail.clear()

    def join_with(self, last: Piece) -> Piece:
        """Return the message that ends with `last`, and reset for the next message."""
        if not self._tail and not self._joined:
            return last
        whole = self._join((*self._joined, *self._tail, last))
        self._joined.clear()
        self._tail.clear()
        return whole


def _close_reason(event: ws.CloseConnection) -> str:
    if event.code == CloseReason.NO_STATUS_RCVD:
        return "closed by the peer"
    return f"closed by the peer with {int(event.code)}" + (f": {event.reason}" if event.reason else "")
