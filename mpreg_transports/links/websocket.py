"""WebSocket links: RFC 6455 by wsproto, without extensions, as server and as client.

`receive` returns the whole messages of the frames that come from a byte stream; `send` writes messages as frames. Pings
are answered here. There is no keepalive and no timer here except the bound on the closing handshake: the core itself
pings native links, and for classic links the driver calls `keepalive`.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.connection import Connection, ConnectionState
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mpreg_proto.errors import CloseCode
from mpreg_transports.config.addresses import host_and_port
from mpreg_transports.links import frames, tcp
from mpreg_transports.links.base import MAX_MESSAGE, Buffer, Framing, Link, LinkEnded
from mpreg_transports.links.http import HttpRefused, HttpRequest, HttpResponse
from mpreg_transports.links.message_parser import MessageParser

SUBPROTOCOL = "mpreg.1"
"""The native dialect's name in the opening handshake; without it a WebSocket link is classic."""

HANDSHAKE_SECONDS = 5.0
"""The seconds for a server to answer the client's opening handshake. Reasonable: 2 to 10."""
REFUSAL_SECONDS = 1.0
"""The seconds for the body of a refused handshake to arrive; after that the reason is only its status."""
_REFUSAL_TEXT_BYTES = 400
"""The bytes of such a body that are reported."""
CLOSE_SECONDS = 1.5
"""The seconds for the closing handshake. Reasonable: a few round trips; a lost peer costs all of it."""


class WebSocketLink(Link):
    """A `Link` over a stream whose opening handshake is done; created by `accept` and `connect`."""

    def __init__(
        self, stream: ByteStream, connection: Connection, *, framing: Framing, received: bytes, max_message: int
    ) -> None:
        self.framing = framing
        self.peer: str = tcp.peer_name(stream)
        self.local_host: str | None = tcp.local_host(stream)
        self._stream = stream
        self._output = tcp.Output(stream)
        self._connection = connection
        self._frames = frames.masked_frames if connection.client else frames.plain_frames
        self._parser = MessageParser(connection, max_message=max_message)
        self._received: bytes | None = received  # None once it is parsed
        self._messages: list[bytes | bytearray | str] = []  # complete, for `receive` to return
        self._ping = b""  # to be written at the next opportunity
        self._end: LinkEnded | None = None
        self._broken = False  # nothing can be written any more
        self._closing = False
        self._reading = False
        self._reader_left: anyio.Event | None = None
        self._writing = False
        self._writer_left: anyio.Event | None = None

    @property
    def acked_bytes(self) -> int:
        """The number of bytes that the peer has taken. See `Output.acked_bytes`."""
        return self._output.acked_bytes

    @property
    def written_bytes(self) -> int:
        """The number of bytes that were written."""
        return self._output.written_bytes

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes that this system has not taken yet."""
        return self._output.unsent

    def pace(self, size: int) -> None:
        """See `Link.pace`."""
        self._output.pace(size)

    async def receive(self) -> list[bytes | bytearray | str]:
        """Return all messages that one read of the socket completed. See `Link.receive`.

        A message over the limit ends the link with 1009, a violation of the protocol with 1002, invalid UTF-8 with
        1007; earlier messages of the same read are still returned.
        """
        while not self._messages:
            if self._end is not None:
                raise self._end.copy()
            if self._closing:
                raise LinkEnded("closed here", clean=True)
            await self._read_once()
            if not self._messages:
                self.on_partial()
        messages, self._messages = self._messages, []
        return messages

    async def send(self, chunks: Sequence[Buffer]) -> None:
        """Send one message for each chunk, binary if native, text if classic, all in one write. See `Link.send`."""
        opcode = frames.TEXT if self.framing is Framing.CLASSIC_MESSAGES else frames.BINARY
        await self._send([(opcode, chunk) for chunk in chunks])

    async def send_typed(self, messages: Sequence[Buffer | str]) -> None:
        """Send like `send`, but str as text and bytes as binary, whatever the framing."""
        await self._send(
            [
                (frames.TEXT, message.encode()) if isinstance(message, str) else (frames.BINARY, message)
                for message in messages
            ]
        )

    async def keepalive(self) -> bool:
        """Send a ping (RFC 6455, 5.5.2), between the frames of a message that is being sent. See `Link.keepalive`."""
        self._check_sendable()
        if self._connection.state is ConnectionState.OPEN:  # else the peer's close frame has arrived, and answers pings
            self._ping = self._connection.send(ws.Ping())
            if not self._writing:
                await self._write([])
        return True

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """Run the closing handshake, at most 1.5 s, then close the connection. See `Link.close`.

        After a violation by the peer the code of the violation is sent instead of `code`, and after the peer's close
        frame its code. A code that is not allowed in a close frame is sent as 3000 more, which is for private use.
        """
        if self._closing:
            return
        self._closing = True
        with anyio.CancelScope(shield=True):
            with suppress(LinkEnded), anyio.move_on_after(CLOSE_SECONDS):
                await self._closing_handshake(code)
            await tcp.hang_up(self._stream)

    async def _read_once(self) -> None:
        """Read once, or continue with data of the last read: parse a slice of it into `_messages`, answer pings.

        It records the end, but raises it only when no messages came with it.
        """
        self._reading = True
        try:
            if self._parser.more:
                await anyio.lowlevel.checkpoint()  # other tasks run between two slices
            else:
                data, self._received = self._received, None
                if data is None:
                    data = await self._read()
                self._parser.feed(data)
            self._messages += self._parser.parse()
            self._end = self._end or self._parser.end
            if self._parser.has_pongs and not (self._writing or self._broken):  # else the writer sends them
                with suppress(LinkEnded):
                    await self._write([])
        finally:
            self._reading = False
            if self._reader_left is not None:
                self._reader_left.set()
                self._reader_left = None

    async def _read(self) -> bytes:
        try:
            return await self._stream.receive(tcp.READ_SIZE)
        except tcp.BROKEN as error:
            self._broken = True
            end = tcp.to_link_ended(error)
            # A stream that ends without a close frame is a break, even after an orderly end (section 7.1.5: 1006).
            self._end = LinkEnded(end.reason, clean=self._closing)
            raise self._end.copy() from None

    async def _send(self, messages: list[tuple[int, Buffer]]) -> None:
        await self._wait_for_writer()
        self._check_sendable()
        await self._write(self._frames(messages))

    def _check_sendable(self) -> None:
        """Raise LinkEnded if nothing more can be sent. The peer's close frame alone does not forbid it."""
        if self._closing or self._broken:
            raise self._end.copy() if self._end is not None else LinkEnded("closed here", clean=True)

    async def _wait_for_writer(self) -> None:
        """Wait until no other task writes.

        Only a pong or a close frame can coincide with a message, so the wait is rare.
        """
        while self._writing:
            if self._writer_left is None:
                self._writer_left = anyio.Event()
            await self._writer_left.wait()

    async def _write(self, frames: Iterable[Sequence[Buffer]]) -> None:
        """Write frames, and between them the pongs and the ping to send.

        Must follow `_wait_for_writer` without an await between.
        """
        self._writing = True
        whole = False
        try:
            pieces: list[Buffer] = []
            size = 0
            for frame in frames:
                pieces += frame
                size += sum(map(len, frame))
                if size >= tcp.SLICE:
                    await self._output.write([*self._pending_control_frames(), *pieces])
                    pieces, size = [], 0
            while pieces := [*self._pending_control_frames(), *pieces]:
                await self._output.write(pieces)
                pieces = []
            whole = True
        except tcp.BROKEN as error:
            self._end = self._end or LinkEnded(tcp.to_link_ended(error).reason)
            raise self._end.copy() from None
        finally:
            self._writing = False
            if not whole:  # cancelled or failed: half a frame may be out
                self._broken = True
                self._end = self._end or LinkEnded("a message was cut off while it was sent")
            if self._writer_left is not None:
                self._writer_left.set()
                self._writer_left = None

    def _pending_control_frames(self) -> list[bytes]:
        """Remove and return the control frames to send; none follows this end's close frame."""
        if self._closing:
            return []
        ping, self._ping = self._ping, b""
        return [*self._parser.pongs(), ping] if ping else self._parser.pongs()

    async def _closing_handshake(self, code: int) -> None:
        """Send a close frame, and wait for the peer's, or until the peer has read the sent one."""
        await self._wait_for_writer()
        if self._broken:
            return
        failed = self._parser.violation_code
        peer_code = self._parser.peer_close_code
        first = failed if failed is not None else peer_code if peer_code is not None else valid_close_code(code)
        await self._write([[self._connection.send(ws.CloseConnection(code=first))]])
        while self._end is None:  # not the peer's close frame yet
            if self._reading:
                self._reader_left = self._reader_left or anyio.Event()
                await self._reader_left.wait()
            else:
                await self._read_once()
                self._messages.clear()
        with suppress(*tcp.BROKEN):  # a peer that sent its close frame first still reads this end's
            await tcp.drain(self._stream)
        if failed is not None or self._connection.client:  # section 7.1.1: the server hangs up first
            await tcp.linger(self._stream)


def valid_close_code(code: int) -> int:
    """Return `code` if it is allowed in a close frame (section 7.4), else a code for private use that contains it."""
    if code in (1004, 1005, 1006) or 1014 < code < 2000:
        return code + 3000
    return code if 1000 <= code <= 1014 or 3000 <= code < 5000 else int(CloseReason.INTERNAL_ERROR)


async def accept(
    stream: ByteStream,
    request: HttpRequest,
    *,
    received: bytes = b"",
    subprotocols: Sequence[str] = (SUBPROTOCOL,),
    max_message: int = MAX_MESSAGE,
) -> WebSocketLink:
    """Answer an upgrade request that was read from `stream`; `received` are the bytes read after it.

    The first of `subprotocols` that the client offers is chosen; with none the link is classic. Raises HttpRefused,
    with nothing written, if the request is not a valid opening handshake (section 4.2.1), and LinkEnded.
    """
    handshake = WSConnection(ConnectionType.SERVER)
    try:
        handshake.initiate_upgrade_connection(_checked(request), request.target)
        offered = next(event for event in handshake.events() if isinstance(event, ws.Request)).subprotocols
        chosen = next((name for name in subprotocols if name in offered), None)
        answer = handshake.send(ws.AcceptConnection(subprotocol=chosen))
    except RemoteProtocolError as error:
        raise HttpRefused(_refusal(error)) from None
    except (UnicodeError, LocalProtocolError) as error:  # a Host or a list of names that is not ASCII
        raise HttpRefused(HttpResponse.text(400, f"bad WebSocket request: {error}")) from None
    await tcp.write_all(stream, answer)
    return _link(stream, handshake, chosen, received=received, max_message=max_message)


def _checked(request: HttpRequest) -> list[tuple[bytes, bytes]]:
    """Return the request's headers in wsproto's form. Raises HttpRefused for errors that wsproto does not check."""
    if request.method != "GET":
        raise HttpRefused(HttpResponse.text(400, "a WebSocket request must be a GET"))
    try:
        nonce = base64.b64decode(request.header("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise HttpRefused(HttpResponse.text(400, "Sec-WebSocket-Key must be 16 bytes in base64"))
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]


def _refusal(error: RemoteProtocolError) -> HttpResponse:
    hint = error.event_hint
    if not isinstance(hint, ws.RejectConnection):
        return HttpResponse.text(400, f"bad WebSocket request: {error}")
    more = tuple((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in hint.headers)
    return HttpResponse.text(hint.status_code, f"bad WebSocket request: {error}", *more)


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    path: str = "/",
    subprotocols: Sequence[str] = (SUBPROTOCOL,),
    max_message: int = MAX_MESSAGE,
) -> WebSocketLink:
    """Open a WebSocket to a node: native if it agrees to `mpreg.1`, else classic.

    Raises LinkEnded, whose reason says why not: no connection, another HTTP response, no response within 5 seconds.
    """
    stream = await tcp.open_stream(host, port, tls=tls)
    where = host_and_port(host, port)
    try:
        with anyio.fail_after(HANDSHAKE_SECONDS):
            handshake, chosen = await _shake_hands(stream, where, path, subprotocols)
    except BaseException as error:
        await tcp.hang_up(stream)
        if isinstance(error, TimeoutError):
            reason = f"{where} did not answer as WebSocket within {HANDSHAKE_SECONDS:g} s"
            raise LinkEnded(reason) from None
        raise
    return _link(stream, handshake, chosen, received=b"", max_message=max_message)


async def _shake_hands(
    stream: ByteStream, where: str, path: str, subprotocols: Sequence[str]
) -> tuple[WSConnection, str | None]:
    """Run the client's opening handshake (section 4.1); return the connection and the chosen subprotocol."""
    handshake = WSConnection(ConnectionType.CLIENT)
    request = ws.Request(host=where, target=path, subprotocols=list(subprotocols))
    try:
        await stream.send(handshake.send(request))
        while True:
            handshake.receive_data(await stream.receive(tcp.READ_SIZE))
            for event in handshake.events():
                if isinstance(event, ws.AcceptConnection):
                    return handshake, event.subprotocol
                if isinstance(event, ws.RejectConnection):
                    text = await _refusal_text(stream, handshake) if event.has_body else ""
                    raise LinkEnded(f"{where} refused WebSocket: HTTP status {event.status_code}{text}")
    except (RemoteProtocolError, UnicodeError) as error:
        raise LinkEnded(f"{where} does not speak WebSocket: {error}") from None
    except tcp.BROKEN as error:
        end = tcp.to_link_ended(error)
        if end.denied:
            raise LinkEnded(f"cannot connect to {where}: {end.reason}", denied=True) from None
        raise LinkEnded(f"{where} does not speak WebSocket: {end.reason}") from None


async def _refusal_text(stream: ByteStream, handshake: WSConnection) -> str:
    """Return the text of a refusal's body, as far as it arrives, after a colon."""
    body, whole = b"", False
    with suppress(*tcp.BROKEN, RemoteProtocolError), anyio.move_on_after(REFUSAL_SECONDS):
        while True:
            for event in handshake.events():
                if isinstance(event, ws.RejectData):
                    body, whole = body + event.data, event.body_finished
            if whole or len(body) >= _REFUSAL_TEXT_BYTES:
                break
            handshake.receive_data(await stream.receive(tcp.READ_SIZE))
    text = " ".join(body[:_REFUSAL_TEXT_BYTES].decode("utf-8", "replace").split())
    return f": {text}" if text and not text.startswith("<") else ""


def _link(
    stream: ByteStream, handshake: WSConnection, chosen: str | None, *, received: bytes, max_message: int
) -> WebSocketLink:
    connection = handshake.connection
    assert connection is not None  # an accepted handshake has created it
    framing = Framing.NATIVE_MESSAGES if chosen == SUBPROTOCOL else Framing.CLASSIC_MESSAGES
    return WebSocketLink(stream, connection, framing=framing, received=received, max_message=max_message)
