"""The engine of a simulation: one heap of events, the hosts, the wires between them, and the watchers.

Time is integer nanoseconds. The heap is ordered by (time, sequence), and payloads are never compared. The effects of a
host (write, dial, run, wake up) become events here, and each event is delivered to its host at its time. `Simulation`
(simulation.py) is what users hold: it has the actions on the cluster, and an engine inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from mpreg_proto.client import Reply
from mpreg_proto.effects import Framing, Send
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.notices import RequestFinished
from mpreg_proto.wire.messages import CallProgress, Items
from mpreg_transports.testing.simulation.calls import OwnRequest, SimCall, SimQuery
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded
from mpreg_transports.testing.simulation.determinism import forbid_nondeterminism
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.functions import SimulatedRun
from mpreg_transports.testing.simulation.hosts import (
    SERVICE,
    ClientHost,
    DialingHost,
    Host,
    JsonClientHost,
    NodeHost,
    Spec,
    address,
)
from mpreg_transports.testing.simulation.network import Network, Wire, WireEnd
from mpreg_transports.testing.simulation.observer_hub import ObserverHub
from mpreg_transports.testing.simulation.tables import Tables
from mpreg_transports.testing.simulation.trace import Header, Trace, labelled
from mpreg_transports.testing.simulation.watchers import Watcher

SWEEP = 1000
"""The number of events between two sweeps over the whole state."""
_REFUSED_AFTER = 3 * SECOND
"""The time until a dial into a cut network fails."""
_REDIAL = SECOND // 2
_SLOWEST_CONSUMER = SECOND // 10
"""The longest time that a client takes for some items."""
_STOPS = 0.03
"""The probability that a client stops a stream each time that it has used some items."""


class Engine:
    """The hosts, wires and events of a simulation.

    Links are byte streams, which `Profile.rechunk` cuts at random places. With `objects=True` they carry messages that
    are never encoded. `watchers` receive everything that happens.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: Mapping[str, Spec],
        chooser: Chooser | None = None,
        objects: bool = False,
        watchers: Iterable[Watcher] = (),
        recording: bool = False,
        describe: Callable[[], Header],
    ) -> None:
        """`describe` returns the header of a saved trace."""
        self.seed = seed
        self.now: int = 0
        self.steps: int = 0
        """The number of handled heap entries, without the actions of users and generators."""
        self.chooser: Chooser = chooser or Chooser(Seeded(seed))
        self.framing = Framing.OBJECTS if objects else Framing.STREAM
        self.network: Network = Network(self.chooser)
        self.tables: Tables = Tables()
        self.trace: Trace = Trace(recording=recording, describe=describe)
        self.specs: dict[str, Spec] = dict(nodes)
        self.nodes: dict[str, NodeHost] = {}
        self.clients: dict[str, ClientHost] = {}
        """The native clients."""
        self.json_clients: dict[str, JsonClientHost] = {}
        self.calls: list[SimCall] = []
        self.queries: list[SimQuery] = []
        self.own_requests: list[OwnRequest] = []
        self.drained: list[tuple[str, int, int]] = []
        self.observers: ObserverHub = ObserverHub(watchers, now=lambda: self.now, trace=self.trace)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = self._wires = 0
        self._sweep_every = self._sweep_at = SWEEP
        self.waiting_queries: dict[tuple[str, int, int], SimQuery] = {}
        self.waiting_own: dict[tuple[str, int, int], OwnRequest] = {}
        self.waiting_calls: dict[tuple[str, int, int], SimCall] = {}
        for watcher in self.observers.watchers:
            watcher.begin(self)
        for index, (name, spec) in enumerate(nodes.items()):
            self.nodes[name] = NodeHost(self, name, index, spec)
        with forbid_nondeterminism():
            for host in self.nodes.values():
                host.start()
                self.after(host)

    @property
    def hosts(self) -> list[Host]:
        """All machines: nodes, native clients, JSON clients."""
        return [*self.nodes.values(), *self.clients.values(), *self.json_clients.values()]

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """The seconds since the start, for people."""
        return self.now / SECOND

    def run(
        self, seconds: float | None = None, *, until: Callable[[], bool] | None = None, limit: float | None = None
    ) -> bool:
        """Let time pass: for `seconds`, or until `until()` is true, for `limit` seconds at most.

        Return whether `until()` became true.
        """
        span_ns = round((seconds if seconds is not None else limit if limit is not None else 60.0) * SECOND)
        end = self.now + span_ns
        with forbid_nondeterminism():
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
        if at > self.now:
            self.now = at
        self.steps += 1
        handle(*args)
        if self.trace.events >= self._sweep_at:
            self._sweep_at = self.trace.events + self._sweep_every
            self.sweep()

    def schedule(self, after: float, act: Callable[..., None], *args: Any) -> None:
        """Call `act(*args)` after this many seconds, before events of the same time that are scheduled later."""
        self.push(self.now + round(after * SECOND), self.act, act, args)

    def next_at(self) -> int | None:
        """Return the time of the next step, or None if no event is left."""
        return self._heap[0][0] if self._heap else None

    def set_sweep_interval(self, events: int) -> None:
        """Sweep once every `events` events from now on."""
        self._sweep_every = events
        self._sweep_at = self.trace.events + events

    def sweep(self) -> None:
        """Let all watchers check the whole state."""
        self.tables.begin()
        for watcher in self.observers.watchers:
            watcher.sweep(self)

    # -- effects of hosts ---------------------------------------------------------------------------------------------

    def default_peers(self, name: str) -> tuple[str, ...]:
        """Return the peers of a node whose spec names none: the first node, or no peer for the first node itself."""
        first = next(iter(self.specs))
        return () if first == name else (first,)

    def send(self, host: Host, effect: Send) -> None:
        """Send the data of a host over a link."""
        found = host.wires.get(effect.link)
        if found is None:
            return
        wire, side = found
        if wire.framing is Framing.STREAM:
            self._transmit(wire, side, b"".join(effect.chunks))
        elif effect.message is not None:
            self._transmit(wire, side, effect.message)
        else:
            for message in effect.chunks:
                self._transmit(wire, side, message)

    def hang_up(self, host: Host, link: LinkId) -> None:
        """Close a link of a host, at once or as late as its driver does. Data that it sent before arrives first."""
        if link in host.wires:
            late = self._late(host, "hang up", host.driver.hangs_up_late)
            if late:
                self.push(self.now + late, self._hung_up, *host.wires[link])
            else:
                self._hung_up(*host.wires[link])

    def _hung_up(self, wire: Wire[Host], side: int) -> None:
        if wire.ends[side].is_open:
            self._transmit(wire, side, None)
            self.push(self.now, self._closed, wire, side)

    def _late(self, host: Host, what: str, longest: float) -> int:
        """Return how late the driver of a host does something, in nanoseconds."""
        if not longest:
            return 0
        return round(self.chooser.fraction(f"~driver {what} {host.name}") * longest * SECOND)

    def ping(self, host: Host, link: LinkId) -> None:
        """Send a WebSocket ping over a link of a host: a peer that can be reached answers after a round trip."""
        wire, side = host.wires[link]
        other = wire.ends[1 - side].host
        cut = self.network.is_cut(host.name, other.name) or self.network.is_cut(other.name, host.name)
        if wire.died is None and not cut:
            trip = self.network.latency(host.name, other.name) + self.network.latency(other.name, host.name)
            self.push(self.now + trip, self._ponged, wire, side)

    def pause(self, host: Host, link: LinkId) -> None:
        """Stop reading a link at a host: what arrives waits."""
        wire, side = host.wires[link]
        if wire.ends[side].unread is None:
            self.network.paused += 1
            wire.ends[side].unread = []

    def resume(self, host: Host, link: LinkId) -> None:
        """Read a paused link again, first what has waited."""
        if link in host.wires:
            self.push(self.now, self._read_on, *host.wires[link])

    def dial(self, host: Host, where: Address) -> None:
        """Dial an address for a host. After a round trip or a timeout the link is open or the dial has failed."""
        target = self._target(host, where)
        if target is None or target is host:
            trip = 0
        elif self.chooser.chance(f"~hang {host.name}", self.network.profile(host.name, target.name).hangs):
            self._hang(host, where)
            self.network.hung_until = max(self.network.hung_until, self.now + DEFAULT.dial)
            return
        else:
            trip = self.network.latency(host.name, target.name) + self.network.latency(target.name, host.name)
        self.push(self.now + trip, self._dialled, host, host.life, target, where)

    def _target(self, host: Host, where: Address) -> NodeHost | None:
        """Return the node at an address. A service name leads to any node that runs, also to the one that dials it."""
        name = where.removeprefix("sim://").partition("/")[0]
        if name != SERVICE:
            return self.nodes.get(name)
        running = [node for node in self.nodes.values() if node.alive]
        return self.chooser.choice(f"~service {host.name}", running) if running else None

    def wake_at(self, host: Host, due: int | None) -> None:
        """Schedule a wake-up of a host for the time at which its clock shows `due`."""
        if due is not None:
            self.push(max(self.now, host.clock.when(due)), self._wake, host, host.life, due)

    def resume_at(self, host: NodeHost, body: SimulatedRun, after: int) -> None:
        """Schedule the next step of a body after this many nanoseconds."""
        body.step += 1
        self.push(self.now + after, self._resume, host, host.life, body, body.step)

    def redial_at(self, host: DialingHost) -> None:
        """Schedule another dial of a client that has lost its link."""
        self.push(self.now + _REDIAL, self._redial, host, host.life)

    def answered(self, host: ClientHost, number: int, reply: Reply) -> None:
        """Record a reply to one of a client's requests."""
        query = self.waiting_queries.get((host.name, host.life, number))
        if query is not None and not query.cancelled:
            for hook in self.observers.hooks("query_answered"):
                hook(query, reply)
            query.reply = reply
            return
        call = self.waiting_calls.get((host.name, host.life, number))
        if call is None or call.cancelled:
            return
        call.answer(reply, self.now)
        self.observers.replied(host, call, reply)

    def items_received(self, host: ClientHost, number: int, items: Items) -> None:
        """Record items for a client, which uses them soon."""
        call = self.waiting_calls.get((host.name, host.life, number))
        if call is None or call.cancelled:
            return
        for hook in self.observers.hooks("items_received"):
            hook(call, items)
        received = call.items.setdefault(items.call, [])
        idle = len(received) == call.taken.get(items.call, 0)
        received.extend(items.values)
        if idle and call.consumes:
            self._consume_at(host, call, items.call)

    def _consume_at(self, host: ClientHost, call: SimCall, name: str) -> None:
        fraction = self.chooser.fraction(f"~consumer {host.name}")
        self.push(self.now + round(fraction * _SLOWEST_CONSUMER), self._consume, host, host.life, call, name)

    def _consume(self, host: ClientHost, life: int, call: SimCall, name: str) -> None:
        """Let a client use some of its items. Sometimes it has enough, and cancels the call."""
        if host.life != life or not host.alive or call.done() or not call.consumes:
            return
        if self._is_stalled(host):
            self._defer(host, self._consume, host, life, call, name)
            return
        taken = call.taken.get(name, 0)
        count = 1 + self.chooser.below(f"~consumer {host.name}", len(call.items[name]) - taken)
        if call.stops_early and self.chooser.chance(f"~consumer stops {host.name}", _STOPS):
            call.cancelled = True
            host.session.cancel(call.number, now=host.local)
        else:
            call.taken[name] = taken + count
            host.session.items_taken(call.number, name, count, now=host.local)
        self.after(host)
        if len(call.items[name]) > call.taken.get(name, 0):
            self._consume_at(host, call, name)

    def progress_received(self, host: ClientHost, number: int, progress: CallProgress) -> None:
        """Record the progress of a call."""
        call = self.waiting_calls.get((host.name, host.life, number))
        if call is not None and not call.cancelled:
            for hook in self.observers.hooks("progress_received"):
                hook(call, progress)
            call.progress.append(progress)

    def own_finished(self, host: NodeHost, notice: RequestFinished) -> None:
        """Record the result of a request that a node's process has submitted itself."""
        request = self.waiting_own.get((host.name, host.life, notice.request))
        if request is not None:
            for hook in self.observers.hooks("own_finished"):
                hook(request, notice.result)
            request.result = notice.result if notice.result.last else None

    def give_up_at(self, host: JsonClientHost, link: LinkId, after: int) -> None:
        """Let a client close a link after this many nanoseconds, whether an answer has come or not."""
        self.push(self.now + after, self._give_up, host, host.life, link)

    def _give_up(self, host: JsonClientHost, life: int, link: LinkId) -> None:
        if host.life == life and host.alive and not self._is_stalled(host):
            self.hang_up(host, link)

    # -- events -------------------------------------------------------------------------------------------------------

    def push(self, at: int, handle: Callable[..., None], *args: Any) -> None:
        """Schedule an event."""
        self._sequence += 1
        heappush(self._heap, (at, self._sequence, handle, args))

    def act(self, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Perform an action of a user or generator."""
        self.steps -= 1  # an action is no step: a replay performs it itself, between two steps
        act(*args)

    def record_action(self, name: str, args: dict[str, Any]) -> None:
        """Record an action in the script."""
        self.trace.record_action(self.now, name, args, step=self.steps)

    def after(self, host: Host) -> None:
        """Perform the effects of a host after an input, and end its life if its process is over."""
        host.carry_out()
        if not host.alive:  # its process has died in the middle of its effects
            return
        for hook in host.event_hooks:
            hook(host)
        if host.over and host.alive:
            self.end_life(host, silent=False)

    def _is_stalled(self, host: Host) -> bool:
        """Return whether `host` is stalled, or has not yet handled what arrived during a stall."""
        return host.stalled_until > self.now or bool(host.waiting)

    def _defer(self, host: Host, handle: Callable[..., None], *args: Any) -> None:
        """Defer an event until `host` continues, behind the events that are already deferred."""
        host.waiting.append((handle, args))
        if len(host.waiting) == 1:
            self.push(host.stalled_until, self._catch_up, host, host.life)

    def _catch_up(self, host: Host, life: int) -> None:
        """Handle the deferred events of a host in their order, after its stall is over.

        If the stall was extended, try again at its new end.
        """
        if host.life != life or not host.waiting:
            return
        if host.stalled_until > self.now:
            self.push(host.stalled_until, self._catch_up, host, life)
            return
        waiting, host.waiting = host.waiting, []
        for handle, args in waiting:
            handle(*args)

    def _wake(self, host: Host, life: int, due: int) -> None:
        if host.life != life or not host.alive or host.due != due:
            return
        if self._is_stalled(host):
            self._defer(host, self._wake, host, life, due)
            return
        host.due = None
        self.trace.add(self.now, "wake", host.name, "")
        for hook in self.observers.hooks("timer_due"):
            hook(host)
        host.wake()
        self.after(host)

    def _hang(self, host: Host, where: Address) -> None:
        """Let a dial hang. A node gives it up by itself, and a client after the time that a node would take."""
        self.network.hung += 1
        if not isinstance(host, NodeHost):
            self.push(self.now + DEFAULT.dial, self._dial_failed, host, host.life, where)

    def _dialled(self, host: Host, life: int, target: NodeHost | None, where: Address) -> None:
        if host.life != life or not host.alive:
            return
        if self._is_stalled(host):
            self._defer(host, self._dialled, host, life, target, where)
            return
        if target is host and where == address(SERVICE):
            self._connect(host, host, where)
            return
        if target is not None and target is not host:
            if self.network.is_cut(host.name, target.name) or self.network.is_cut(target.name, host.name):
                self.push(self.now + _REFUSED_AFTER, self._refused, host, life, where)
                return
            if target.alive:
                self._connect(host, target, where)
                return
            if target.powered_off:
                self._hang(host, where)
                return
        self._refused(host, life, where)

    def _refused(self, host: Host, life: int, where: Address) -> None:
        """Report a failed dial to its host, at once or as late as its driver does, or never."""
        if self.chooser.chance(f"~driver forget {host.name}", host.driver.forgets_dials):
            return
        late = self._late(host, "fail", host.driver.fails_late)
        if late:
            self.push(self.now + late, self._dial_failed, host, life, where)
        else:
            self._dial_failed(host, life, where)

    def _dial_failed(self, host: Host, life: int, where: Address) -> None:
        if host.life != life or not host.alive:
            return
        if self._is_stalled(host):
            self._defer(host, self._dial_failed, host, life, where)
            return
        self.trace.add(self.now, "refused", host.name, where)
        host.dial_failed(where)
        self.after(host)

    def _connect(self, host: Host, target: NodeHost, where: Address) -> None:
        self._wires += 1
        ends: tuple[WireEnd[Host], WireEnd[Host]] = (
            WireEnd(host, host.next_link()),
            WireEnd(target, target.next_link()),
        )
        wire = Wire(self._wires, host.framing, *ends)
        for side, end in enumerate(ends):
            end.host.wires[end.link] = (wire, side)
        self.trace.add(self.now, "connect", host.name, target.name)
        self._open(wire, 1, None)
        self._open(wire, 0, where)

    def _open(self, wire: Wire[Host], side: int, where: Address | None) -> None:
        end = wire.ends[side]
        if end.closed or not end.host.alive or end.host.life != end.life:
            return
        if self._is_stalled(end.host):
            self._defer(end.host, self._open, wire, side, where)
            return
        end.opened = True
        end.host.link_opened(end.link, where)
        self.after(end.host)

    def _transmit(self, wire: Wire[Host], side: int, data: object) -> None:
        """Send data, or None for the end, in order with the data sent before."""
        source, target = wire.ends[side], wire.ends[1 - side]
        if source.closed or wire.died is not None:
            return
        if self.network.is_cut(source.host.name, target.host.name) or wire.blocked[side]:
            wire.blocked[side].append(data)
            return
        size = len(data) if isinstance(data, bytes) else 200
        sent = self.now
        begun = max(sent, wire.free[side])
        label = labelled(data, wire.framing) if self.trace.recording else ""
        arrivals = self.network.arrivals(wire, side, data, size, sent)
        if arrivals is None:
            self._reset(wire)
            return
        for at, piece in arrivals:
            self.push(at, self._deliver, wire, side, piece, sent, label)
        if wire.free[side] > sent:  # a bandwidth limit: a part is queued
            self.network.report_backlog(wire, side, sent)
            for at in self.network.departures(wire, side, begun):
                self.push(at, self.network.report_progress, wire, side, at)

    def _deliver(self, wire: Wire[Host], side: int, data: object, sent: int, label: str) -> None:
        """Deliver data that `side` has sent."""
        end = wire.ends[1 - side]
        host = end.host
        if end.closed or not host.alive or host.life != end.life:
            return
        if self._is_stalled(host):
            self._defer(host, self._deliver, wire, side, data, sent, label)
            return
        if end.unread is not None:
            end.unread.append((data, sent, label))
            return
        source = wire.ends[side].host.name
        if data is None:
            self._closed(wire, 1 - side)
            return
        if isinstance(data, bytes):
            self.trace.add(self.now, "data", host.name, source, data=data, sent=sent, label=label)
        else:
            self.trace.add(self.now, "message", host.name, source, text=type(data).__name__, sent=sent)
        host.receive(end.link, data)
        self.after(host)

    def _read_on(self, wire: Wire[Host], side: int) -> None:
        """Deliver what has waited at `side` since it was paused."""
        unread, wire.ends[side].unread = wire.ends[side].unread or [], None
        for delivery in unread:
            self._deliver(wire, 1 - side, *delivery)

    def _ponged(self, wire: Wire[Host], side: int) -> None:
        mine, other = wire.ends[side], wire.ends[1 - side]
        if mine.is_open and other.is_open and not self._is_stalled(mine.host) and not self._is_stalled(other.host):
            mine.host.progress(mine.link)

    def _closed(self, wire: Wire[Host], side: int) -> None:
        """Close a link at one end."""
        end = wire.ends[side]
        host = end.host
        if end.closed or not host.alive or host.life != end.life:
            return
        if self._is_stalled(host):
            self._defer(host, self._closed, wire, side)
            return
        end.closed = True
        other = wire.ends[1 - side]
        if not other.closed and wire.died is None:  # data that the other side still sends reaches a closed socket
            at = self.now + self.network.latency(host.name, other.host.name)
            self.push(max(at, wire.last[side]), self._closed, wire, 1 - side)  # a reset does not overtake data either
        late = self._late(host, "close", host.driver.closes_late)
        if late:
            self.push(self.now + late, self._report_closed, wire, side)
        else:
            self._report_closed(wire, side)

    def _report_closed(self, wire: Wire[Host], side: int) -> None:
        """Report the end of a link to its host."""
        end = wire.ends[side]
        host = end.host
        if not host.alive or host.life != end.life:
            return
        if self._is_stalled(host):
            self._defer(host, self._report_closed, wire, side)
            return
        del host.wires[end.link]
        self.trace.add(self.now, "closed", host.name, wire.ends[1 - side].host.name)
        if end.opened:
            host.link_closed(end.link)
            self.after(host)

    def _reset(self, wire: Wire[Host]) -> None:
        """Break the connection, with all data in transit."""
        self.network.broken += max(wire.last) > self.now
        for side in (0, 1):
            wire.blocked[side].clear()
            self.push(self.now, self._closed, wire, side)

    def _resume(self, host: NodeHost, life: int, body: SimulatedRun, step: int) -> None:
        if host.life != life or not host.alive or body.step != step:
            return
        if self._is_stalled(host):
            self._defer(host, self._resume, host, life, body, step)
            return
        host.stepped(body, body.resume())
        self.after(host)

    def _redial(self, host: DialingHost, life: int) -> None:
        if host.life != life or not host.alive or not host.needs_link:
            return
        if self._is_stalled(host):
            self._defer(host, self._redial, host, life)
            return
        host.connect()
        self.after(host)

    def end_life(self, host: Host, *, silent: bool) -> None:
        """End the process of a host. With `silent` its machine fails too, and no other host is notified."""
        if isinstance(host, NodeHost):
            for watcher in self.observers.watchers:
                watcher.crashed(host)
            for body in host.running.values():
                body.abandon()
            host.running = {}
        host.alive = False
        host.powered_off = silent
        for wire, side in list(host.wires.values()):
            wire.blocked[side].clear()
            if not silent:
                self._transmit(wire, side, None)
            wire.ends[side].closed = True
        host.wires = {}

    def died_amid(self, host: NodeHost) -> None:
        """End the process of a node in the middle of its effects."""
        self.end_life(host, silent=False)

    def kill_wire(self, one: str, other: str, which: int) -> None:
        """Let one of the open connections between two hosts die without a word: both ends believe that it is open."""
        wires = {
            wire.number: wire
            for host in self.hosts
            for wire, _ in host.wires.values()
            if {end.host.name for end in wire.ends} == {one, other} and wire.died is None
            if all(end.is_open for end in wire.ends)
        }
        if wires:
            wire = wires[sorted(wires)[which % len(wires)]]
            self.network.halved += len(wires) > 1
            wire.died = self.now
            for blocked in wire.blocked:
                blocked.clear()
            self.network.dead.append(wire)

    def heal_network(self) -> None:
        """Open all paths again; data that was held back is sent again."""
        self.network.heal()
        for host in self.hosts:
            for wire, side in list(host.wires.values()):
                blocked, wire.blocked[side][:] = list(wire.blocked[side]), []
                for data in blocked:
                    self._transmit(wire, side, data)

    def heal_all(self) -> None:
        """Open all paths, let no link break and no dial hang any more, and end all stalls.

        A connection that has died stays so: its ends find out.
        """
        self.heal_network()
        self.network.clear_faults()
        for host in self.hosts:
            host.stalled_until = min(host.stalled_until, self.now)
            if host.waiting:
                self.push(self.now, self._catch_up, host, host.life)
