"""A blocking client in 100 lines: `ClientSession` over a plain socket, without threads or an event loop.

    python docs/examples/blocking_client.py tcp://127.0.0.1:9001 echo hello

docs/howto/blocking-client.md explains it. One thread makes one call at a time.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from mpreg_proto import (
    Address,
    Call,
    ClientSession,
    Framing,
    HangUp,
    LinkId,
    Rejected,
    ReplyReceived,
    Request,
    Result,
    Send,
    ValueCodec,
    exception_for,
)

REDIAL_SECONDS = 0.2
clock = time.monotonic_ns


class BlockingClient:
    """A client of the node at `url`. It connects at its first call, and again when the connection has ended."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = ClientSession(name="blocking")
        self.codec = ValueCodec()
        self.sock: socket.socket | None = None
        self.link = LinkId(0)
        self.results: dict[int, Result] = {}

    # [call]
    def call(self, function: str, *args: Any, timeout: float = 60.0, **kwargs: Any) -> Any:
        """Return the result of one call. Raises RequestError, at the latest 200 ms after `timeout` seconds."""
        while self.sock is not None and self.read(0):
            pass  # what came since the last call: pings, perhaps the end of the connection
        call = Call("call", function, self.codec.encode([list(args), kwargs]))
        number = self.session.submit(Request(0, (call,), timeout=int(timeout * 1e9)), now=clock())
        while number not in self.results:
            self.flush()
            if self.sock is None:
                self.connect()
            elif number not in self.results:
                self.read(self.seconds_left())
            self.session.wake(now=clock())
        result = self.results.pop(number)
        if result.fault is not None:
            raise exception_for(result.fault)
        return self.codec.decode(result.done[0].value)

    def seconds_left(self) -> float:
        """Return the seconds until the session has something to do: a deadline or a ping."""
        due = self.session.next_timeout()
        return 60.0 if due is None else max(0.0, (due - clock()) / 1e9)

    # [/call]

    def connect(self) -> None:
        where = urlsplit(self.url)
        try:
            self.sock = socket.create_connection((where.hostname, where.port), max(0.001, self.seconds_left()))
        except OSError as error:
            self.session.unreachable(str(error))  # the error of a call that gets no answer contains it
            time.sleep(min(REDIAL_SECONDS, self.seconds_left()))
            return
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link = LinkId(self.link + 1)
        self.session.link_opened(self.link, framing=Framing.STREAM, address=Address(self.url), now=clock())

    # [io]
    def read(self, seconds: float) -> bool:
        """Pass what arrives within some seconds to the session; return False if nothing does."""
        assert self.sock is not None
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(256 * 1024)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            data = b""
        if data:
            self.session.receive(self.link, data, now=clock())
            self.flush()
        else:
            self.hang_up()
        return True

    def flush(self) -> None:
        """Carry out all effects of the session."""
        while effects := self.session.drain():
            for effect in effects:
                if isinstance(effect, Send) and self.sock is not None:
                    self.send(self.sock, b"".join(effect.chunks))
                elif isinstance(effect, HangUp):
                    self.hang_up()
                elif isinstance(effect, Rejected):
                    self.session.fail_all(effect.fault)  # another cluster or version: no later link would help
                elif isinstance(effect, ReplyReceived) and isinstance(effect.reply, Result):
                    self.results[effect.id] = effect.reply

    def send(self, sock: socket.socket, data: bytes) -> None:
        sock.settimeout(max(0.001, self.seconds_left()))
        try:
            sock.sendall(data)
        except OSError:  # with a part of a message sent, the connection is of no use
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection. Every opened link ends in one `link_closed`."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            self.session.link_closed(self.link, now=clock())

    # [/io]

    def close(self) -> None:
        self.session.close(now=clock())
        self.flush()


if __name__ == "__main__":
    client = BlockingClient(sys.argv[1])
    print(client.call(sys.argv[2], *sys.argv[3:], timeout=5))
    client.close()
