"""A node inside your own event loop: nonblocking sockets and `selectors`, without asyncio or anyio.

    python docs/examples/embed_selectors.py

This runs two such nodes, one in a thread, and sends a graph of calls through them. docs/howto/embed.md explains the
parts between the marks. tests/docs runs the whole file, also with an ordinary `Server` and `Client`.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, assert_never
from urllib.parse import urlsplit

from mpreg_proto import (
    Address,
    Call,
    Cancel,
    Demand,
    Dial,
    Effect,
    Feed,
    Framing,
    FunctionSpec,
    HangUp,
    KeepAlive,
    Limits,
    LinkId,
    MemberId,
    Node,
    NodeConfig,
    Notice,
    Notify,
    Outcome,
    Pause,
    Raised,
    Ref,
    Request,
    RequestFinished,
    Resume,
    Returned,
    Rng,
    Run,
    Send,
    ValueCodec,
)

clock = time.monotonic_ns


class Connection:
    """One link: its socket and its unsent bytes."""

    def __init__(self, link: LinkId, sock: socket.socket) -> None:
        self.link = link
        self.sock = sock
        self.unsent = bytearray()
        self.reported = 0  # the backlog that the node knows
        self.reading = True
        self.hang_up: HangUp | None = None
        self.close_at: int | None = None  # while it is hung up, and its peer takes nothing


class SelectorNode:
    """One node on one selector. `functions` run in the loop; each call of those in `threaded` runs in a new thread."""

    def __init__(
        self,
        name: str,
        functions: Mapping[str, Callable[..., Any]],
        *,
        resources: Iterable[str] = (),
        seeds: Iterable[str] = (),
        threaded: Iterable[str] = (),
        cluster_id: str = "default-cluster",
        limits: Limits | None = None,
    ) -> None:
        self.functions = {"echo": lambda value: value, "echos": lambda *values: list(values), **functions}
        self.threaded = frozenset(threaded)
        self.notices: list[Notice] = []
        self.connections: dict[LinkId, Connection] = {}
        self.last_link = 0
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.other_threads: deque[Callable[[], None]] = deque()
        self.wake_reader, self.wake_writer = socket.socketpair()  # the self-pipe: a byte in it ends select()
        self.wake_reader.setblocking(False)
        self.selector.register(self.wake_reader, selectors.EVENT_READ, self.take_from_threads)
        self.url = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        config = NodeConfig(
            name=name,
            cluster_id=cluster_id,
            addresses=(Address(self.url),),
            seeds=tuple(Address(seed) for seed in seeds),
            resources=tuple(sorted(resources)),
            limits=limits or Limits(),
        )
        me, rng = MemberId(os.urandom(16)), Rng(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(config, me=me, rng=rng, entropy=os.urandom, now=clock())
        for function in self.functions:
            spec = FunctionSpec(name=function, idempotent=function in ("echo", "echos"), concurrency=16)
            self.node.offer(spec, now=clock())

    # [loop]
    def run(self) -> None:
        """Drive the node until it has left and its links are closed."""
        self.flush()
        while not self.node.left or self.connections:
            self.step()

    def step(self) -> None:
        """Wait for sockets, threads or the node's next deadline; pass the inputs to the node; carry out its effects."""
        hung_up = [one.close_at for one in self.connections.values() if one.close_at is not None]
        due = min((at for at in (self.node.next_timeout(), *hung_up) if at is not None), default=None)
        for key, events in self.selector.select(None if due is None else max(0, due - clock()) / 1e9):
            key.data(events)  # accept, connected, ready or take_from_threads: each calls an input of the node
        for connection in list(self.connections.values()):
            if connection.close_at is not None and connection.close_at <= clock():
                self.close(connection)  # its peer takes nothing of the last bytes
        self.node.wake(now=clock())
        self.flush()

    def flush(self) -> None:
        """Carry out all effects of the node, including those that follow from them."""
        while effects := self.node.drain():
            for effect in effects:
                self.carry_out(effect)
            for connection in list(self.connections.values()):
                self.write(connection)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link, chunks):
                self.of(link).unsent += b"".join(chunks)
            case Dial(address):
                self.dial(address)
            case HangUp(link):
                self.of(link).hang_up = effect  # closed once all bytes are written
            case Run():
                self.start(effect)
            case Cancel():
                pass  # a function cannot be interrupted here; it ends by itself and `finished` follows
            case Notify(notice):
                self.notices.append(notice)
            case KeepAlive():
                pass  # only for links of whole messages, which this driver does not have
            case Pause(link):
                self.of(link).reading = False
            case Resume(link):
                self.of(link).reading = True
            case Demand() | Feed():
                pass  # this driver offers no generators, and no functions with iterators
            case _:
                assert_never(effect)

    # [/loop]

    def of(self, link: LinkId) -> Connection:
        """Return the link's connection, or an unused one if the link ended before this effect was carried out."""
        return self.connections.get(link) or Connection(link, self.listener)

    # [links]
    def accept(self, events: int) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:  # the peer has gone already, or no file descriptor is left
            return
        self.open(sock, dialled=None)

    def dial(self, address: Address) -> None:
        """Open a connection. Every `Dial` ends in one `link_opened` or one `dial_failed`.

        A thread resolves the name, which can take seconds. The node itself counts a dial as failed after `Dial.within`.
        """
        threading.Thread(target=self.resolve, args=(address,), daemon=True).start()

    def resolve(self, address: Address) -> None:
        try:  # another member has sent this address: it may be no URL, or its host may have no number here
            where = urlsplit(address)
            found = socket.getaddrinfo(where.hostname, where.port or 9001, type=socket.SOCK_STREAM)[0]
        except (OSError, ValueError):
            self.call_from_thread(lambda: self.node.dial_failed(address, now=clock()))
            return
        self.call_from_thread(lambda: self.connect(address, found[0], found[4]))

    def connect(self, address: Address, family: int, target: Any) -> None:
        sock = None
        try:
            sock = socket.socket(family)
            sock.setblocking(False)
            with suppress(BlockingIOError):  # it goes on
                sock.connect(target)
        except OSError:
            if sock is not None:
                sock.close()
            self.node.dial_failed(address, now=clock())
            return
        self.selector.register(sock, selectors.EVENT_WRITE, lambda events: self.connected(sock, address))

    def connected(self, sock: socket.socket, address: Address) -> None:
        self.selector.unregister(sock)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            self.open(sock, dialled=address)
        else:
            sock.close()
            self.node.dial_failed(address, now=clock())

    def open(self, sock: socket.socket, *, dialled: Address | None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last_link += 1
        connection = Connection(LinkId(self.last_link), sock)
        self.connections[connection.link] = connection
        self.selector.register(sock, selectors.EVENT_READ, lambda events: self.ready(connection, events))
        self.node.link_opened(connection.link, framing=Framing.STREAM, dialled=dialled, now=clock())

    def ready(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                data = connection.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close(connection)
                return
            self.node.receive(connection.link, data, now=clock())
        if events & selectors.EVENT_WRITE:
            self.write(connection)

    def write(self, connection: Connection) -> None:
        before = len(connection.unsent)
        try:
            while connection.unsent:
                del connection.unsent[: connection.sock.send(connection.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close(connection)
            return
        left, hang_up = len(connection.unsent), connection.hang_up
        if hang_up is not None and not left:
            self.close(connection)
            return
        if hang_up is not None and (connection.close_at is None or left < before):
            connection.close_at = clock() + hang_up.within
        if left != connection.reported:
            connection.reported = left
            self.node.backlog(connection.link, left, now=clock())
        events = selectors.EVENT_READ if connection.reading else 0
        events |= selectors.EVENT_WRITE if connection.unsent else 0
        self.watch(connection, events)

    def close(self, connection: Connection) -> None:
        """Close a link. Every opened link ends in one `link_closed`."""
        self.watch(connection, 0)
        connection.sock.close()
        del self.connections[connection.link]
        self.node.link_closed(connection.link, now=clock())

    # [/links]

    def watch(self, connection: Connection, events: int) -> None:
        """Watch a connection for these events; without events, unregister it, as a selector needs at least one."""
        key = self.selector.get_map().get(connection.sock)
        if key is not None and events:
            self.selector.modify(connection.sock, events, key.data)
        elif key is not None:
            self.selector.unregister(connection.sock)
        elif events:
            self.selector.register(connection.sock, events, lambda events: self.ready(connection, events))

    # [functions]
    def start(self, run: Run) -> None:
        """Run a function. Every `Run` ends in one `finished`."""
        if run.function not in self.threaded:
            self.node.finished(run.run, self.outcome(run), now=clock())
            return

        def body() -> None:
            outcome = self.outcome(run)
            self.call_from_thread(lambda: self.node.finished(run.run, outcome, now=clock()))

        threading.Thread(target=body, daemon=True).start()

    def outcome(self, run: Run) -> Outcome:
        try:
            return Returned(self.functions[run.function](*run.args, **run.kwargs))
        except Exception as error:
            return Raised(type(error).__name__, str(error))

    def call_from_thread(self, act: Callable[[], None]) -> None:
        """Run `act` in the thread of the loop, since no other thread may use the node."""
        self.other_threads.append(act)
        with suppress(OSError):  # the driver has ended, and this function has not
            self.wake_writer.send(b"\0")

    def take_from_threads(self, events: int) -> None:
        self.wake_reader.recv(4096)
        while self.other_threads:
            self.other_threads.popleft()()

    # [/functions]

    def release(self) -> None:
        """Close the listener, the self-pipe, dials in progress and the selector, after `run`."""
        for key in list(self.selector.get_map().values()):
            self.selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self.wake_writer.close()
        self.selector.close()


def add(x: int, y: int) -> int:
    return x + y


def doubled_slowly(x: int) -> int:
    time.sleep(0.01)
    return 2 * x


def main() -> None:
    offered: dict[str, Callable[..., Any]] = {"add": add, "doubled_slowly": doubled_slowly}
    alpha = SelectorNode("alpha", offered, threaded={"doubled_slowly"})
    thread = threading.Thread(target=alpha.run)
    thread.start()
    front = SelectorNode("front", {}, seeds=[alpha.url])

    codec = ValueCodec()
    calls = (
        Call("sum", "add", codec.encode([[1, 2], {}])),
        Call("total", "doubled_slowly", codec.encode([[Ref("sum")], {}]), dependencies=("sum",)),
    )
    front.node.submit(Request(0, calls, wait=5_000_000_000), now=clock())  # waits for alpha's functions
    front.flush()
    answers: list[RequestFinished] = []
    while not answers:
        front.step()
        answers = [notice for notice in front.notices if isinstance(notice, RequestFinished)]
    result = answers[0].result
    print({row.name: codec.decode(row.value) for row in result.done}, result.fault)

    alpha.call_from_thread(lambda: alpha.node.leave(now=clock()))
    front.node.leave(now=clock())
    front.run()
    thread.join()
    front.release()
    alpha.release()


if __name__ == "__main__":
    main()
