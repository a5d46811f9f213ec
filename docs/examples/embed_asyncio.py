"""A node on asyncio's own protocols and transports, without anyio.

    python docs/examples/embed_asyncio.py

This runs two such nodes in one event loop, and sends a graph of calls through them. docs/howto/driver.md explains the
contract of a driver, and tests/docs runs `check_driver` against this one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
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
    LinkId,
    MemberId,
    Node,
    NodeConfig,
    Notify,
    Outcome,
    Pause,
    Raised,
    Ref,
    Request,
    RequestFinished,
    RequestId,
    Result,
    Resume,
    Returned,
    Rng,
    Run,
    RunId,
    Send,
    Stopped,
    ValueCodec,
)

PIECE = 64 * 1024
"""The bytes that a transport gets at once: between two pieces the driver learns that the peer takes some."""


# [link]
class Connection(asyncio.Protocol):
    """One link: its transport and its unsent bytes. Every opened link ends in one `link_closed`."""

    def __init__(self, owner: AsyncioNode, dialled: Address | None = None) -> None:
        self.owner = owner
        self.dialled = dialled
        self.link = LinkId(0)
        self.unsent = bytearray()
        self.reported = 0  # the backlog that the node knows
        self.writable = True
        self.hang_up: HangUp | None = None
        self.give_up_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # pause_writing while any byte waits, resume_writing at the last
        self.link = self.owner.add(self)
        node, now = self.owner.node, self.owner.now()
        node.link_opened(self.link, framing=Framing.STREAM, dialled=self.dialled, now=now)
        self.owner.flush()

    def data_received(self, data: bytes) -> None:
        self.owner.node.receive(self.link, data, now=self.owner.now())
        self.owner.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.give_up_timer is not None:
            self.give_up_timer.cancel()
        del self.owner.connections[self.link]
        self.owner.node.link_closed(self.link, now=self.owner.now())
        self.owner.flush()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.owner.loop.call_soon(self.write_on)  # not now: asyncio is about to close a link that is closed in here

    def write_on(self) -> None:
        if self.link in self.owner.connections:
            self.write()
            self.owner.flush()

    @property
    def left(self) -> int:
        """The bytes that the system has not taken."""
        return len(self.unsent) + self.transport.get_write_buffer_size()

    def write(self) -> None:
        """Write what the transport takes, report the rest, and close the link once nothing is left of a hang-up."""
        while self.unsent and self.writable:
            self.transport.write(bytes(self.unsent[:PIECE]))
            del self.unsent[:PIECE]
        if self.left != self.reported:
            self.reported = self.left
            self.owner.node.backlog(self.link, self.left, now=self.owner.now())
        if self.hang_up is not None and not self.unsent:
            self.transport.close()
        if self.hang_up is not None and self.give_up_timer is None:
            self.give_up_later(self.hang_up.within)

    def give_up_later(self, within: int) -> None:
        self.give_up_timer = self.owner.loop.call_later(within / 1e9, self.give_up, within, self.left)

    def give_up(self, within: int, before: int) -> None:
        """Drop the last bytes of a link whose peer takes none of them."""
        if self.left < before:
            self.give_up_later(within)
        else:
            self.transport.abort()


# [/link]


class AsyncioNode:
    """One node in the running event loop. Each function is an ordinary one, and runs in a thread of a pool."""

    def __init__(self, config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.functions = {"echo": lambda value: value, "echos": lambda *values: list(values), **functions}
        self.connections: dict[LinkId, Connection] = {}
        self.last_link = 0
        self.dials: set[asyncio.Task[None]] = set()
        self.pool = ThreadPoolExecutor(16)
        self.runs: dict[RunId, Future[Any]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.answers: dict[RequestId, asyncio.Future[Result]] = {}
        self.ended = asyncio.Event()
        self.url = ""
        me, rng = MemberId(os.urandom(16)), Rng(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(config, me=me, rng=rng, entropy=os.urandom, now=self.now())
        for name in self.functions:
            spec = FunctionSpec(name=name, idempotent=name in ("echo", "echos"), concurrency=16)
            self.node.offer(spec, now=self.now())

    def now(self) -> int:
        """Return the time of the event loop, in nanoseconds."""
        return int(self.loop.time() * 1e9)

    # [loop]
    async def start(self) -> None:
        """Listen and begin to dial."""
        self.server = await self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.node.advertise((Address(self.url),), now=self.now())
        self.flush()

    def leave(self) -> None:
        self.node.leave(now=self.now())
        self.flush()

    async def wait_until_left(self) -> None:
        """Wait until the node has left and its links are closed; release everything."""
        await self.ended.wait()
        self.server.close()
        for _ in range(3):  # turns of the event loop: a connection that was accepted last is made
            await asyncio.sleep(0)
        for connection in list(self.connections.values()):
            connection.transport.abort()
        await asyncio.sleep(0)
        for dial in self.dials:
            dial.cancel()
        if self.timer is not None:
            self.timer.cancel()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def add(self, connection: Connection) -> LinkId:
        """Return a number for a new link: each has one of its own."""
        self.last_link += 1
        link = LinkId(self.last_link)
        self.connections[link] = connection
        return link

    def wake(self) -> None:
        self.node.wake(now=self.now())
        self.flush()

    def flush(self) -> None:
        """Carry out all effects of the node, and set the timer again. Called after each input."""
        while effects := self.node.drain():
            for effect in effects:
                self.carry_out(effect)
            for connection in list(self.connections.values()):
                connection.write()
        if self.timer is not None:
            self.timer.cancel()
        due = self.node.next_timeout()
        self.timer = None if due is None else self.loop.call_at(due / 1e9, self.wake)
        if self.node.left and not self.connections:
            self.ended.set()

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link, chunks):
                if link in self.connections:
                    self.connections[link].unsent += b"".join(chunks)
            case Dial(address):
                task = self.loop.create_task(self.dial(address))
                self.dials.add(task)
                task.add_done_callback(self.dials.discard)
            case HangUp(link):
                if link in self.connections:
                    self.connections[link].hang_up = effect
            case Run(run):
                self.start_run(effect)
            case Cancel(run):
                if run in self.runs:
                    self.runs[run].cancel()  # it has no effect on a call that a thread has begun
            case Notify(RequestFinished(request, result)):
                self.answers[request].set_result(result)
            case Notify() | KeepAlive():
                pass  # the core asks for KeepAlive on links of whole messages only
            case Pause(link):
                if link in self.connections:
                    self.connections[link].transport.pause_reading()
            case Resume(link):
                if link in self.connections:
                    self.connections[link].transport.resume_reading()
            case Demand() | Feed():
                pass  # this driver offers no generators, and no functions with iterators
            case _:
                assert_never(effect)

    async def dial(self, address: Address) -> None:
        """Open a link. Every `Dial` ends in one `link_opened` or one `dial_failed`."""
        try:  # another member has sent this address
            where = urlsplit(address)
            host, port = where.hostname or "", where.port or 9001
            await self.loop.create_connection(lambda: Connection(self, address), host, port)
        except (OSError, ValueError):
            self.node.dial_failed(address, now=self.now())
            self.flush()

    # [/loop]

    # [functions]
    def start_run(self, run: Run) -> None:
        """Run a function in a thread. Every `Run` ends in one `finished`."""

        def report(future: Future[Any]) -> None:
            with suppress(RuntimeError):  # the event loop is closed, and this function has not ended before
                self.loop.call_soon_threadsafe(self.finish, run.run, future)

        future = self.runs[run.run] = self.pool.submit(self.functions[run.function], *run.args, **run.kwargs)
        future.add_done_callback(report)

    def finish(self, run: RunId, future: Future[Any]) -> None:
        del self.runs[run]
        outcome: Outcome
        try:
            outcome = Returned(future.result())
        except CancelledError:
            outcome = Stopped()
        except Exception as error:
            outcome = Raised(type(error).__name__, str(error))
        self.node.finished(run, outcome, now=self.now())
        self.flush()

    # [/functions]

    async def request(self, request: Request) -> Result:
        """Run a request in the cluster, from within this process."""
        number = self.node.submit(request, now=self.now())
        answer: asyncio.Future[Result] = self.loop.create_future()
        self.answers[number] = answer
        self.flush()
        try:
            return await answer
        finally:
            del self.answers[number]


def add(x: int, y: int) -> int:
    return x + y


async def main() -> None:
    alpha = AsyncioNode(NodeConfig(name="alpha"), {"add": add})
    await alpha.start()
    front = AsyncioNode(NodeConfig(name="front", seeds=(Address(alpha.url),)), {})
    await front.start()

    codec = ValueCodec()
    calls = (
        Call("sum", "add", codec.encode([[1, 2], {}])),
        Call("total", "add", codec.encode([[Ref("sum"), 39], {}]), dependencies=("sum",)),
    )
    result = await front.request(Request(0, calls, wait=5_000_000_000))  # waits for alpha's functions
    print({row.name: codec.decode(row.value) for row in result.done}, result.fault)

    for node in (alpha, front):
        node.leave()
        await node.wait_until_left()


if __name__ == "__main__":
    asyncio.run(main())
