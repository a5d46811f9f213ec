"""Peers of the driver under test: blocking sockets that send any bytes, stop reading, vanish, or forward.

A `Peer` is a client in either dialect, over raw frames or WebSocket. It sends and reads single messages, so that a
check can break the protocol at any place. A `Seed` is a listener at an address that the driver dials. A `Forwarder`
passes connections on to another address. Each wait has a bound; what comes instead is raised as `Unexpected`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from mpreg_proto.errors import Fault
from mpreg_proto.limits import SECOND
from mpreg_proto.view import NodeView
from mpreg_proto.wire.dialects import BadRequest, decode, encode
from mpreg_proto.wire.framing import LONGEST_FRAME, FrameReader, prefix
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    Call,
    GetView,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.values import ValueCodec

READ_SIZE = 256 * 1024
_RESET = struct.pack("ii", 1, 0)
_codec = ValueCodec()
_view: msgspec.json.Decoder[NodeView] = msgspec.json.Decoder(NodeView)


class Unexpected(Exception):
    """The driver did something else than a check expects. The text says what."""


class Ended(Unexpected):
    """The driver closed the connection."""


class CheckTooLong(Exception):
    """A check takes too long as a whole, although something goes on all the time. The text says what."""


class PeerWire(Protocol):
    """The framing of one connection, without the connection."""

    def opening(self) -> bytes:
        """Return the bytes to send first."""
        ...

    def frame(self, body: bytes) -> bytes:
        """Return the bytes of one message."""
        ...

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the bodies that `data` completes, and bytes to send back."""
        ...

    @property
    def is_open(self) -> bool:
        """True once messages can be sent."""
        ...


class RawWire:
    """Raw frames: a length, then the body."""

    is_open = True

    def __init__(self) -> None:
        self._reader = FrameReader(LONGEST_FRAME)

    def opening(self) -> bytes:
        return b""

    def frame(self, body: bytes) -> bytes:
        return prefix(len(body)) + body

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        return [bytes(body) for body in self._reader.feed(data)], b""


class WebSocketWire:
    """WebSocket, native (binary messages) or JSON (text messages)."""

    def __init__(self, url: SplitResult, *, native: bool, answers_pings: bool) -> None:
        self._native = native
        self._answers_pings = answers_pings
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._request = ws.Request(host=url.netloc, target=url.path or "/", subprotocols=["mpreg.1"] if native else [])
        self._parts: list[bytes] = []
        self.is_open: bool = False
        self.pings: int = 0
        """The WebSocket pings that came."""
        self.code: int | None = None
        """The code of the close frame, once it came."""

    def opening(self) -> bytes:
        return self._connection.send(self._request)

    def frame(self, body: bytes) -> bytes:
        return self._connection.send(ws.BytesMessage(body) if self._native else ws.TextMessage(body.decode()))

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        self._connection.receive_data(data)
        bodies: list[bytes] = []
        reply = b""
        for event in self._connection.events():
            reply += self._on_event(event, bodies)
        return bodies, reply

    def _on_event(self, event: ws.Event, bodies: list[bytes]) -> bytes:
        match event:
            case ws.AcceptConnection():
                self.is_open = True
            case ws.RejectConnection(status_code=status):
                raise Unexpected(f"the WebSocket handshake was answered with HTTP {status}")
            case ws.Ping():
                self.pings += 1
                return self._connection.send(event.response()) if self._answers_pings else b""
            case ws.CloseConnection(code=code):
                self.code = int(code)
                return self._connection.send(event.response())
            case ws.TextMessage(data=data) | ws.BytesMessage(data=data):
                self._parts.append(data.encode() if isinstance(data, str) else bytes(data))
                if event.message_finished:
                    bodies.append(b"".join(self._parts))
                    self._parts = []
        return b""


_LONGEST_CALL: Final = 600 * SECOND
"""No call of a check takes as long, even on a busy machine; clocks that are not one differ by more."""


class Peer:
    """A client of the driver under test. `buffer` bounds the system's buffers, in bytes, `seconds` each wait for bytes.

    A long message may take longer: with a small buffer, a busy machine needs more time for it than for all others. At
    the time `until`, of the monotonic clock, each method that waits raises CheckTooLong.
    """

    def __init__(
        self,
        url: str,
        *,
        seconds: float,
        until: float = inf,
        name: str = "peer",
        native: bool = True,
        buffer: int = 0,
        answers_pings: bool = True,
    ) -> None:
        self._seconds = seconds
        self._until = until
        self.name: str = name
        """The name in its hello, which the node reports in `LinkOpened` and `LinkClosed`."""
        self._refused = ""
        self._native = native
        self._answers_pings = answers_pings
        self._arrived: deque[bytes] = deque()
        self._last_id = 0
        self._results: dict[int, Result] = {}
        self.pings: int = 0
        """The pings of the native dialect that came."""
        where = urlsplit(url)
        self.websocket: WebSocketWire | None = None
        self._wire: PeerWire = RawWire()
        if where.scheme == "ws":
            self._wire = self.websocket = WebSocketWire(where, native=native, answers_pings=answers_pings)
        self.sock: socket.socket = connect(where, seconds, buffer)
        try:
            self._open()
        except BaseException:
            self.sock.close()
            raise

    def _open(self) -> None:
        self.write(self._wire.opening())
        self._wait(lambda: self._wire.is_open, "the WebSocket handshake")

    # -- bytes --------------------------------------------------------------------------------------------------------

    def frame(self, message: Message) -> bytes:
        """Return the bytes of a message on this connection."""
        return self._wire.frame(encode(message))

    def framed(self, body: bytes) -> bytes:
        """Return the bytes of a message with this body, which may be no message."""
        return self._wire.frame(body)

    def write(self, data: bytes) -> None:
        """Send bytes. Raises Unexpected if the driver takes none of them in time."""
        try:
            self.sock.settimeout(min(self._seconds, self._left("the driver to take bytes")))
            self.sock.sendall(data)
        except TimeoutError:
            raise Unexpected(f"the driver took no more bytes within {self._seconds:g} s") from None
        except OSError as error:
            raise Ended(f"the driver closed the connection of {self.name} ({error})") from None

    def write_some(self, data: bytes | memoryview) -> int:
        """Send what the system takes at once; return how many bytes that were."""
        self._left("the driver to take bytes")
        self.sock.settimeout(0)
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Ended(f"the driver closed the connection of {self.name} ({error})") from None

    def wait_for_bytes(self, waiting_for: str) -> None:
        """Wait until bytes have come, and leave them unread. Raises Unexpected."""
        if not select.select([self.sock], [], [], min(self._seconds, self._left(waiting_for)))[0]:
            raise Unexpected(f"{waiting_for} did not come within {self._seconds:g} s")

    def is_writable(self) -> bool:
        """Return whether the system would take a byte now."""
        return bool(select.select([], [self.sock], [], 0)[1])

    def close(self) -> None:
        """Close the connection in order."""
        self.sock.close()

    def reset(self) -> None:
        """Reset the connection: the driver gets an error where it reads or writes."""
        reset(self.sock)

    # -- messages -----------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send one message."""
        self.write(self.frame(message))

    def next(self, waiting_for: str = "a message") -> bytes:
        """Return the body of the next message. Raises Unexpected if none comes, Ended if none can come."""
        self._wait(lambda: bool(self._arrived), waiting_for)
        return self._arrived.popleft()

    def message(self, waiting_for: str = "a message") -> Message | BadRequest:
        """Return the next native message; answer a ping first, unless this peer answers none."""
        message = decode(self.next(waiting_for))
        if type(message) is Refused:
            self._refused = f', after Refused("{message.fault.message}")'
        if type(message) is Ping:
            self.pings += 1
            if self._answers_pings:
                self.send(Pong(message.number))
        return message

    def greet(self) -> Peer:
        """Exchange hellos; return this peer."""
        self.send(hello(cluster="", member=b"", name=self.name))
        self.expect(Hello)
        return self

    def expect(self, kind: type[Message]) -> Any:
        """Return the next message, which must be of this kind."""
        message = self.message(f"a {kind.__name__}")
        if type(message) is not kind:
            raise Unexpected(f"a {type(message).__name__} came where a {kind.__name__} was expected")
        return message

    def request(
        self,
        function: str,
        *args: object,
        keywords: Mapping[str, object] = {},
        timeout: float | None = None,
        wait: float = 0.0,
    ) -> Request:
        """Return a request of one call, to be sent."""
        self._last_id += 1
        calls = (Call("one", function, _codec.encode([list(args), dict(keywords)])),)
        limit = None if timeout is None else int(timeout * 1e9)
        return Request(self._last_id, calls, timeout=limit, wait=int(wait * 1e9))

    def submit(self, function: str, *args: object, timeout: float | None = None, wait: float = 0.0) -> int:
        """Send a request of one call; return its number."""
        request = self.request(function, *args, timeout=timeout, wait=wait)
        self.send(request)
        return request.id

    def answer(self, number: int) -> Any:
        """Return the value of a request, or the `Fault` with which it ended."""
        while number not in self._results:
            message = self.message(f"the answer to request {number}")
            if type(message) is Result:
                self._results[message.id] = message
            elif type(message) is Refused:
                raise Unexpected(f"the node refused the link: {message.fault.message}")
        result = self._results.pop(number)
        for row in result.trace:
            if not 0 <= row.started <= row.ended <= _LONGEST_CALL:
                raise Unexpected(
                    f"by the times of the driver, a call began {row.started / 1e9:g} s after its request "
                    f"and ended after {row.ended / 1e9:g} s: not all inputs have the time of one monotonic clock"
                )
        return result.fault if result.fault is not None else _codec.decode(result.done[0].value)

    def call(self, function: str, *args: object) -> Any:
        """Send a request of one call; return its value, or the `Fault` with which it ended."""
        return self.answer(self.submit(function, *args))

    def require(self, function: str, *args: object, value: object) -> None:
        """Call a function. Raises Unexpected unless its value is `value`."""
        came = self.call(function, *args)
        if came != value:
            raise Unexpected(f"{function}() was answered with {shorten(came)}, not {shorten(value)}")

    def view(self) -> NodeView:
        """Return the node's view of itself and of the cluster."""
        self._last_id += 1
        self.send(GetView(self._last_id))
        text = b""
        while True:
            message = self.message("the node's view")
            if type(message) is View and message.id == self._last_id:
                text += message.view
                if message.last:
                    return _view.decode(text)

    def until_view(self, condition: Callable[[NodeView], bool], what: str) -> NodeView:
        """Ask for the view again and again until it meets `condition`. Raises Unexpected with the last one."""
        limit = time.monotonic() + self._seconds
        while True:
            view = self.view()
            if condition(view):
                return view
            if time.monotonic() > limit:
                counts = f"links={view.links}, running={view.running}, requests={view.requests}"
                raise Unexpected(f"not within {self._seconds:g} s: {what}; the node's view has {counts}")

    def ask_json(self, function: str, *args: object) -> Any:
        """Send a JSON request of one call; return the decoded answer."""
        self.write(self.json_request(function, *args))
        return self.json_answer()

    def json_request(self, function: str, *args: object) -> bytes:
        """Return the bytes of a JSON request of one call on this connection."""
        request = {"role": "rpc", "u": "1", "cmds": [{"name": "one", "fun": function, "args": args}]}
        return self._wire.frame(json.dumps(request).encode())

    def json_answer(self) -> Any:
        """Return the next answer to a JSON request, decoded."""
        return json.loads(self.next("the answer to a JSON request"))

    def last_messages(self) -> list[Message | BadRequest]:
        """Return all messages until the driver closes the connection. Raises Unexpected if it does not."""
        found: list[Message | BadRequest] = []
        try:
            while True:
                found.append(self.message("the end of the link"))
        except Ended:
            return found

    def read_until(self, condition: Callable[[], bool], *, seconds: float) -> None:
        """Read until `condition` is true, at most `seconds`. Raises Ended if the driver closes the connection."""
        limit = time.monotonic() + seconds
        while not condition() and (left := limit - time.monotonic()) > 0:
            self._read("nothing", seconds=left)

    def read_slowly(self, turns: int) -> None:
        """Read four times in each turn of 0.1 s at least. Raises Ended if the driver closes the connection."""
        for _ in range(turns):
            for _ in range(4):
                self._read("the slow part of an answer", seconds=self._seconds)
            time.sleep(0.1)

    def widen(self) -> None:
        """Enlarge the buffer of the system, so that what is still to come needs little time."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def write_while_reading(self, data: memoryview) -> None:
        """Send bytes to a driver that first has to get rid of its own: read in between."""
        limit = time.monotonic() + self._seconds
        while data:
            readable, writable, _ = select.select([self.sock], [self.sock], [], max(0.0, limit - time.monotonic()))
            if readable:
                self._read("an answer", seconds=self._seconds)
            elif writable:
                data = data[self.write_some(data) :]
            else:
                raise Unexpected(f"the driver read and wrote nothing for {self._seconds:g} s")
            limit = time.monotonic() + self._seconds

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], waiting_for: str) -> None:
        while not condition():
            if not self._read(waiting_for, seconds=self._seconds):
                self._left(waiting_for)
                raise Unexpected(f"{waiting_for} did not come within {self._seconds:g} s")

    def _left(self, waiting_for: str) -> float:
        """Return the seconds until the end of the check, more than 0. Raises CheckTooLong if there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise CheckTooLong(f"it still waited for {waiting_for} when {self.pings} pings had come")
        return left

    def _read(self, waiting_for: str, *, seconds: float) -> bool:
        """Read once; False if nothing came. Raises Ended."""
        try:
            self.sock.settimeout(min(max(seconds, 0.001), self._left(waiting_for)))
            data = self.sock.recv(READ_SIZE)
        except TimeoutError:
            return False
        except OSError as error:
            broke = f"the connection of {self.name} broke while {waiting_for} was expected ({error})"
            raise Ended(broke + self._refused) from None
        if not data:
            closed = f"the driver closed the connection of {self.name} while {waiting_for} was expected"
            raise Ended(closed + (self._refused or "; the node's notice LinkClosed has the reason"))
        bodies, reply = self._wire.feed(data)
        self._arrived.extend(bodies)
        if reply:
            with suppress(Ended):
                self.write(reply)
        return True


class Seed:
    """A listener whose address can be a seed. It opens later, or takes no connection, as a check wants."""

    def __init__(self, scheme: str) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url: str = f"{scheme}://127.0.0.1:{self.port}"
        self._socks: list[socket.socket] = []

    def listen(self) -> None:
        """Open the port: until then, dials are refused."""
        self._listener.listen()

    def hang(self) -> None:
        """Open the port with a full queue: the system answers no further dial."""
        self._listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._socks.append(filler)

    def accept(self, seconds: float) -> socket.socket:
        """Return the next connection. Raises Unexpected if none comes."""
        self._listener.settimeout(seconds)
        try:
            sock, _ = self._listener.accept()
        except TimeoutError:
            raise Unexpected(f"no dial of {self.url} came within {seconds:g} s") from None
        sock.settimeout(seconds)
        self._socks.append(sock)
        return sock

    def accept_bytes(self, seconds: float) -> socket.socket:
        """Return the next connection once bytes have come over it. Raises Unexpected."""
        sock = self.accept(seconds)
        try:
            if sock.recv(READ_SIZE):
                return sock
        except OSError:
            pass
        raise Unexpected("a link that the driver had dialled brought no bytes: a node that dials sends its hello first")

    def close(self) -> None:
        """Close the port and its connections."""
        for sock in (self._listener, *self._socks):
            sock.close()


class Forwarder:
    """An address at which connections wait until `connect_to` names where they go."""

    def __init__(self, scheme: str) -> None:
        self._seed = Seed(scheme)
        self._seed.listen()
        self.url: str = self._seed.url
        self._target: SplitResult | None = None
        self._set = threading.Event()
        self._socks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def connect_to(self, url: str) -> None:
        """Pass the waiting connections, and all later ones, on to this address."""
        self._target = urlsplit(url)
        self._set.set()

    def close(self) -> None:
        """Close the address and its connections."""
        self._set.set()
        self._seed.close()
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError, Unexpected, ValueError):
            while True:
                sock = self._seed.accept(60.0)
                self._socks.append(sock)
                threading.Thread(target=self._pass_on, args=(sock,), daemon=True).start()

    def _pass_on(self, sock: socket.socket) -> None:
        self._set.wait(60.0)
        if self._target is None:
            return
        with suppress(OSError, Unexpected):
            other = connect(self._target, 60.0, 0)
            self._socks.append(other)
            threading.Thread(target=_copy, args=(sock, other), daemon=True).start()
            _copy(other, sock)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(READ_SIZE):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def connect(where: SplitResult, seconds: float, buffer: int) -> socket.socket:
    """Open a connection. Raises Unexpected if the driver does not take it."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    sock.settimeout(seconds)
    try:
        sock.connect((where.hostname, where.port))
    except OSError as error:
        sock.close()
        raise Unexpected(f"the driver does not accept a connection ({error})") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """Reset a connection."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def shorten(value: object) -> str:
    """Return a value as a short text for an error."""
    if isinstance(value, Fault):
        return f"error {value.code} ({value.message})"
    if isinstance(value, bytes) and len(value) > 40:
        return f"{len(value)} bytes"
    return f"{value!r:.200}"
