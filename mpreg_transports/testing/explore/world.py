"""The world that explorer.py explores: two or three real nodes, the messages in transit, and the possible next steps.

Nodes offer `once` (only n1, not idempotent) and `again` (all nodes, idempotent). Requests are submitted at n0. Nothing
is drawn at random, and the clock of a node moves only when its timer expires, so equal steps make equal worlds.

The safety invariants (docs/explanation/testing.md) are checked after each step by code of this module: 1 a cell never
decreases; 2 only the owner raises its incarnation or sets LEFT; 4 the hash of a replica at (id, v) is the owner's; 6 a
body starts only where its function is offered; 9 a request ends at most once; 10 a body that is not idempotent starts
at most once, and never after `maybe_executed: false` was promised; 0 no input raises.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.effects import Cancel, Dial, Effect, Framing, HangUp, Notify, Returned, Run, Send, Stopped
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import RequestFinished, Standing
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Message, Request
from mpreg_transports.testing.runs.snapshots import digest
from mpreg_transports.testing.simulation.watchers import Violation

ONCE, AGAIN = "once", "again"
_ARGS = b"\x92\x90\x80"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a world, and how often each step that is not a delivery may happen in it."""

    nodes: int = 2
    resets: int = 1
    crashes: int = 1
    ticks: int = 1
    requests: int = 2
    """The first request calls `once`; the second needs both functions."""


_LIMITS = Limits(failover_pause=0)
"""The limits of each node. The failover pause is zero, so a failover is not a separate step."""


class Step(msgspec.Struct, frozen=True):
    """One step. `at` is a node or a wire; `which` is a side, a run or an address."""

    kind: str
    at: int = 0
    which: int | str = 0

    def describe(self) -> str:
        """Return the step as readable text."""
        kinds = {"deliver": "wire", "reset": "wire"}
        return f"{self.kind} {kinds.get(self.kind, 'n')}{self.at} {self.which if self.which != 0 else ''}".rstrip()


class First(Rng):
    """A random source without randomness: each draw returns the first possibility."""

    __slots__ = ()

    def child(self, name: str) -> Rng:
        """Return this source."""
        return self

    def fraction(self) -> float:
        """Return 0."""
        return 0.0

    def below(self, bound: int) -> int:
        """Return 0."""
        return 0

    def choice(self, items: Any) -> Any:
        """Return the first item."""
        return items[0]


class ExploredWire:
    """One link: its ends (node and link of each side), and what each side has sent. None is the end of the stream."""

    __slots__ = ("ends", "open", "sent")

    def __init__(self, dialler: tuple[int, LinkId], acceptor: tuple[int, LinkId]) -> None:
        self.ends: tuple[tuple[int, LinkId], tuple[int, LinkId]] = (dialler, acceptor)
        self.open: list[bool] = [True, True]
        self.sent: tuple[list[Message | None], list[Message | None]] = ([], [])


class ExploredHost:
    """One process: its node, its open dials and its running bodies."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.alive = True
        self.now = 0
        self.dials: dict[Address, None] = {}
        self.runs: dict[RunId, tuple[str, bool]] = {}
        """The bodies that have started: the call of each, and whether the body was cancelled."""
        self.last_link = 0
        self.numbers: int = 0
        seeds = () if index == 0 else (address(0),)
        self.node: Node = Node(
            NodeConfig(name=f"n{index}", addresses=(address(index),), seeds=seeds, limits=_LIMITS),
            me=MemberId(bytes([index + 1]) * 16),
            rng=First(0),
            entropy=self._entropy,
            now=0,
        )
        self.offered: tuple[str, ...] = (AGAIN, ONCE) if index == 1 else (AGAIN,)
        for name in self.offered:
            self.node.offer(FunctionSpec(name=name, idempotent=name == AGAIN), now=0)

    def _entropy(self, size: int) -> bytes:
        """Return a different number each time. An id begins with the index of its node."""
        self.numbers += 1
        return bytes([self.index + 1]) + self.numbers.to_bytes(size - 1, "big")


def address(index: int) -> Address:
    """Return the address of a node."""
    return Address(f"explored://{index}")


def _request(number: int) -> Request:
    """Return request 0, which calls `once`, or request 1, which calls `again` and then `once`.

    Call names are unique.
    """
    if number == 0:
        return Request(0, (Call("r0", ONCE, _ARGS),))
    return Request(0, (Call("r1-a", AGAIN, _ARGS), Call("r1-b", ONCE, _ARGS, ("r1-a",))))


class ClusterState:
    """The state of an explored world, as the module describes.

    `do` raises Violation, or any error that a node raises.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.left: dict[str, int] = {
            "reset": bounds.resets,
            "crash": bounds.crashes,
            "tick": bounds.ticks,
            "submit": bounds.requests,
        }
        self.wires: list[ExploredWire] = []
        self.starts: dict[str, int] = {}
        """The number of starts of the body of each call."""
        self.submitted: dict[int, int] = {}
        """The index of the request for each request number of n0."""
        self.answered: dict[int, None] = {}
        self.promised: dict[str, None] = {}
        """The calls that must not start, because their request ended with maybe_executed false."""
        self.hashes: dict[tuple[bytes, int], bytes] = {}
        """The hash of each owner's catalogue at each version."""
        self.hosts: list[ExploredHost] = [ExploredHost(index) for index in range(bounds.nodes)]
        for host in self.hosts:
            self._after(host)

    # -- possible steps -----------------------------------------------------------------------------------------------

    def enabled(self) -> list[Step]:
        """Return all steps that may happen next, in a fixed order."""
        steps: list[Step] = []
        for number, wire in enumerate(self.wires):
            steps += [Step("deliver", number, side) for side in (0, 1) if wire.sent[side]]
            if self.left["reset"] and all(wire.open):
                steps.append(Step("reset", number))
        for host in self.hosts:
            if not host.alive:
                continue
            index = host.index
            steps += [Step("dial", index, where) for where in host.dials]
            for run, (_, cancelled) in host.runs.items():
                steps.append(Step("return", index, run))
                if cancelled:
                    steps.append(Step("stop", index, run))
            due = host.node.next_timeout()
            if due is not None and due <= host.now:  # it is due without a change of the clock
                steps.append(Step("wake", index))
            elif due is not None and self.left["tick"]:
                steps.append(Step("tick", index))
            if self.left["crash"]:
                steps.append(Step("crash", index))
        if self.left["submit"] and self.hosts[0].alive:
            steps.append(Step("submit", 0))
        return steps

    def do(self, step: Step) -> None:
        """Perform the step, and check the invariants."""
        if step.kind in self.left:
            self.left[step.kind] -= 1
        match step.kind:
            case "deliver":
                self._deliver(self.wires[step.at], int(step.which))
            case "reset":
                self._break(self.wires[step.at])
            case "crash":
                self._crash(self.hosts[step.at])
            case _:
                host = self.hosts[step.at]
                before = heights(host.node)
                self._at(host, step)
                self._after(host, before)

    def _at(self, host: ExploredHost, step: Step) -> None:
        node = host.node
        match step.kind:
            case "dial":
                self._dial(host, Address(str(step.which)))
            case "return" | "stop":
                run = RunId(int(step.which))
                del host.runs[run]
                node.finished(run, Returned(None) if step.kind == "return" else Stopped(), now=host.now)
            case "tick" | "wake":
                due = node.next_timeout()
                assert due is not None, "it was enabled"
                host.now = max(host.now, due)
                node.wake(now=host.now)
            case "submit":
                number = self.bounds.requests - self.left["submit"] - 1
                self.submitted[node.submit(_request(number), now=host.now)] = number
            case _:
                raise AssertionError(step)

    def _dial(self, host: ExploredHost, where: Address) -> None:
        del host.dials[where]
        target = next((other for other in self.hosts if address(other.index) == where and other.alive), None)
        if target is None:
            host.node.dial_failed(where, now=host.now)
            return
        ends = []
        for one in (host, target):
            one.last_link += 1
            ends.append((one.index, LinkId(one.last_link)))
        self.wires.append(ExploredWire(ends[0], ends[1]))
        target.node.link_opened(ends[1][1], framing=Framing.OBJECTS, dialled=None, now=target.now)
        self._after(target)
        host.node.link_opened(ends[0][1], framing=Framing.OBJECTS, dialled=where, now=host.now)

    def _deliver(self, wire: ExploredWire, side: int) -> None:
        """Deliver the first message that `side` has sent."""
        message = wire.sent[side].pop(0)
        index, link = wire.ends[1 - side]
        host = self.hosts[index]
        if not wire.open[1 - side]:
            return
        before = heights(host.node)
        if message is None:
            self._closed(wire, 1 - side)
        else:
            host.node.handle(link, message, now=host.now)
        self._after(host, before)

    def _closed(self, wire: ExploredWire, side: int) -> None:
        """Close one end: it receives nothing more, and its node is notified."""
        index, link = wire.ends[side]
        host = self.hosts[index]
        wire.open[side] = False
        wire.sent[side].append(None)
        wire.sent[1 - side].clear()
        if host.alive:
            host.node.link_closed(link, now=host.now)
        if not wire.open[1 - side]:
            wire.sent[side].clear()

    def _break(self, wire: ExploredWire) -> None:
        """Reset the link: all messages in transit are lost, and each side learns of it in a step of its own."""
        for queue in wire.sent:
            queue[:] = [None]

    def _crash(self, host: ExploredHost) -> None:
        host.alive = False
        host.dials, host.runs = {}, {}
        for wire in self.wires:
            for side in (0, 1):
                if wire.ends[side][0] == host.index and wire.open[side]:
                    self._closed(wire, side)

    # -- effects of nodes ---------------------------------------------------------------------------------------------

    def _after(self, host: ExploredHost, before: dict[bytes, tuple[bool, int, int]] | None = None) -> None:
        while effects := host.node.drain():
            for effect in effects:
                self._one(host, effect)
        self._check(host, before)

    def _one(self, host: ExploredHost, effect: Effect) -> None:
        match effect:
            case Send(link, _, message):
                wire, side = self._wire(host, link)
                if wire.open[side] and wire.open[1 - side] and None not in wire.sent[side]:
                    assert message is not None, "objects are sent whole"
                    wire.sent[side].append(message)
            case HangUp(link):
                wire, side = self._wire(host, link)
                if wire.open[side]:
                    self._closed(wire, side)
            case Dial(where):
                if where in host.dials:
                    raise Violation(0, f"n{host.index} dials {where} twice at once")
                host.dials[where] = None
            case Run():
                self._started(host, effect)
            case Cancel(run):
                if run in host.runs:
                    host.runs[run] = (host.runs[run][0], True)
            case Notify(RequestFinished(request, result)):
                self._ended(request, result.fault)
            case _:
                pass

    def _wire(self, host: ExploredHost, link: LinkId) -> tuple[ExploredWire, int]:
        for wire in self.wires:
            for side in (0, 1):
                if wire.ends[side] == (host.index, link):
                    return wire, side
        raise Violation(0, f"n{host.index} speaks of link {link}, which nobody opened")

    # -- invariants ---------------------------------------------------------------------------------------------------

    def _started(self, host: ExploredHost, run: Run) -> None:
        job = host.node.worker.job(run.run)
        if job is None:
            raise Violation(6, f"n{host.index} runs what nobody asked for: {run}")
        name = job.call.name
        if run.function not in host.offered:
            raise Violation(6, f"n{host.index} runs {run.function}, which it does not offer")
        self.starts[name] = self.starts.get(name, 0) + 1
        if run.function == ONCE and self.starts[name] > 1:
            raise Violation(10, f"the body of {name} has started {self.starts[name]} times")
        if run.function == ONCE and name in self.promised:
            raise Violation(10, f"the body of {name} starts, and it was promised that it had not")
        host.runs[run.run] = (name, False)

    def _ended(self, request: int, fault: Any) -> None:
        if request in self.answered:
            raise Violation(9, f"request {request} ends again")
        self.answered[request] = None
        if fault is None or fault.details.get("maybe_executed", True):
            return
        for call in _request(self.submitted[request]).calls:
            if call.function == ONCE:
                self.promised[call.name] = None
                if call.name in self.starts:
                    raise Violation(10, f"{call.name} has started, and its request ends with maybe_executed false")

    def _check(self, host: ExploredHost, before: dict[bytes, tuple[bool, int, int]] | None) -> None:
        after = heights(host.node)
        for member, height in (before or {}).items():
            if after.get(member, (False, -1, -1)) < height:
                raise Violation(1, f"n{host.index}'s cell of {member[:1].hex()} falls from {height} to {after}")
        self._own(host)
        for record in host.node.cluster.members.all():
            owner = self.hosts[record.id[0] - 1].node.cluster.members.own
            if owner.id == record.id and record.incarnation > owner.incarnation:
                raise Violation(
                    2, f"n{host.index} holds a later incarnation than the owner's: {record.key} {owner.key}"
                )
            if owner.id == record.id and record.standing is Standing.LEFT and owner.standing is not Standing.LEFT:
                raise Violation(2, f"n{host.index} sees n{record.id[0] - 1} as LEFT, which never said so")
        for head in host.node.cluster.catalogue.heads():
            if self.hashes.get((head.member, head.version), head.hash) != head.hash:
                raise Violation(4, f"n{host.index}'s copy at version {head.version} is not the owner's")

    def _own(self, host: ExploredHost) -> None:
        catalogue = host.node.cluster.catalogue
        content = catalogue.content(host.node.me)
        if content is not None:
            self.hashes[host.node.me, content.version] = content.head.hash

    # -- identity -----------------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """Return a hash that is equal for equal worlds."""
        parts: list[object] = [
            self.left,
            self.starts,
            self.answered,
            self.promised,
            [
                (wire.ends, wire.open, wire.sent)
                for wire in self.wires
                if wire.sent[0] or wire.sent[1] or any(wire.open)
            ],
        ]
        for host in self.hosts:
            parts.append((host.alive, host.dials, host.runs))
            if host.alive:
                parts.append((host.last_link, host.numbers, host.node))
        return digest(parts, [host.now for host in self.hosts if host.alive])


def heights(node: Node) -> dict[bytes, tuple[bool, int, int]]:
    """Return all cells of a node, in the order in which cells grow; RETIRED is above all others."""
    members = node.cluster.members
    found: dict[bytes, tuple[bool, int, int]] = {
        member.id: (False, member.incarnation, int(member.standing)) for member in members.all()
    }
    for claim in map(members.claim, list(members._retired)):
        if claim is not None:
            found[claim.member] = (True, 0, int(Standing.RETIRED))
    return found
