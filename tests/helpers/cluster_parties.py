"""The parties of a `VirtualCluster` (cluster.py): processes with a node, native callers, and callers of JSON only.

Each does the work of an adapter: it gives its machine the input from the network with the virtual time, and carries the
effects out. Import them from `tests.helpers.cluster`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mpreg_proto.client import ClientSession, Ready, Rejected, ReplyReceived
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Cancel, Dial, Framing, HangUp, Notify, Outcome, Raised, Returned, Run, Send, Stopped
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Notice
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Request, Result
from mpreg_proto.wire.values import Ref, ValueCodec

__all__ = ["Answer", "Caller", "ClassicCaller", "Offer", "Process", "Ref", "address", "call"]

if TYPE_CHECKING:
    from tests.helpers.cluster import End, VirtualCluster

_codec = ValueCodec()


class Offer(msgspec.Struct, frozen=True):
    """A function as a test offers it. `takes` is virtual nanoseconds; None: it runs until `Process.finish`."""

    body: Callable[..., Any]
    takes: int | None = MILLISECOND
    idempotent: bool = False
    resources: tuple[str, ...] = ()
    concurrency: int = 16


BUILT_IN = {
    "echo": Offer(lambda value: value, takes=0, idempotent=True),
    "echos": Offer(lambda *values: list(values), takes=0, idempotent=True),
}
"""The functions that every node offers."""


def call(name: str, function: str, /, *args: Any, resources: tuple[str, ...] = (), **kwargs: Any) -> Call:
    """Return a call for a `Request`; `Ref("other")` in its arguments, at any depth, stands for that call's result."""
    needs = tuple(dict.fromkeys(_references([args, kwargs])))
    return Call(name, function, _codec.encode([list(args), kwargs]), needs, tuple(sorted(resources)))


def _references(value: Any) -> list[str]:
    if isinstance(value, Ref):
        return [value.name]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for item in value for name in _references(item)] if isinstance(value, (list, tuple)) else []


def address(name: str) -> Address:
    """Return the address of a process of that name."""
    return Address(f"mem://{name}")


class Process:
    """One node and the functions that it offers. `started` lists each body that began, as (call's function, args)."""

    def __init__(
        self,
        net: VirtualCluster,
        name: str,
        functions: Mapping[str, Offer],
        *,
        resources: tuple[str, ...],
        seeds: tuple[str, ...],
        limits: Limits,
    ) -> None:
        self.name = name
        self.ends: dict[LinkId, End] = {}
        self.offers: dict[str, Offer] = {}
        self.notices: list[Notice] = []
        self.started: list[tuple[str, list[Any]]] = []
        self._net = net
        self._running: dict[RunId, Run] = {}
        draws = net.rng.child(f"{name}@{net.now}")
        config = NodeConfig(
            name=name,
            addresses=(address(name),),
            seeds=tuple(address(seed) for seed in seeds),
            resources=tuple(sorted(resources)),
            limits=limits,
        )
        entropy = draws.child("entropy")
        self.node = Node(
            config,
            me=MemberId(_some_bytes(entropy, 16)),
            rng=draws.child("node"),
            entropy=lambda size: _some_bytes(entropy, size),
            now=net.now,
        )
        for function, offer in {**BUILT_IN, **functions}.items():
            self.offer(function, offer)

    def offer(self, function: str, offer: Offer) -> None:
        """Offer a function from now on."""
        self.offers[function] = offer
        spec = FunctionSpec(
            name=function,
            resources=tuple(sorted(offer.resources)),
            idempotent=offer.idempotent,
            concurrency=offer.concurrency,
        )
        self.node.offer(spec, now=self._net.now)
        self.flush()

    def leave(self) -> None:
        """Begin to leave in order; a second call skips the grace."""
        self.node.leave(now=self._net.now)
        self.flush()

    def finish(self, function: str) -> None:
        """End the oldest held run of a function (`takes=None`) now."""
        run = next(run for run in self._running.values() if run.function == function)
        self._end(run, _outcome(self.offers[function].body, run))

    def running(self, function: str) -> int:
        """Return the number of bodies of a function that have begun and not ended."""
        return sum(run.function == function for run in self._running.values())

    # -- input from the network ----------------------------------------------------------------------------------------

    def opened(self, end: End, dialled: Address | None) -> None:
        self.node.link_opened(end.link, framing=end.framing, dialled=dialled, now=self._net.now)
        self.flush()

    def received(self, end: End, data: bytes) -> None:
        self.node.receive(end.link, data, now=self._net.now)

    def closed(self, end: End) -> None:
        self.node.link_closed(end.link, now=self._net.now)

    def next_timeout(self) -> int | None:
        return self.node.next_timeout()

    def wake(self) -> None:
        self.node.wake(now=self._net.now)

    def flush(self) -> None:
        """Carry out all effects; none is carried out within another."""
        net = self._net
        for effect in self.node.drain():
            match effect:
                case Send(link, chunks):
                    if (end := self.ends.get(link)) is not None and not end.hung_up:
                        _put(net, end, chunks)
                case HangUp(link):
                    if (end := self.ends.get(link)) is not None:
                        net.hang_up(end)
                case Dial(where):
                    net.at(net.now, lambda where=where: self._dial(where))  # type: ignore[misc]
                case Run():
                    self._run(effect)
                case Cancel(run):
                    if (cancelled := self._running.get(run)) is not None:
                        net.at(net.now, lambda run=cancelled: self._end(run, Stopped()))  # type: ignore[misc]
                case Notify(notice):
                    self.notices.append(notice)
                case _:
                    raise AssertionError(f"{effect} is never wanted yet")

    # -- inside ---------------------------------------------------------------------------------------------------

    def _dial(self, where: Address) -> None:
        if self._net.processes.get(self.name) is not self:
            return
        listener = next((other for other in self._net.processes.values() if address(other.name) == where), None)
        if listener is None:
            self.node.dial_failed(where, now=self._net.now)
            self.flush()
        else:
            self._net.join(self, listener, Framing.STREAM, where)

    def _run(self, run: Run) -> None:
        offer = self.offers[run.function]
        self._running[run.run] = run
        self.started.append((run.function, run.args))
        if offer.takes is not None:
            self._net.at(self._net.now + offer.takes, lambda: self._end(run, _outcome(offer.body, run)))

    def _end(self, run: Run, outcome: Outcome) -> None:
        if self._net.processes.get(self.name) is self and self._running.pop(run.run, None) is not None:
            self.node.finished(run.run, outcome, now=self._net.now)
            self.flush()


class Answer:
    """The answer to one request so far: decoded `values`, the `fault` of the request, the faults of `failed` calls."""

    def __init__(self) -> None:
        self.over = False
        self.values: dict[str, Any] = {}
        self.failed: dict[str, Fault] = {}
        self.fault: Fault | None = None
        self.results: list[Result] = []

    def take(self, result: Result) -> None:
        """Add one more `Result`."""
        self.results.append(result)
        self.values.update({row.name: _codec.decode(row.value) for row in result.done})
        self.failed.update({row.name: row.fault for row in result.failed})
        self.fault = result.fault
        self.over = result.last


class Caller:
    """A native client. `ask` sends; `run` also lets time pass until the answer is complete."""

    def __init__(self, net: VirtualCluster, name: str) -> None:
        self.name = name
        self.ends: dict[LinkId, End] = {}
        self.session = ClientSession(name=name)
        self.rejected: Fault | None = None
        self._net = net
        self._answers: dict[int, Answer] = {}

    def connect(self, to: str, *, framing: Framing = Framing.STREAM) -> None:
        """Open a link to a process, now; at most one is open at a time."""
        self._net.join(self, self._net.processes[to], framing, address(to))

    def ask(self, calls: Iterable[Call], *, timeout: float | None = None, wait: float = 0, **fields: Any) -> Answer:
        """Send a request; the answer fills as time passes. `timeout` and `wait` are seconds."""
        span = None if timeout is None else int(timeout * SECOND)
        request = Request(0, tuple(calls), timeout=span, wait=int(wait * SECOND), **fields)
        answer = Answer()
        self._answers[self.session.submit(request, now=self._net.now)] = answer
        self.flush()
        return answer

    def run(self, calls: Iterable[Call], *, timeout: float | None = None, wait: float = 0, **fields: Any) -> Answer:
        """Send a request and let time pass until its answer is complete."""
        answer = self.ask(calls, timeout=timeout, wait=wait, **fields)
        self._net.run(lambda: answer.over, limit=90)
        return answer

    def opened(self, end: End, dialled: Address | None) -> None:
        self.session.link_opened(end.link, framing=end.framing, address=dialled or Address(""), now=self._net.now)
        self.flush()

    def received(self, end: End, data: bytes) -> None:
        self.session.receive(end.link, data, now=self._net.now)

    def closed(self, end: End) -> None:
        self.session.link_closed(end.link, now=self._net.now)

    def next_timeout(self) -> int | None:
        return self.session.next_timeout()

    def wake(self) -> None:
        self.session.wake(now=self._net.now)

    def flush(self) -> None:
        """Carry out all effects."""
        for effect in self.session.drain():
            match effect:
                case Send(link, chunks):
                    if (end := self.ends.get(link)) is not None and not end.hung_up:
                        _put(self._net, end, chunks)
                case HangUp(link):
                    if (end := self.ends.get(link)) is not None:
                        self._net.hang_up(end)
                case ReplyReceived(number, reply):
                    if isinstance(reply, Result):
                        self._answers[number].take(reply)
                case Rejected(fault):
                    self.rejected = fault
                case Ready():
                    pass  # requests wait for it in the session
                case _:
                    raise AssertionError(f"a caller does not want {effect}")


class ClassicCaller:
    """A client without code of this project: JSON text out, JSON text in. `answers` are in the order of arrival."""

    def __init__(self, net: VirtualCluster, name: str = "classic") -> None:
        self.name = name
        self.ends: dict[LinkId, End] = {}
        self.answers: list[dict[str, Any]] = []
        self._net = net

    def send(self, message: object) -> None:
        """Send one JSON message; text and bytes are sent unchanged."""
        (end,) = self.ends.values()
        text = message if isinstance(message, (str, bytes)) else json.dumps(message)
        self._net.put(end, text.encode() if isinstance(text, str) else text)

    def opened(self, end: End, dialled: Address | None) -> None:
        """Do nothing: in this dialect no side sends a greeting."""

    def received(self, end: End, data: bytes) -> None:
        self.answers.append(json.loads(data))

    def closed(self, end: End) -> None:
        """Do nothing: open requests stay unanswered."""

    def next_timeout(self) -> int | None:
        return None

    def wake(self) -> None:
        """Do nothing: it has no timers."""

    def flush(self) -> None:
        """Do nothing: it has no effects."""


def _outcome(body: Callable[..., Any], run: Run) -> Outcome:
    try:
        return Returned(body(*run.args, **run.kwargs))
    except Exception as error:
        return Raised(type(error).__name__, str(error))


def _put(net: VirtualCluster, end: End, chunks: Sequence[bytes]) -> None:
    for data in [b"".join(chunks)] if end.framing is Framing.STREAM else chunks:
        net.put(end, data)


def _some_bytes(draws: Rng, size: int) -> bytes:
    return bytes(draws.below(256) for _ in range(size))
