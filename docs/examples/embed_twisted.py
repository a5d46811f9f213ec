"""A node in Twisted's reactor: a protocol for each link, `callLater` for its timer, `deferToThread` for functions.

    python docs/examples/embed_twisted.py

This runs two such nodes, and sends a graph of calls through them. docs/howto/driver.md explains the contract of a
driver, and tests/drivers runs `check_driver` against this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, assert_never, cast
from urllib.parse import urlsplit

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

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
    Send,
    ValueCodec,
)

PIECE = 64 * 1024
"""The bytes that a transport gets at once: between two pieces the driver learns that the peer takes some."""
reactor = cast(Any, installed_reactor)
clock = time.monotonic_ns


# [link]
class Connection(Protocol):
    """One link: its transport and its unsent bytes. Every opened link ends in one `link_closed`."""

    def __init__(self, owner: TwistedNode, dialled: Address | None) -> None:
        self.owner = owner
        self.dialled = dialled
        self.link = LinkId(0)
        self.unsent = bytearray()
        self.reported = 0  # the backlog that the node knows
        self.writable = True
        self.hang_up: HangUp | None = None
        self.give_up_timer: Any = None

    def connectionMade(self) -> None:
        self.tcp = cast(Any, self.transport)
        self.tcp.setTcpNoDelay(True)
        self.tcp.registerProducer(self, True)  # calls pauseProducing and resumeProducing
        self.link = self.owner.add(self)
        self.owner.node.link_opened(self.link, framing=Framing.STREAM, dialled=self.dialled, now=clock())
        self.owner.flush()

    def dataReceived(self, data: bytes) -> None:
        self.owner.node.receive(self.link, data, now=clock())
        self.owner.flush()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.give_up_timer is not None and self.give_up_timer.active():
            self.give_up_timer.cancel()
        del self.owner.connections[self.link]
        self.owner.node.link_closed(self.link, now=clock())
        self.owner.flush()

    def pauseProducing(self) -> None:
        self.writable = False

    def resumeProducing(self) -> None:
        self.writable = True
        self.write()
        self.owner.flush()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def write(self) -> None:
        """Write what the transport takes, report the rest, and close the link once nothing is left of a hang-up."""
        while self.unsent and self.writable:
            self.tcp.write(bytes(self.unsent[:PIECE]))
            del self.unsent[:PIECE]
        if len(self.unsent) != self.reported:
            self.reported = len(self.unsent)
            self.owner.node.backlog(self.link, self.reported, now=clock())
        if self.hang_up is None:
            return
        if not self.unsent and not self.tcp.disconnecting:
            self.tcp.unregisterProducer()
            self.tcp.loseConnection()  # after the last piece
        if self.give_up_timer is None:
            self.give_up_later(self.hang_up.within)

    def give_up_later(self, within: int) -> None:
        self.give_up_timer = reactor.callLater(within / 1e9, self.give_up, within, len(self.unsent))

    def give_up(self, within: int, before: int) -> None:
        """Drop the last bytes of a link whose peer takes none of them."""
        if len(self.unsent) < before:
            self.give_up_later(within)
        else:
            self.tcp.abortConnection()


class Links(Factory):
    """Makes the protocol of each accepted link, or of one that was dialled."""

    noisy = False

    def __init__(self, owner: TwistedNode, dialled: Address | None = None) -> None:
        self.owner = owner
        self.dialled = dialled

    def buildProtocol(self, addr: object) -> Connection:
        return Connection(self.owner, self.dialled)


# [/link]


class TwistedNode:
    """One node in the reactor. Each function is an ordinary one, and runs in a thread of the reactor's pool."""

    def __init__(self, config: NodeConfig, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.functions = {"echo": lambda value: value, "echos": lambda *values: list(values), **functions}
        self.connections: dict[LinkId, Connection] = {}
        self.last_link = 0
        self.dials: dict[int, Deferred[Any]] = {}
        self.last_dial = 0
        self.flushing = self.released = False
        self.timer: Any = None
        self.answers: dict[RequestId, Deferred[Result]] = {}
        self.ended: Deferred[None] = Deferred()
        """Fires when the node has left, its links are closed and everything is released."""
        me, rng = MemberId(os.urandom(16)), Rng(int.from_bytes(os.urandom(8), "big"))
        self.node = Node(config, me=me, rng=rng, entropy=os.urandom, now=clock())
        for name in self.functions:
            spec = FunctionSpec(name=name, idempotent=name in ("echo", "echos"), concurrency=8)
            self.node.offer(spec, now=clock())
        self.port = reactor.listenTCP(0, Links(self), interface="127.0.0.1")
        self.url = f"tcp://127.0.0.1:{self.port.getHost().port}"
        self.node.advertise((Address(self.url),), now=clock())
        self.flush()

    # [loop]
    def add(self, connection: Connection) -> LinkId:
        """Return a number for a new link: each has one of its own."""
        self.last_link += 1
        link = LinkId(self.last_link)
        self.connections[link] = connection
        return link

    def leave(self) -> None:
        self.node.leave(now=clock())
        self.flush()

    def wake(self) -> None:
        self.node.wake(now=clock())
        self.flush()

    def flush(self) -> None:
        """Carry out all effects of the node, and set the timer again. Called after each input.

        A dial may fail at once, so that an effect ends in an input: the loop below then carries out what follows.
        """
        if self.flushing:
            return
        self.flushing = True
        while effects := self.node.drain():
            for effect in effects:
                self.carry_out(effect)
            for connection in list(self.connections.values()):
                connection.write()
        self.flushing = False
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        due = self.node.next_timeout()
        self.timer = None if due is None else reactor.callLater(max(0, due - clock()) / 1e9, self.wake)
        if self.node.left and not self.connections and not self.released:
            self.released = True
            self.release()

    def release(self) -> None:
        """Close the port, the dials in progress and the timer."""
        for dial in list(self.dials.values()):
            dial.cancel()
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        maybeDeferred(self.port.stopListening).chainDeferred(self.ended)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link, chunks):
                if link in self.connections:
                    self.connections[link].unsent += b"".join(chunks)
            case Dial(address, within):
                self.dial(address, within)
            case HangUp(link):
                if link in self.connections:
                    self.connections[link].hang_up = effect
            case Run():
                self.start_run(effect)
            case Cancel():
                pass  # a thread cannot be interrupted; the function ends by itself and `finished` follows
            case Notify(RequestFinished(request, result)):
                self.answers.pop(request).callback(result)
            case Notify() | KeepAlive():
                pass  # the core asks for KeepAlive on links of whole messages only
            case Pause(link):
                if link in self.connections:
                    self.connections[link].tcp.pauseProducing()
            case Resume(link):
                if link in self.connections:
                    self.connections[link].tcp.resumeProducing()
            case Demand() | Feed():
                pass  # this driver offers no generators, and no functions with iterators
            case _:
                assert_never(effect)

    def dial(self, address: Address, within: int) -> None:
        """Open a link. Every `Dial` ends in one `link_opened` or one `dial_failed`."""

        def connect() -> Deferred[Any]:  # another member has sent this address
            where = urlsplit(address)
            endpoint = HostnameEndpoint(reactor, where.hostname or "", where.port or 9001, timeout=within / 1e9)
            return cast("Deferred[Any]", endpoint.connect(cast(Any, Links(self, address))))

        def failed(failure: Failure) -> None:
            self.node.dial_failed(address, now=clock())
            self.flush()

        def ended(_: object) -> None:
            self.dials.pop(number, None)

        self.last_dial += 1
        number = self.last_dial
        dial = self.dials[number] = maybeDeferred(connect)
        dial.addErrback(failed).addBoth(ended)

    # [/loop]

    def start_run(self, run: Run) -> None:
        """Run a function in a thread. Every `Run` ends in one `finished`."""

        def report(outcome: Outcome) -> None:
            self.node.finished(run.run, outcome, now=clock())
            self.flush()

        def returned(value: Any) -> None:
            report(Returned(value))

        def raised(failure: Failure) -> None:
            report(Raised(type(failure.value).__name__, str(failure.value)))

        deferToThread(self.functions[run.function], *run.args, **run.kwargs).addCallbacks(returned, raised)

    def request(self, request: Request) -> Deferred[Result]:
        """Run a request in the cluster, from within this process."""
        answer: Deferred[Result] = Deferred()
        self.answers[self.node.submit(request, now=clock())] = answer
        self.flush()
        return answer


def add(x: int, y: int) -> int:
    return x + y


async def main() -> None:
    alpha = TwistedNode(NodeConfig(name="alpha"), {"add": add})
    front = TwistedNode(NodeConfig(name="front", seeds=(Address(alpha.url),)), {})

    codec = ValueCodec()
    calls = (
        Call("sum", "add", codec.encode([[1, 2], {}])),
        Call("total", "add", codec.encode([[Ref("sum"), 39], {}]), dependencies=("sum",)),
    )
    result = await front.request(Request(0, calls, wait=5_000_000_000))  # waits for alpha's functions
    print({row.name: codec.decode(row.value) for row in result.done}, result.fault)

    for node in (alpha, front):
        node.leave()
        await node.ended
    reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
    reactor.run()
