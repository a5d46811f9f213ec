"""The machines of a simulation. Each runs one process, a `Node` or a client, with the core of production.

A host has a clock of its own and may be stalled, crashed and started again; each start is a new life. It performs the
effects of its core: writes go to the network, functions run in virtual time, timers become events of the simulation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from mpreg_proto.client import ClientSession, ItemsReceived, ProgressReceived, Reply, ReplyReceived
from mpreg_proto.effects import (
    Cancel,
    Demand,
    Dial,
    Effect,
    Feed,
    Framing,
    HangUp,
    KeepAlive,
    Lost,
    Notify,
    NotStarted,
    Outcome,
    Pause,
    Resume,
    Returned,
    Run,
    Send,
)
from mpreg_proto.ids import Address, LinkId, MemberId, RunId
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.links import Links
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import DrainRequested, Notice, RequestFinished
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import VERSION, CallProgress, Items
from mpreg_transports.functions.execution import tags
from mpreg_transports.testing.simulation.calls import CallKey, OwnRequest, SimCall, SimQuery
from mpreg_transports.testing.simulation.checks import check_factory, check_kind, check_text, texts
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.clocks import Clock
from mpreg_transports.testing.simulation.drivers import GOOD, DriverFaults
from mpreg_transports.testing.simulation.functions import (
    Fn,
    Functions,
    Offered,
    SimulatedRun,
    function_table,
    functions_of,
    name_of,
)
from mpreg_transports.testing.simulation.network import Network, Wire
from mpreg_transports.testing.simulation.tables import Tables
from mpreg_transports.testing.simulation.trace import Trace
from mpreg_transports.values import default_codec


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of one node: the functions it offers, its resources, and the nodes it joins.

    `functions` maps names to plain functions, coroutines or `Fn`s. For functions that remember something it is a
    factory without arguments that returns such a mapping: it is called once for each life of the node, so that a crash
    loses what they remembered.
    """

    functions: Functions = {}
    resources: frozenset[str] | set[str] | tuple[str, ...] = ()
    peers: tuple[str, ...] | None = None
    """The names of the nodes that it dials; None: the first node of the simulation."""
    limits: Limits = DEFAULT
    cluster_id: str = "default-cluster"
    """The cluster that it belongs to: nodes of another one refuse it."""
    versions: tuple[int, int] = (VERSION, VERSION)
    """The lowest and the highest protocol version that it offers, and so do its clients."""
    driver: DriverFaults = GOOD
    """The faults of the driver of this node in a simulation."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a value of the wrong kind; a factory is not called for that."""
        if isinstance(self.functions, Mapping):
            functions_of(self.functions)
        else:
            check_factory("functions", self.functions, "make_functions, or a mapping such as {'price': price}")
        tags(self.resources)
        if self.peers is not None:
            texts("peers", self.peers)
        check_kind("limits", self.limits, Limits, "Limits(...)")
        check_text("cluster_id", self.cluster_id)
        check_kind("driver", self.driver, DriverFaults, "DriverFaults(...)")

    def __repr__(self) -> str:
        """Return the fields that differ from the default, on one line; functions by their names."""
        shown = {"functions": self._shown_functions()} if self.functions else {}
        shown |= {"resources": f"{{{str(sorted(self.resources))[1:-1]}}}"} if self.resources else {}
        shown |= {"peers": repr(self.peers)} if self.peers is not None else {}
        shown |= {"limits": self._shown_limits()} if self.limits != DEFAULT else {}
        shown |= {"cluster_id": repr(self.cluster_id)} if self.cluster_id != "default-cluster" else {}
        shown |= {"versions": repr(self.versions)} if self.versions != (VERSION, VERSION) else {}
        shown |= {"driver": repr(self.driver)} if self.driver != GOOD else {}
        return f"Spec({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def _shown_functions(self) -> str:
        if not isinstance(self.functions, Mapping):
            return name_of(self.functions)
        given = self.functions.items()
        rows = [f"{name!r}: {one if isinstance(one, Fn) else name_of(one)}" for name, one in given]
        more = f", ... {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        return f"{{{', '.join(rows[:_SHOWN])}{more}}}"

    def _shown_limits(self) -> str:
        changed = [name for name in Limits.__struct_fields__ if getattr(self.limits, name) != getattr(DEFAULT, name)]
        return f"Limits({', '.join(f'{name}={getattr(self.limits, name)}' for name in changed)})"


_SHOWN = 3
"""The functions of a spec that its `repr` names."""


def coalesce_sends(effects: Sequence[Any]) -> Sequence[Any]:
    """Join consecutive writes to one link into one write, as in production.

    So a piece may hold the end of one message and the beginning of the next.
    """
    if len(effects) < 2:
        return effects
    joined: list[Any] = []
    for effect in effects:
        last = joined[-1] if joined else None
        if type(effect) is Send and type(last) is Send and effect.link == last.link and effect.message is None:
            joined[-1] = Send(effect.link, (*last.chunks, *effect.chunks))
        else:
            joined.append(effect)
    return joined


SERVICE: Final = "*"
"""The name of a service among the peers of a node: it leads to any node that runs, as of a load balancer or in DNS."""


def address(name: str) -> Address:
    """Return the address of a simulated node."""
    return Address(f"sim://{name}")


def offer_versions(links: Links, versions: tuple[int, int]) -> None:
    """Let a process offer other protocol versions than this code, as a later or earlier release would."""
    if versions != (VERSION, VERSION):
        usual = links._hello
        links._hello = lambda: msgspec.structs.replace(usual(), versions=versions)


def compatible(one: Spec, other: Spec) -> bool:
    """Return whether two nodes can be members of one cluster."""
    common = max(one.versions[0], other.versions[0]) <= min(one.versions[1], other.versions[1])
    return common and one.cluster_id == other.cluster_id


class Observers(Protocol):
    """The receiver of what happens on hosts (observer_hub.py)."""

    keys: dict[tuple[str, int, int, str], CallKey]
    callers: dict[tuple[str, int, int], tuple[str, int]]

    def client_event_hooks(self) -> list[Callable[..., None]]: ...
    def node_event_hooks(self) -> list[Callable[..., None]]: ...
    def links_created(self, host: Host, links: Links) -> None: ...
    def node_started(self, host: NodeHost) -> None: ...
    def dispatches(self, host: NodeHost) -> None: ...
    def started(self, host: NodeHost, run: Run) -> None: ...
    def produced(self, host: NodeHost, run: Run, items: list[Any]) -> None: ...
    def taken(self, host: NodeHost, run: Run, items: list[Any]) -> None: ...
    def ended(self, host: NodeHost, run: Run, outcome: Outcome) -> None: ...
    def noticed(self, host: NodeHost, notice: Notice) -> None: ...
    def hooks(self, name: str) -> list[Callable[..., None]]: ...


class World(Protocol):
    """A simulation as watchers see it. They read it and change nothing."""

    seed: int
    now: int
    """The time since the start in nanoseconds."""
    chooser: Chooser
    network: Network
    tables: Tables
    trace: Trace
    specs: dict[str, Spec]
    nodes: dict[str, NodeHost]
    clients: dict[str, ClientHost]
    json_clients: dict[str, JsonClientHost]
    calls: list[SimCall]
    queries: list[SimQuery]
    own_requests: list[OwnRequest]
    drained: list[tuple[str, int, int]]
    """The nodes that began to leave at the command of a client: name, life and time."""

    @property
    def hosts(self) -> list[Host]:
        """All machines: nodes and clients."""
        ...

    @property
    def observers(self) -> Observers:
        """The keys of all calls, and the watchers."""
        ...

    @property
    def time(self) -> float:
        """The seconds since the start."""
        ...


class Machinery(World, Protocol):
    """A simulation as its hosts use it (engine.py). Their effects become its events."""

    framing: Framing

    def default_peers(self, name: str) -> tuple[str, ...]: ...
    def send(self, host: Host, effect: Send) -> None: ...
    def hang_up(self, host: Host, link: LinkId) -> None: ...
    def ping(self, host: Host, link: LinkId) -> None: ...
    def pause(self, host: Host, link: LinkId) -> None: ...
    def resume(self, host: Host, link: LinkId) -> None: ...
    def dial(self, host: Host, where: Address) -> None: ...
    def wake_at(self, host: Host, due: int | None) -> None: ...
    def resume_at(self, host: NodeHost, body: SimulatedRun, after: int) -> None: ...
    def redial_at(self, host: DialingHost) -> None: ...
    def answered(self, host: ClientHost, number: int, reply: Reply) -> None: ...
    def items_received(self, host: ClientHost, number: int, items: Items) -> None: ...
    def progress_received(self, host: ClientHost, number: int, progress: CallProgress) -> None: ...
    def died_amid(self, host: NodeHost) -> None: ...
    def own_finished(self, host: NodeHost, notice: RequestFinished) -> None: ...
    def give_up_at(self, host: JsonClientHost, link: LinkId, after: int) -> None: ...


class Host:
    """A machine: the common part of nodes and clients.

    `due` is the deadline of the core for which a wake-up is scheduled.
    """

    driver = GOOD
    """The faults of the loop around the core."""

    def __init__(self, sim: Machinery, name: str, index: int) -> None:
        self.sim = sim
        self.name = name
        self.index = index
        self.life: int = 0
        self.alive: bool = False
        self.powered_off: bool = False
        """True if its machine has failed, not only its process: nothing answers a dial."""
        self.framing: Framing = sim.framing
        """The framing of the links that it dials."""
        self.stalled_until: int = 0
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        """The events that arrived while the host was stalled, in order."""
        self.clock: Clock = Clock(start=sim.chooser.below(f"~clock {name}", 1 << 40), at=sim.now)
        self.wires: dict[LinkId, tuple[Wire[Host], int]] = {}
        self.due: int | None = None
        self.event_hooks: list[Callable[..., None]] = []
        """The hooks that are called after each event on this host."""
        self._last_link = 0

    @property
    def over(self) -> bool:
        """True if the process ends by itself now."""
        return False

    @property
    def local(self) -> int:
        """The time on this machine's clock."""
        return self.clock.now(self.sim.now)

    def next_link(self) -> LinkId:
        """Return a number for a new link."""
        self._last_link += 1
        return LinkId(self._last_link)

    def start(self) -> None:
        """Begin a new life."""
        self.life += 1
        self.alive, self.powered_off = True, False
        self.stalled_until = 0
        self.waiting = []
        self.wires = {}
        self.due = None
        self._last_link = 0

    # Inputs of the core; `carry_out` follows each of them.

    def link_opened(self, link: LinkId, dialled: Address | None) -> None:
        raise NotImplementedError

    def receive(self, link: LinkId, data: object) -> None:
        raise NotImplementedError

    def link_closed(self, link: LinkId) -> None:
        raise NotImplementedError

    def dial_failed(self, where: Address) -> None:
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError

    def backlog(self, link: LinkId, queued: int) -> None:
        """Report the backlog of a link in bytes. Only a node uses it, and it causes no effects."""

    def progress(self, link: LinkId) -> None:
        """Report that the peer took some bytes of the backlog."""
        raise NotImplementedError

    def carry_out(self) -> None:
        raise NotImplementedError


class NodeHost(Host):
    """A machine that runs a node, which `node` is: its view, its members, its requests. Watchers read it."""

    node: Node
    functions: dict[str, Fn]
    """The functions of this life, by name."""
    offers: dict[str, Offered]
    """The functions that this life has offered so far, with echo and echos."""

    def __init__(self, sim: Machinery, name: str, index: int, spec: Spec) -> None:
        super().__init__(sim, name, index)
        self.event_hooks: list[Callable[[Any], None]] = list(sim.observers.node_event_hooks())
        self.spec = spec
        self.driver: DriverFaults = spec.driver
        self.functions, self.offers = {}, {}
        self.running: dict[RunId, SimulatedRun] = {}
        self.last_dispatch: int = 0
        """The number of the newest dispatch of this life's coordinator that the simulation has recorded."""
        self.coordinator: Coordinator | None = None
        self.era: int = 0
        """The number of coordinators that this life has had."""
        self._more_effects = False
        """True if the node got an input while its effects were performed, so that there may be more effects."""
        self.effects_left: int | None = None
        """The number of effects after which the process dies, in the middle of the next ones that are more than so
        many."""
        self.advertised: int = 0
        """The number of times that this life has changed its addresses."""
        self.died_amid: bool = False
        """True if the process has died in the middle of its effects."""

    def start(self) -> None:
        """Begin a new life: a new member at the same address, with the functions of the spec."""
        super().start()
        self.running = {}
        self.last_dispatch = 0
        self.coordinator, self.era = None, 0
        self.effects_left, self.died_amid, self.advertised = None, False, 0
        self.functions = functions_of(self.spec.functions, node=self.name)
        self.offers = function_table(self.functions)
        sim, label = self.sim, f"{self.name}/{self.life}"
        seed = sim.chooser.below(f"~seed {label}", 1 << 52)
        peers = self.spec.peers if self.spec.peers is not None else sim.default_peers(self.name)
        config = NodeConfig(
            name=self.name,
            addresses=(address(self.name),),
            seeds=tuple(address(peer) for peer in peers),
            resources=tuple(sorted(self.spec.resources)),
            limits=self.spec.limits,
            cluster_id=self.spec.cluster_id,
        )
        self.node = Node(
            config,
            me=MemberId(
                Rng(seed).child("id").below(1 << 52).to_bytes(8, "big") + self.index.to_bytes(4, "big") + bytes(4)
            ),
            rng=Rng(seed).child("node"),
            entropy=lambda size: sim.chooser.entropy(f"~entropy {label}", size),
            now=self.local,
            codec=default_codec(),
        )
        offer_versions(self.node.links, self.spec.versions)
        sim.observers.links_created(self, self.node.links)
        sim.observers.node_started(self)
        for offered in self.offers.values():
            self.node.offer(offered.function.spec, now=self.local)
        self.carry_out()

    def offer(self, name: str, fn: Fn) -> None:
        """Register a function while the node runs."""
        self.offers.update(function_table({name: fn}))
        self.functions[name] = fn
        self.node.offer(self.offers[name].function.spec, now=self.local)

    @property
    def over(self) -> bool:
        """True if the node has left."""
        return self.node.left

    def link_opened(self, link: LinkId, dialled: Address | None) -> None:
        self.node.link_opened(link, framing=self.wires[link][0].framing, dialled=dialled, now=self.local)

    def receive(self, link: LinkId, data: Any) -> None:
        if isinstance(data, bytes):
            self.node.receive(link, data, now=self.local)
        else:
            self.node.handle(link, data, now=self.local)

    def link_closed(self, link: LinkId) -> None:
        self.node.link_closed(link, now=self.local)

    def dial_failed(self, where: Address) -> None:
        self.node.dial_failed(where, now=self.local)

    def wake(self) -> None:
        self.node.wake(now=self.local)

    def backlog(self, link: LinkId, queued: int) -> None:
        if self.driver.reports_backlog:
            self.node.backlog(link, queued, now=self.local)

    def progress(self, link: LinkId) -> None:
        self.node.progress(link, now=self.local)

    def finished(self, body: SimulatedRun, outcome: Any) -> None:
        """Report the end of a body to the node."""
        self._more_effects = True
        del self.running[body.run.run]
        if body.lost:
            outcome = Lost("its executor broke")
        whole = body.run.demand and isinstance(outcome, Returned)
        self.sim.observers.ended(self, body.run, Returned(body.produced) if whole else outcome)
        self.node.finished(body.run.run, outcome, now=self.local)

    def carry_out(self) -> None:
        """Perform all effects of the node, then schedule its next wake-up."""
        node, sim = self.node, self.sim
        self._more_effects = True
        while self._more_effects:
            self._more_effects = False
            effects = coalesce_sends(node.drain())
            if self.effects_left is not None and len(effects) > self.effects_left:
                self._die_amid(effects, self.effects_left)
                return
            for effect in effects:
                if type(effect) is Send:  # the most frequent effect
                    sim.send(self, effect)
                else:
                    self._one(effect)
        if node.coordinator.outstanding.last_number != self.last_dispatch:
            sim.observers.dispatches(self)
        due = node.next_timeout()
        if due != self.due:
            self.due = due
            sim.wake_at(self, due)

    def _die_amid(self, effects: Sequence[Effect], performed: int) -> None:
        """Perform the first effects, a part of the next write, and end the process.

        The notices of all effects are reported: they say what the node knew when it died.
        """
        self.effects_left, self.died_amid = None, True
        for effect in effects[:performed]:
            if type(effect) is Send:
                self.sim.send(self, effect)
            else:
                self._one(effect)
        torn = effects[performed]
        wire = self.wires[torn.link][0] if type(torn) is Send and torn.link in self.wires else None
        if type(torn) is Send and wire is not None and wire.framing is Framing.STREAM:
            data = b"".join(torn.chunks)
            self.sim.send(self, Send(torn.link, (data[: self.sim.chooser.below(f"~torn {self.name}", len(data))],)))
        for effect in effects[performed:]:
            if type(effect) is Notify:
                self.sim.observers.noticed(self, effect.notice)
        if self.node.coordinator.outstanding.last_number != self.last_dispatch:
            self.sim.observers.dispatches(self)
        self.sim.died_amid(self)

    def _one(self, effect: Effect) -> None:
        sim = self.sim
        match effect:
            case Run():
                self._run(effect)
            case Notify(notice):
                sim.observers.noticed(self, notice)
                if type(notice) is RequestFinished:
                    sim.own_finished(self, notice)
                elif type(notice) is DrainRequested:
                    sim.drained.append((self.name, self.life, sim.now))
            case Dial(where):
                sim.dial(self, where)
            case HangUp(link):
                sim.hang_up(self, link)
            case Cancel(run):
                body = self.running.get(run)
                if body is not None and body.cancel():
                    sim.resume_at(self, body, 0)
            case Demand(run, items):
                body = self.running.get(run)
                if body is not None and body.allow(items):
                    sim.resume_at(self, body, 0)
            case Feed(run, items, last):
                body = self.running.get(run)
                if body is not None and body.feed(items, last):
                    sim.resume_at(self, body, 0)
            case KeepAlive(link):
                sim.ping(self, link)
            case Pause(link):
                sim.pause(self, link)
            case Resume(link):
                sim.resume(self, link)
            case _:
                raise AssertionError(f"an effect that the simulator does not know: {effect}")

    def _run(self, run: Run) -> None:
        sim = self.sim
        offered = self.offers[run.function]
        fn = self.functions.get(run.function)
        drawn = 1.0
        if fn is not None and fn.refuses + fn.loses:
            drawn = sim.chooser.fraction(f"~executor {run.function}")
            if drawn < fn.refuses:
                self._more_effects = True
                self.node.finished(run.run, NotStarted("its executor is full"), now=self.local)
                return
            drawn -= fn.refuses
        if self.node.coordinator.outstanding.last_number != self.last_dispatch:
            sim.observers.dispatches(self)
        sim.observers.started(self, run)
        body = self.running[run.run] = SimulatedRun(offered.function, offered.duration, run, names=offered.names)
        body.lost = fn is not None and drawn < fn.loses
        self.stepped(body, body.begin(sim.chooser.fraction))

    def stepped(self, body: SimulatedRun, step: Any) -> None:
        """Handle a step of a body: it sleeps, it waits for its consumer, or it has ended."""
        if body.run.demand and (items := body.take_items()):
            self._more_effects = True
            self.sim.observers.produced(self, body.run, items)
            self.node.yielded(body.run.run, items, now=self.local)
        if body.run.fed and (taken := body.take_taken()):
            self._more_effects = True
            self.sim.observers.taken(self, body.run, taken)
            self.node.took(body.run.run, len(taken), now=self.local)
        if body.run.reports and (report := body.take_report()) is not None:
            self._more_effects = True
            self.node.reported(body.run.run, report, now=self.local)
        if type(step) is int:
            self.sim.resume_at(self, body, step)
        elif step is not None:
            self.finished(body, step)


class DialingHost(Host):
    """A machine that runs a client of one node, to which it has one link at most."""

    def __init__(self, sim: Machinery, name: str, index: int, node: str, framing: Framing) -> None:
        super().__init__(sim, name, index)
        self.event_hooks: list[Callable[[Any], None]] = list(sim.observers.client_event_hooks())
        self.node = node
        self.framing = framing
        self.dialling: bool = False

    @property
    def needs_link(self) -> bool:
        """True while it has something to send, or waits for a reply that may still come after a loss of its link."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin a new life."""
        super().start()
        self.dialling = False

    def connect(self) -> None:
        """Dial the node, unless a link is open or a dial is in progress."""
        if not self.wires and not self.dialling:
            self.dialling = True
            self.sim.dial(self, address(self.node))

    def link_opened(self, link: LinkId, dialled: Address | None) -> None:
        self.dialling = False

    def link_closed(self, link: LinkId) -> None:
        self._retry()

    def dial_failed(self, where: Address) -> None:
        self.dialling = False
        self._retry()

    def _retry(self) -> None:
        if self.needs_link:
            self.sim.redial_at(self)


class ClientHost(DialingHost):
    """A machine that runs a native client. It connects when it has a request to send, and again after a loss."""

    session: ClientSession

    @property
    def needs_link(self) -> bool:
        """True while a request has no reply."""
        return len(self.session) > 0

    def start(self) -> None:
        """Begin a new life."""
        super().start()
        spec = self.sim.specs.get(self.node)
        limits = DEFAULT if spec is None else spec.limits
        chooser, label = self.sim.chooser, f"{self.name}/{self.life}"
        self.session = ClientSession(
            name=self.name,
            codec=default_codec(),
            limits=limits,
            entropy=lambda size: chooser.entropy(f"~entropy {label}", size),
        )
        if spec is not None:
            offer_versions(self.session.links, spec.versions)
        self.sim.observers.links_created(self, self.session.links)

    def link_opened(self, link: LinkId, dialled: Address | None) -> None:
        super().link_opened(link, dialled)
        assert dialled is not None, "nobody dials a client"
        self.session.link_opened(link, framing=self.framing, address=dialled, now=self.local)

    def receive(self, link: LinkId, data: Any) -> None:
        if isinstance(data, bytes):
            self.session.receive(link, data, now=self.local)
        else:
            self.session.handle(link, data, now=self.local)

    def progress(self, link: LinkId) -> None:
        self.session.progress(link, now=self.local)

    def link_closed(self, link: LinkId) -> None:
        self.session.link_closed(link, now=self.local)
        super().link_closed(link)

    def wake(self) -> None:
        self.session.wake(now=self.local)

    def carry_out(self) -> None:
        """Perform all effects of the session, then schedule its next wake-up."""
        sim = self.sim
        for effect in coalesce_sends(self.session.drain()):
            match effect:
                case Send():
                    sim.send(self, effect)
                case HangUp(link):
                    sim.hang_up(self, link)
                case ReplyReceived(number, reply):
                    sim.answered(self, number, reply)
                case ItemsReceived(number, items):
                    sim.items_received(self, number, items)
                case ProgressReceived(number, progress):
                    sim.progress_received(self, number, progress)
                case _:
                    pass
        due = self.session.next_timeout()
        if due != self.due:
            self.due = due
            sim.wake_at(self, due)


class JsonClientHost(DialingHost):
    """A machine that runs a client of the classic dialect: JSON texts in and out, without a session of the core.

    It connects when it has a text to send, and sends each text once. After a loss of its link the texts that it has
    sent stay unanswered. It has no timers, so it does not notice that a machine has failed silently.
    """

    def __init__(self, sim: Machinery, name: str, index: int, node: str) -> None:
        super().__init__(sim, name, index, node, Framing.CLASSIC_MESSAGES)
        self.answers: list[Any] = []
        """All received messages, in the order of their arrival."""
        self._unsent: list[str] = []

    @property
    def needs_link(self) -> bool:
        """True while a text has not been sent."""
        return bool(self._unsent)

    def start(self) -> None:
        """Begin a new life. The answers to earlier lives are kept."""
        super().start()
        self._unsent = []

    def submit(self, text: str) -> None:
        """Send a text as soon as a link is open."""
        self._unsent.append(text)
        self.connect()

    def receive(self, link: LinkId, data: Any) -> None:
        answer = json.loads(data)
        self.answers.append(answer)
        for hook in self.sim.observers.hooks("json_answered"):
            hook(self, link, answer)

    def progress(self, link: LinkId) -> None:
        """Do nothing: the client does not check whether its node is alive."""

    def carry_out(self) -> None:
        """Send all texts that wait for a link."""
        for link in list(self.wires):
            unsent, self._unsent = self._unsent, []
            for text in unsent:
                self._send(link, text)

    def _send(self, link: LinkId, text: str) -> None:
        for hook in self.sim.observers.hooks("json_sent"):
            hook(self, link, text)
        self.sim.send(self, Send(link, (text.encode(),)))


class PostClientHost(JsonClientHost):
    """A machine that sends each text by `POST /rpc`: what reaches the node is a link for each text.

    It closes the link after the answer, or when its patience ends. It sends one text after the other.
    """

    def __init__(self, sim: Machinery, name: str, index: int, node: str) -> None:
        super().__init__(sim, name, index, node)
        self.patience: int | None = None
        """The nanoseconds for which it waits for an answer; None: for ever."""
        self._used: dict[LinkId, None] = {}

    def start(self) -> None:
        """Begin a new life."""
        super().start()
        self._used = {}

    def receive(self, link: LinkId, data: Any) -> None:
        super().receive(link, data)
        self.sim.hang_up(self, link)

    def carry_out(self) -> None:
        """Send the first text that waits, if a link is open that has carried none."""
        for link in list(self.wires):
            if self._unsent and link not in self._used:
                self._used[link] = None
                self._send(link, self._unsent.pop(0))
                if self.patience is not None:
                    self.sim.give_up_at(self, link, self.patience)
