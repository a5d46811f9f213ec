"""Clusters in virtual time: the very `Node` of production, on one heap of events, in one thread, without an event loop.

    sim = Simulation(seed=7, nodes={"front": Spec(), "gpu-1": Spec(functions={"train": train}, resources={"gpu"})})
    call = sim.call("front", "train", rows, resources={"gpu"})
    sim.crash("gpu-1"); sim.restart("gpu-1", after=3)
    sim.run(until=call.done, limit=60)

Time is integer nanoseconds; the heap is ordered by (time, sequence), and nothing ever compares payloads. Every choice
goes through one chooser (chooser.py), every event into one rolling hash (trace.py), and what is done to the cluster
into a script, so that a run can be done again exactly, or in part.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

import msgspec

from mpreg_proto.client import Reply
from mpreg_proto.effects import Framing, Outcome, Run, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.notices import Notice
from mpreg_proto.wire.dialects import encode as encode_message
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.functions import tags
from mpreg_transports.graph import Graph
from mpreg_transports.testing.bodies import Body, Fn, bodies
from mpreg_transports.testing.calls import SimCall
from mpreg_transports.testing.chooser import Chooser, Seeded
from mpreg_transports.testing.determinism import watching
from mpreg_transports.testing.hosts import ClientHost, Host, NodeHost, Spec, address
from mpreg_transports.testing.network import End, Network, Profile, Wire
from mpreg_transports.testing.spans import SECOND, Span, span
from mpreg_transports.testing.trace import Trace
from mpreg_transports.testing.watching import Watcher
from mpreg_transports.values import default_codec

SWEEP = 1000
"""Events between two looks at the whole state."""
_REFUSED_AFTER = 3 * SECOND
"""How long a dial into a cut network takes to fail."""
_REDIAL = SECOND // 2


class CallKey(msgspec.Struct, frozen=True):
    """One call of one request, whoever coordinates it: the coordinator's host and life, its request, the call's
    name.
    """

    host: str
    life: int
    request: int
    call: str


class Simulation:
    """See the module. `objects=True` skips framing and codec for speed; `watchers` look at everything that happens."""

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: Mapping[str, Spec],
        chooser: Chooser | None = None,
        objects: bool = False,
        watchers: Iterable[Watcher] = (),
        recording: bool = False,
    ) -> None:
        if not nodes:
            raise ValueError("a simulation has at least one node")
        self.seed = seed
        self.now = 0
        self.chooser = chooser or Chooser(Seeded(seed))
        self.framing = Framing.OBJECTS if objects else Framing.STREAM
        self.network = Network(self.chooser)
        self.trace = Trace(recording=recording)
        self.specs = dict(nodes)
        self.nodes: dict[str, NodeHost] = {}
        self.clients: dict[str, ClientHost] = {}
        self.calls: list[SimCall] = []
        self.keys: dict[tuple[str, int, int, str], CallKey] = {}
        """Which call a dispatched one is: by coordinator's host, life, dispatch number and name."""
        self._watchers = list(watchers)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._wires = 0
        self._waiting: dict[tuple[str, int, int], SimCall] = {}
        for watcher in self._watchers:
            watcher.begin(self)
        for index, (name, spec) in enumerate(nodes.items()):
            self.nodes[name] = NodeHost(self, name, index, spec)
        with watching():
            for host in self.nodes.values():
                host.start()

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Seconds since the start, for people."""
        return self.now / SECOND

    def run(
        self, seconds: float | None = None, *, until: Callable[[], bool] | None = None, limit: float | None = None
    ) -> bool:
        """Let time pass: so many seconds, or until something is true, `limit` seconds at most.

        Whether it became true.
        """
        span_ns = round((seconds if seconds is not None else limit if limit is not None else 60.0) * SECOND)
        end = self.now + span_ns
        with watching():
            while True:
                if until is not None and until():
                    return True
                if not self._heap or self._heap[0][0] > end:
                    break
                self.step()
        self.now = max(self.now, end)
        return until is not None and until()

    def step(self) -> None:
        """Handle the next event."""
        at, _, handle, args = heappop(self._heap)
        self.now = max(self.now, at)
        handle(*args)
        if self.trace.events % SWEEP == 0:
            self.sweep()

    def sweep(self) -> None:
        """Have all watchers look at the whole state."""
        for watcher in self._watchers:
            watcher.sweep(self)

    def settle(self, seconds: float = 45.0) -> None:
        """Faults stop: ways are open, links sound, nobody stalls; after this time liveness must hold."""
        self._did("settle", {"seconds": seconds})
        self._heal_all()
        self.run(seconds)
        self.sweep()
        for watcher in self._watchers:
            watcher.settled(self)

    def schedule(self, after: float, act: Callable[..., None], *args: Any) -> None:
        """Call `act(*args)` after so many seconds, as an event of its own."""
        self._push(self.now + round(after * SECOND), act, *args)

    # -- what is done to the cluster; each is written into the script -------------------------------------------------

    def crash(self, name: str, *, silent: bool = False) -> None:
        """Kill the process; with `silent` the machine is gone and not even ends of streams are sent."""
        self._did("crash", {"name": name, "silent": silent})
        host = self.nodes[name]
        if host.alive:
            for watcher in self._watchers:
                watcher.crashed(host)
            self._end_life(host, silent=silent)

    def restart(self, name: str, *, after: float = 0.0) -> None:
        """Start the node again, as a new member at the same address. Crashes it first if it runs."""
        if after:
            self.schedule(after, self.restart, name)
            return
        self._did("restart", {"name": name})
        host = self.nodes[name]
        if host.alive:
            self._end_life(host, silent=False)
        with watching():
            host.start()

    def leave(self, name: str) -> None:
        """SIGTERM: drain and leave in order."""
        self._did("leave", {"name": name})
        host = self.nodes[name]
        if host.alive:
            host.node.leave(now=host.local)
            self._after(host)

    def stall(self, name: str, seconds: float) -> None:
        """The process does nothing for so long; what arrives waits (SIGSTOP, a long collection, a swapping machine)."""
        self._did("stall", {"name": name, "seconds": seconds})
        host = self.nodes[name]
        host.stalled_until = max(host.stalled_until, self.now + round(seconds * SECOND))

    def skew(self, name: str, *, drift: float) -> None:
        """The machine's clock runs faster by this fraction from now on."""
        self._did("skew", {"name": name, "drift": drift})
        host = self.nodes[name]
        host.clock.skew(drift, self.now)
        if host.alive:
            host.due = None  # what it meant by its deadline is another moment now
            self._after(host)

    def partition(self, one: Collection[str], other: Collection[str], *, oneway: bool = False) -> None:
        """Nothing gets from `one` to `other` any more, nor back unless `oneway`. Connections stand and wait."""
        self._did("partition", {"one": sorted(one), "other": sorted(other), "oneway": oneway})
        for source in sorted(one):
            for target in sorted(other):
                self.network.cut(source, target)
                if not oneway:
                    self.network.cut(target, source)

    def heal(self) -> None:
        """All ways are open again; what was held back is sent again."""
        self._did("heal", {})
        self._heal_ways()

    def clog(self, *, k: int, seconds: float = 5.0) -> None:
        """Cut `k` ways between nodes, each in one direction, for so long."""
        names = list(self.nodes)
        for _ in range(k if len(names) > 1 else 0):
            source = self.chooser.choice("clog", names)
            target = self.chooser.choice("clog", [name for name in names if name != source])
            self.partition([source], [target], oneway=True)
        self.schedule(seconds, self.heal)

    def link(self, source: str, target: str) -> Way:
        """The ways between two hosts, to be set: `sim.link("a", "b").set(delay=exponential(0.04))`."""
        return Way(self, source, target)

    def set_link(self, source: str, target: str, profile: Profile) -> None:
        """The way from `source` to `target` behaves like this from now on."""
        self._did("set_link", {"source": source, "target": target, "profile": msgspec.to_builtins(profile)})
        self.network.set(source, target, profile)

    def offer(self, name: str, function: str, fn: Any) -> None:
        """Register a function at a running node. Written into the script only by name: replay needs it in the spec."""
        self._did("offer", {"name": name, "function": function})
        host = self.nodes[name]
        if host.alive:
            host.offers.update(bodies({function: fn if isinstance(fn, Fn) else Fn(fn)}))
            host.node.offer(host.offers[function][0].spec, now=host.local)
            self._after(host)

    def withdraw(self, name: str, function: str) -> None:
        """Unregister a function at a running node; its running bodies go on."""
        self._did("withdraw", {"name": name, "function": function})
        host = self.nodes[name]
        if host.alive:
            host.node.withdraw(function, now=host.local)
            self._after(host)

    def call(
        self,
        node: str,
        function: str,
        /,
        *args: Any,
        resources: Iterable[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        wait: float = 0.0,
        client: str | None = None,
        **more: Any,
    ) -> SimCall:
        """A client of `node` calls a function."""
        encoded = default_codec().encode([list(args), {**(kwargs or {}), **more}])
        call = Call(function, function, encoded, (), tuple(sorted(tags(resources))))
        request = Request(0, (call,), timeout=_ns(timeout), wait=_ns(wait) or 0)
        return self.submit(node, request, client=client)

    def graph(self, node: str, graph: Graph, *, partial: bool = False, timeout: float | None = None) -> SimCall:
        """A client of `node` sends a graph of calls."""
        return self.submit(node, graph.request(partial=partial, timeout=_ns(timeout)))

    def submit(self, node: str, request: Request, *, client: str | None = None) -> SimCall:
        """A client of `node` sends a request; clients are made by name as they are needed, one a node by itself."""
        client = client or f"client@{node}"
        packed = b64encode(encode_message(request)).decode()
        self._did("submit", {"node": node, "request": packed, "client": client})
        host = self.clients.get(client)
        if host is None:
            host = self.clients[client] = ClientHost(self, client, 1000 + len(self.clients), node)
            host.start()
        number = host.session.submit(request, now=host.local)
        call = SimCall(client, number, request, sent=self.now, codec=default_codec())
        self.calls.append(call)
        self._waiting[client, host.life, number] = call
        for watcher in self._watchers:
            watcher.submitted(call)
        if not host.session.ready:
            host.connect()
        self._after(host)
        return call

    def cancel(self, call: SimCall) -> None:
        """The client wants the answer no more."""
        self._did("cancel", {"call": self.calls.index(call)})
        host = self.clients[call.client]
        if not call.done():
            call.cancelled = True
            host.session.cancel(call.number, now=host.local)
            self._after(host)

    def perform(self, name: str, args: Mapping[str, Any]) -> None:
        """Do what a script says."""
        match name:
            case "submit":
                request = msgspec.msgpack.decode(b64decode(args["request"]), type=Request)
                self.submit(args["node"], request, client=args["client"])
            case "cancel":
                if args["call"] < len(self.calls):
                    self.cancel(self.calls[args["call"]])
            case "partition":
                self.partition(args["one"], args["other"], oneway=args["oneway"])
            case "set_link":
                profile = msgspec.convert(args["profile"], Profile)
                self.set_link(args["source"], args["target"], profile)
            case "offer":
                fn = self.specs[args["name"]].functions[args["function"]]
                self.offer(args["name"], args["function"], fn)
            case "settle":
                self.settle(args["seconds"])
            case "crash" | "restart" | "leave" | "stall" | "skew" | "heal" | "withdraw":
                getattr(self, name)(**args)
            case _:
                raise ValueError(f"a script says {name!r}, which nothing is")

    # -- what hosts want ----------------------------------------------------------------------------------------------

    def first_node(self, name: str) -> tuple[str, ...]:
        """Whom a node joins that names nobody: the first one, unless that is itself."""
        first = next(iter(self.specs))
        return () if first == name else (first,)

    def send(self, host: Host, effect: Send) -> None:
        """A host writes to a link."""
        found = host.wires.get(effect.link)
        if found is None:
            return
        wire, side = found
        data: object = effect.message if effect.message is not None else b"".join(effect.chunks)
        self._transmit(wire, side, data)

    def hang_up(self, host: Host, link: LinkId) -> None:
        """A host closes a link; what it wrote before gets there first."""
        found = host.wires.get(link)
        if found is not None:
            wire, side = found
            self._transmit(wire, side, None)
            self._push(self.now, self._closed, wire, side)

    def dial(self, host: Host, where: Address) -> None:
        """A host opens a link: connected, refused or unheard after a round trip or a timeout."""
        target = self.nodes.get(where.removeprefix("sim://"))
        if target is None or target is host:
            trip = 0
        else:
            trip = self.network.latency(host.name, target.name) + self.network.latency(target.name, host.name)
        self._push(self.now + trip, self._dialled, host, host.life, target, where)

    def wake_at(self, host: Host, due: int | None) -> None:
        """A host wants to be woken when its clock shows `due`."""
        if due is not None:
            self._push(max(self.now, host.clock.when(due)), self._wake, host, host.life, due)

    def resume_at(self, host: NodeHost, body: Body, after: int) -> None:
        """A body is to be stepped after so many nanoseconds."""
        body.step += 1
        self._push(self.now + after, self._resume, host, host.life, body, body.step)

    def redial_at(self, host: ClientHost) -> None:
        """A client that has lost its link tries again soon."""
        self._push(self.now + _REDIAL, self._redial, host, host.life)

    def answered(self, host: ClientHost, number: int, reply: Reply) -> None:
        """A client has something for one of its requests."""
        call = self._waiting.get((host.name, host.life, number))
        if call is None or call.cancelled:
            return
        call.answer(reply, self.now)
        for watcher in self._watchers:
            watcher.replied(call, reply)

    # -- what watchers are told ---------------------------------------------------------------------------------------

    def watch_handed_out(self, host: NodeHost) -> None:
        """A coordinator has placed calls since we last looked: remember which calls they are."""
        coordinator = host.node.coordinator
        for number in range(host.handed_out + 1, coordinator.last_number + 1):
            for attempt in coordinator.out.of(number):
                key = CallKey(host.name, host.life, attempt.execution.id, attempt.call)
                self.keys[host.name, host.life, number, attempt.call] = key
                for watcher in self._watchers:
                    watcher.handed_out(host, key, number)
        host.handed_out = coordinator.last_number

    def key_of(self, host: NodeHost, run: Run) -> CallKey:
        """Which call a run is of."""
        job = host.node.worker.job(run.run)
        assert job is not None, "a run belongs to a job until it has ended"
        if job.link == 0:
            return self.keys[host.name, host.life, job.request, job.call.name]
        wire, side = host.wires[job.link]
        peer = wire.ends[1 - side]
        return self.keys[peer.host.name, peer.life, job.request, job.call.name]

    def watch_started(self, host: NodeHost, run: Run) -> None:
        """A body starts."""
        self.trace.add(self.now, "run", host.name, "", text=run.function)
        if self._watchers:
            key = self.key_of(host, run)
            for watcher in self._watchers:
                watcher.started(host, key, run)

    def watch_ended(self, host: NodeHost, run: Run, outcome: Outcome) -> None:
        """A body has ended."""
        self.trace.add(self.now, "end", host.name, "", text=run.function)
        for watcher in self._watchers:
            watcher.ended(host, CallKey("", 0, 0, ""), run, outcome)

    def watch_notice(self, host: NodeHost, notice: Notice) -> None:
        """A node tells something."""
        for watcher in self._watchers:
            watcher.noticed(host, notice)

    # -- events -------------------------------------------------------------------------------------------------------

    def _push(self, at: int, handle: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (at, self._sequence, handle, args))

    def _did(self, name: str, args: dict[str, Any]) -> None:
        self.trace.did(self.now, name, args)

    def _after(self, host: Host) -> None:
        host.carry_out()
        for watcher in self._watchers:
            watcher.touched(host)

    def _waits(self, host: Host, handle: Callable[..., None], *args: Any) -> bool:
        """Whether `host` is stalled: then the event comes again when it is not."""
        if host.stalled_until <= self.now:
            return False
        self._push(host.stalled_until, handle, *args)
        return True

    def _wake(self, host: Host, life: int, due: int) -> None:
        if host.life != life or not host.alive or host.due != due:
            return
        if self._waits(host, self._wake, host, life, due):
            return
        host.due = None
        self.trace.add(self.now, "wake", host.name, "")
        host.wake()
        self._after(host)

    def _dialled(self, host: Host, life: int, target: NodeHost | None, where: Address) -> None:
        if host.life != life or not host.alive:
            return
        if self._waits(host, self._dialled, host, life, target, where):
            return
        if target is not None and target is not host:
            if self.network.is_cut(host.name, target.name) or self.network.is_cut(target.name, host.name):
                self._push(self.now + _REFUSED_AFTER, self._unheard, host, life, where)
                return
            if target.alive:
                self._connect(host, target, where)
                return
        self._unheard(host, life, where)

    def _unheard(self, host: Host, life: int, where: Address) -> None:
        if host.life == life and host.alive and not self._waits(host, self._unheard, host, life, where):
            self.trace.add(self.now, "refused", host.name, where)
            host.dial_failed(where)
            self._after(host)

    def _connect(self, host: Host, target: NodeHost, where: Address) -> None:
        self._wires += 1
        ends = (End(host, host.next_link()), End(target, target.next_link()))
        wire = Wire(self._wires, *ends)
        for side, end in enumerate(ends):
            end.host.wires[end.link] = (wire, side)
        self.trace.add(self.now, "connect", host.name, target.name)
        self._open(wire, 1, None)
        self._open(wire, 0, where)

    def _open(self, wire: Wire, side: int, where: Address | None) -> None:
        end = wire.ends[side]
        if end.closed or not end.host.alive or end.host.life != end.life:
            return
        if self._waits(end.host, self._open, wire, side, where):
            return
        end.opened = True
        end.host.link_opened(end.link, where)
        self._after(end.host)

    def _transmit(self, wire: Wire, side: int, data: object) -> None:
        """Send data, or None for the end, in order with what was sent before."""
        source, target = wire.ends[side], wire.ends[1 - side]
        if self.network.is_cut(source.host.name, target.host.name) or wire.held[side]:
            wire.held[side].append(data)
            return
        size = len(data) if isinstance(data, bytes) else 200

        def deliver(at: int, piece: object) -> None:
            self._push(at, self._deliver, wire, side, piece)

        if not self.network.arrivals(wire, side, data, size, self.now, deliver):
            self._reset(wire)

    def _deliver(self, wire: Wire, side: int, data: object) -> None:
        """What `side` has sent is there."""
        end = wire.ends[1 - side]
        host = end.host
        if end.closed or not host.alive or host.life != end.life:
            return
        if not end.opened or host.stalled_until > self.now:  # in order behind what waits before it
            self._push(max(self.now, host.stalled_until), self._deliver, wire, side, data)
            return
        source = wire.ends[side].host.name
        if data is None:
            self._closed(wire, 1 - side)
            return
        if isinstance(data, bytes):
            self.trace.add(self.now, "data", host.name, source, data=data)
        else:
            self.trace.add(self.now, "message", host.name, source, text=type(data).__name__)
        host.receive(end.link, data)
        self._after(host)

    def _closed(self, wire: Wire, side: int) -> None:
        """A link is over at one end."""
        end = wire.ends[side]
        host = end.host
        if end.closed or not host.alive or host.life != end.life:
            return
        if self._waits(host, self._closed, wire, side):
            return
        end.closed = True
        del host.wires[end.link]
        other = wire.ends[1 - side]
        self.trace.add(self.now, "closed", host.name, other.host.name)
        if not other.closed:  # what the other still sends meets a closed socket
            self._push(self.now + self.network.latency(host.name, other.host.name), self._closed, wire, 1 - side)
        if end.opened:
            host.link_closed(end.link)
            self._after(host)

    def _reset(self, wire: Wire) -> None:
        """The connection breaks, with all that is on its way."""
        for side in (0, 1):
            wire.held[side].clear()
            self._push(self.now, self._closed, wire, side)

    def _resume(self, host: NodeHost, life: int, body: Body, step: int) -> None:
        if host.life != life or not host.alive or body.step != step:
            return
        if self._waits(host, self._resume, host, life, body, step):
            return
        host.went_on(body, body.resume())
        self._after(host)

    def _redial(self, host: ClientHost, life: int) -> None:
        if host.life == life and host.alive and len(host.session):
            host.connect()
            self._after(host)

    def _end_life(self, host: NodeHost, *, silent: bool) -> None:
        host.alive = False
        for body in host.running.values():
            body.abandon()
        for wire, side in list(host.wires.values()):
            wire.ends[side].closed = True
            wire.held[side].clear()
            if not silent:
                self._transmit(wire, side, None)
        host.wires = {}

    def _heal_ways(self) -> None:
        self.network.heal()
        for host in [*self.nodes.values(), *self.clients.values()]:
            for wire, side in list(host.wires.values()):
                held, wire.held[side][:] = list(wire.held[side]), []
                for data in held:
                    self._transmit(wire, side, data)

    def _heal_all(self) -> None:
        self._heal_ways()
        self.network.sound()
        for host in self.nodes.values():
            host.stalled_until = min(host.stalled_until, self.now)


class Way:
    """Both ways between two hosts."""

    def __init__(self, sim: Simulation, source: str, target: str) -> None:
        self._sim = sim
        self._ends = (source, target)

    def set(
        self,
        *,
        delay: float | Span | None = None,
        bandwidth: int | None = None,
        reset: float | None = None,
        rechunk: float | None = None,
    ) -> None:
        """Change what is given, in both directions; `delay` in seconds, `bandwidth` in bytes a second."""
        for source, target in (self._ends, self._ends[::-1]):
            profile = self._sim.network.profile(source, target)
            self._sim.set_link(
                source,
                target,
                Profile(
                    delay=profile.delay if delay is None else span(delay),
                    bandwidth=profile.bandwidth if bandwidth is None else bandwidth,
                    reset=profile.reset if reset is None else reset,
                    rechunk=profile.rechunk if rechunk is None else rechunk,
                ),
            )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)


__all__ = ["CallKey", "Simulation", "Way", "address"]
