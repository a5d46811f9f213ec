"""TLS between a connection and what runs over it, by `ssl.MemoryBIO`: one code for every event loop.

`secure` does the handshake over a byte stream and returns a byte stream, over which raw frames, WebSocket and HTTP run
as over a socket. Bytes that were already read from the connection enter by `received`. The contexts come from
`security/contexts.py`. Nothing here decides who is trusted.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteStream

from mpreg_transports.links.buffering import BufferingStream

HANDSHAKE_SECONDS = 5.0
"""The seconds within which a TLS handshake must end. Reasonable: 2 to 10."""
CLOSE_SECONDS = 0.5
"""The seconds for a close_notify to be taken by the system, before the connection is closed without it."""
READ_SIZE = 256 * 1024
"""The bytes of one read of the connection."""
RECORD = 16 * 1024
"""The longest plain text of a record (RFC 8446, section 5.1)."""
MAX_REPLIES = 64 * 1024
"""The bytes that reading may add to those that wait to be sent, such as replies to key updates: else the peer sends
many of them and reads nothing."""

_NOT_ACCEPTED = frozenset(
    "TLSV1_ALERT_UNKNOWN_CA TLSV1_ALERT_DECRYPT_ERROR TLSV1_ALERT_ACCESS_DENIED TLSV13_ALERT_CERTIFICATE_REQUIRED "
    "SSLV3_ALERT_BAD_CERTIFICATE SSLV3_ALERT_CERTIFICATE_UNKNOWN SSLV3_ALERT_UNSUPPORTED_CERTIFICATE".split()
)
"""The alerts of a peer that does not accept this end's certificate (RFC 8446, section 6.2), by OpenSSL's names."""
_NO_TLS = frozenset(
    "WRONG_VERSION_NUMBER HTTP_REQUEST PACKET_LENGTH_TOO_LONG UNEXPECTED_MESSAGE BAD_RECORD_TYPE".split()
)


class TlsStream(ByteStream):
    """The plain text of a TLS connection. One task may receive while another sends, as with any anyio stream."""

    def __init__(
        self, stream: ByteStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, sent: int
    ) -> None:
        self.sent_bytes: int = sent
        """The bytes that were sent over the connection, records and handshake: what the peer acknowledges."""
        self._stream = stream
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._end: Exception | None = None
        self._broken = False
        """True if a record was cut: nothing more can be sent."""
        self._eof_sent = False
        # Of each direction's records all must leave in order, and the reader has some to send too.
        self._sending = anyio.Lock(fast_acquire=True)

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The verified certificate of the peer, as `SSLObject.getpeercert` returns it; None if it has sent none."""
        return self._tls.getpeercert()

    @property
    def shown_certificate(self) -> bytes:
        """The certificate that the peer has shown, in DER, verified or not; empty if it has shown none."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses and the socket of the connection."""
        return self._stream.extra_attributes

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """See `anyio.abc.ByteReceiveStream.receive`. Without the peer's close_notify the end is a break."""
        while not (data := self._decrypt(max_bytes)):
            if self._end is not None:
                end = self._end
                raise type(end)() from end.__cause__
            try:
                self._incoming.write(await self._stream.receive(READ_SIZE))
            except anyio.EndOfStream:
                self._incoming.write_eof()
        return data

    async def send(self, item: bytes) -> None:
        """See `anyio.abc.ByteSendStream.send`. If it is cancelled halfway, the stream is broken."""
        async with self._sending:
            self._encrypt(item)
            await self._flush()

    async def send_eof(self) -> None:
        """Send close_notify, within a bounded time, and write no more. The peer may still send."""
        if self._eof_sent or self._broken or self._sending.locked():
            return
        self._eof_sent = True
        with suppress(ssl.SSLError):  # it wants the peer's close_notify, or the handshake has not ended
            self._tls.unwrap()
        with anyio.move_on_after(CLOSE_SECONDS):
            async with self._sending:
                await self._flush()
            await _send_eof(self._stream)

    async def aclose(self) -> None:
        """Close the connection. Without a `send_eof` before, the peer gets no close_notify."""
        self._eof_sent = True
        await self._stream.aclose()

    # -- records ------------------------------------------------------------------------------------------------------

    def _decrypt(self, most: int) -> bytes:
        """Return the plain text that has arrived, up to `most` bytes; after the end, or before a whole record, none."""
        parts: list[bytes] = []
        # Without bytes to read OpenSSL raises, which costs more than a short record.
        while most > 0 and self._end is None and (self._incoming.pending or self._tls.pending() or self._incoming.eof):
            try:
                part = self._tls.read(min(most, RECORD))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            except ssl.SSLError as error:
                self._end = anyio.BrokenResourceError()
                self._end.__cause__ = error
                break
            if not part:
                self._end = anyio.EndOfStream()
                break
            parts.append(part)
            most -= len(part)
        if self._outgoing.pending and not self._sending.locked():
            self._reply()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _reply(self) -> None:
        """Send what reading has made, if that needs no waiting; else the next sender does."""
        if self._outgoing.pending > MAX_REPLIES:
            self._end = anyio.BrokenResourceError()

    def _encrypt(self, item: bytes) -> None:
        """Put the records of `item` into the outgoing bytes. Raises BrokenResourceError or ClosedResourceError."""
        if self._broken:
            raise anyio.BrokenResourceError
        if self._eof_sent:
            raise anyio.ClosedResourceError
        view = memoryview(item)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            raise anyio.BrokenResourceError from error

    def _take(self) -> bytes:
        data = self._outgoing.read()
        self.sent_bytes += len(data)
        return data

    async def _flush(self) -> None:
        """Send all outgoing bytes. Must be called with `_sending` held."""
        whole = False
        try:
            while self._outgoing.pending:
                await self._stream.send(self._take())
            whole = True
        finally:
            self._broken = self._broken or not whole


class BufferingTlsStream(TlsStream, BufferingStream):
    """TLS over a stream that takes bytes before the system does."""

    _stream: BufferingStream

    @property
    def unwritten(self) -> int:
        """The number of bytes of records that the system has not taken."""
        return self._stream.unwritten + self._outgoing.pending

    @property
    def writable(self) -> bool:
        """True if `send_now` would write."""
        return self._stream.writable and not (self._broken or self._eof_sent or self._sending.locked())

    def send_now(self, item: bytes) -> bool:
        """See `BufferingStream.send_now`. Raises BrokenResourceError after a failure of TLS."""
        if not self.writable:
            return False
        self._encrypt(item)
        self._reply()
        return True

    async def drain(self) -> None:
        """See `BufferingStream.drain`."""
        await self._stream.drain()

    def limit_unwritten(self, size: int) -> None:
        """See `BufferingStream.limit_unwritten`."""
        self._stream.limit_unwritten(size)

    def _reply(self) -> None:
        if self._stream.writable:
            self._stream.send_now(self._take())
        else:
            super()._reply()


async def secure(
    stream: ByteStream, context: ssl.SSLContext, *, server_side: bool = False, host: str = "", received: bytes = b""
) -> TlsStream:
    """Do the handshake, and return the stream of the plain text. The caller closes `stream` if this raises.

    `host` is the name that a dialling end expects, `received` bytes that were already read. Raises ssl.SSLError after
    an alert was sent, TimeoutError, and the exceptions of the stream; the error has a text for people.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=host or None)
    incoming.write(received)
    sent = 0
    with anyio.fail_after(HANDSHAKE_SECONDS):
        while True:
            error: ssl.SSLError | None = None
            try:
                tls.do_handshake()
            except ssl.SSLError as raised:
                error = raised
            if outgoing.pending:
                data = outgoing.read()
                sent += len(data)
                await stream.send(data)
            if error is None:
                break
            if not isinstance(error, ssl.SSLWantReadError):
                raise error
            try:
                incoming.write(await stream.receive(READ_SIZE))
            except anyio.EndOfStream:
                raise ConnectionAbortedError("it hung up in the TLS handshake; does it speak plain text?") from None
    kind = BufferingTlsStream if isinstance(stream, BufferingStream) else TlsStream
    return kind(stream, tls, incoming, outgoing, sent=sent)


def is_denial(error: BaseException | None) -> bool:
    """Return whether one end has not accepted the other's certificate: no other try would end differently."""
    if not isinstance(error, ssl.SSLError):
        return False
    return isinstance(error, ssl.SSLCertVerificationError) or error.reason in _NOT_ACCEPTED


def describe_tls_error(error: ssl.SSLError) -> str:
    """Return a text for people: the cause where it is known, else OpenSSL's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is of no authority that this end trusts ({error.verify_message})"
    if error.reason in _NOT_ACCEPTED:
        return "it does not trust the certificate of this end: it has another secret or cluster id, or none"
    if error.reason in _NO_TLS:
        return "it does not speak TLS; if it speaks plain text, write ws:// or tcp://"
    if isinstance(error, ssl.SSLEOFError):
        return "it ended without TLS's close_notify"
    return f"TLS failed ({(error.reason or str(error)).replace('_', ' ').lower()})"


async def _send_eof(stream: ByteStream) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await stream.send_eof()
