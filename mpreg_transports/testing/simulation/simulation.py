"""Clusters in virtual time: the `Node` of production, on one heap of events, in one thread, without an event loop.

    sim = Simulation(seed=7, nodes={"front": Spec(), "gpu-1": Spec(functions={"train": train}, resources={"gpu"})})
    call = sim.call("front", "train", rows, resources={"gpu"})
    sim.crash("gpu-1"); sim.restart("gpu-1", after=3)
    sim.run(until=call.done, limit=60)

Time is integer nanoseconds. The heap is ordered by (time, sequence), and payloads are never compared. Every choice goes
through one chooser (chooser.py), every event into one rolling hash (trace.py), and every action on the cluster into a
script, so that a run can be repeated exactly, or in part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from mpreg_proto.client import ClientSession
from mpreg_proto.effects import Framing
from mpreg_proto.ids import Address, RequestId
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.functions.execution import tags
from mpreg_transports.graph import Graph
from mpreg_transports.testing.simulation.calls import OwnRequest, SimCall, SimQuery
from mpreg_transports.testing.simulation.checks import (
    check_callable,
    check_function_name,
    check_host,
    check_kind,
    check_known,
    check_nodes,
    check_number,
    check_text,
    check_until,
    check_watchers,
    check_whole,
    describe,
    texts,
)
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded
from mpreg_transports.testing.simulation.determinism import forbid_nondeterminism
from mpreg_transports.testing.simulation.durations import SECOND, Duration, as_duration
from mpreg_transports.testing.simulation.engine import Engine
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import (
    SERVICE,
    ClientHost,
    DialingHost,
    Host,
    JsonClientHost,
    NodeHost,
    PostClientHost,
    Spec,
    address,
)
from mpreg_transports.testing.simulation.network import Network, Profile
from mpreg_transports.testing.simulation.specs import described, versions
from mpreg_transports.testing.simulation.trace import WORK, Action, Header, Trace, packed, unpacked
from mpreg_transports.testing.simulation.watchers import Watcher, names_of
from mpreg_transports.values import default_codec

OWN = 2_000_000
"""The label of the first request that a node's own process submits."""


class Faults(Protocol):
    """The faults of a run, such as a `Swarm`."""

    def draw(self, chooser: Chooser, nodes: Mapping[str, Spec]) -> tuple[dict[str, Any], str, list[Action]]:
        """Draw a run: its options as data and as text, and the script of its faults."""
        ...


class Simulation:
    """A simulated cluster, as the module describes.

    Links are byte streams, which `sim.link(...).set(rechunk=...)` cuts at random places. With `objects=True` they carry
    messages that are never encoded. `faults` are drawn from the seed before the run, and printed. `watchers` receive
    everything that happens.
    """

    options: dict[str, Any]
    """The drawn options of this run, for reports."""
    violation: str
    """The text of the violation, after one has occurred; saved with the trace."""

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: Mapping[str, Spec],
        faults: Faults | None = None,
        chooser: Chooser | None = None,
        objects: bool = False,
        watchers: Iterable[Watcher] = (),
        recording: bool = False,
    ) -> None:
        """Start all nodes. Raises TypeError or ValueError for an argument of the wrong kind."""
        check_nodes(nodes, Spec)
        if type(seed) is not int:
            raise TypeError(f"seed={seed!r:.60}: expected a whole number, got {type(seed).__name__}")
        if faults is not None and (isinstance(faults, type) or not hasattr(faults, "draw")):
            raise TypeError(f"faults: expected Swarm(...), got {describe(faults)}")
        if chooser is not None:
            check_kind("chooser", chooser, Chooser, "Chooser(Seeded(7))")
        for name, spec in nodes.items():
            for peer in spec.peers or ():
                if peer not in nodes and peer != SERVICE:
                    raise ValueError(f"node {name!r} joins {peer!r}, and there are only {', '.join(nodes)}")
        self.options, self.violation = {}, ""
        self._scenario = ""
        self._faulty = True
        self._labelled: dict[int, SimCall] = {}
        self._labelled_own: dict[int, OwnRequest] = {}
        self._engine = Engine(
            seed=seed,
            nodes=nodes,
            chooser=chooser,
            objects=objects,
            watchers=check_watchers(watchers, Watcher),
            recording=recording,
            describe=self._header,
        )
        if faults is not None:
            living = {name: _living(host) for name, host in self.nodes.items()}
            self.options, words, script = faults.draw(self.chooser, living)
            print(f"seed {seed}: {words}")
            self._play(script)

    # -- the state of the cluster -------------------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """The seed of all random choices."""
        return self._engine.seed

    @property
    def now(self) -> int:
        """The time since the start in nanoseconds."""
        return self._engine.now

    @property
    def time(self) -> float:
        """The time since the start in seconds."""
        return self._engine.time

    @property
    def nodes(self) -> dict[str, NodeHost]:
        """The machines of the nodes by name: `sim.nodes["front"].node.view(now=...)` is what a node sees."""
        return self._engine.nodes

    @property
    def clients(self) -> dict[str, ClientHost]:
        """The machines of the native clients by name."""
        return self._engine.clients

    @property
    def calls(self) -> list[SimCall]:
        """All requests so far, in the order in which they were sent."""
        return self._engine.calls

    @property
    def specs(self) -> dict[str, Spec]:
        """The nodes as they were given."""
        return self._engine.specs

    @property
    def network(self) -> Network:
        """The paths between the machines: profiles and cuts."""
        return self._engine.network

    @property
    def chooser(self) -> Chooser:
        """The source of all random choices; a test draws here too, each time under a name of its own."""
        return self._engine.chooser

    @property
    def trace(self) -> Trace:
        """The hash, the last events and the script of this run; `trace.save(file)` saves them for a replay."""
        return self._engine.trace

    # -- time ---------------------------------------------------------------------------------------------------------

    def run(
        self, seconds: float | None = None, *, until: Callable[[], bool] | None = None, limit: float | None = None
    ) -> bool:
        """Let time pass: for `seconds`, or until `until()` is true, for `limit` seconds at most (60 by default).

        Return whether `until()` became true.
        """
        check_until(until)
        for what, value in (("seconds", seconds), ("limit", limit)):
            if value is not None:
                check_number(what, value)
        return self._engine.run(seconds, until=until, limit=limit)

    def schedule(self, after: float, act: Callable[..., None], *args: Any) -> None:
        """Call `act(*args)` after this many seconds, before events of the same time that are scheduled later."""
        check_number("after", after)
        check_callable("act", act, "sim.crash")
        self._engine.schedule(after, act, *args)

    def sweep(self) -> None:
        """Let all watchers check the whole state."""
        self._engine.sweep()

    # -- actions on the cluster; each is recorded in the script -------------------------------------------------------

    def crash(self, name: str, *, silent: bool = False) -> None:
        """Kill the process of a node. With `silent` its machine fails, and no end of a stream is sent."""
        host = self._node(name)
        self._record("crash", name=name, silent=silent)
        if host.alive:
            self._engine.end_life(host, silent=silent)

    def vanish(self, client: str, *, silent: bool = False) -> None:
        """Kill a client's process and drop its requests. Its next request starts it again."""
        if client not in self._client_names:
            check_text("client", client)
            there = ", ".join(self._client_names) or "none yet; a client begins with its first request"
            raise ValueError(f"there is no client {client!r}; there are {there}")
        self._vanish(client, silent=silent)

    def crash_amid(self, name: str, *, effects: int) -> None:
        """Kill the process of a node in the middle of the effects of an input: after this many of them.

        That is the next input with more effects than these. Of a write that comes next, a part is sent.
        """
        host = self._node(name)
        check_whole("effects", effects)
        self._record("crash_amid", name=name, effects=effects)
        if host.alive:
            host.effects_left = effects

    def kill_link(self, one: str, other: str, *, which: int = 0) -> None:
        """Let a connection between two hosts die without a word, as when a router forgets it.

        Both ends believe that it is open. `which` chooses among several, in the order in which they were dialled. Does
        nothing if there is none.
        """
        for what, name in (("one", one), ("other", other)):
            check_host(what, name, self.nodes, self._client_names)
        check_whole("which", which)
        self._kill_link(one, other, which=which)

    def _kill_link(self, one: str, other: str, *, which: int) -> None:
        self._record("kill_link", one=one, other=other, which=which)
        self._engine.kill_wire(one, other, which)

    def _vanish(self, client: str, *, silent: bool) -> None:
        self._record("vanish", client=client, silent=silent)
        host = self._client(client)
        if host is not None and host.alive:
            for query in self._engine.queries:
                query.cancelled = query.cancelled or query.client == client
            for call in self.calls:
                if call.client == client and not call.done():
                    call.cancelled = True
            self._engine.end_life(host, silent=silent)

    def restart(self, name: str, *, after: float = 0.0) -> None:
        """Start the node again, as a new member at the same address with new functions. Crash it first if it runs."""
        host = self._node(name)
        check_number("after", after)
        if after:
            self.schedule(after, self.restart, name)
            return
        self._record("restart", name=name)
        if host.alive:
            self._engine.end_life(host, silent=False)
        with forbid_nondeterminism():
            host.start()
        self._engine.after(host)

    def leave(self, name: str) -> None:
        """Drain a node and let it leave in order, as after SIGTERM."""
        host = self._node(name)
        self._record("leave", name=name)
        if host.alive:
            host.node.leave(now=host.local)
            self._engine.after(host)

    def stall(self, name: str, seconds: float) -> None:
        """Stop the process of a node or client for this many seconds; what arrives waits.

        This simulates SIGSTOP, a long garbage collection, a swapping machine, or a laptop that sleeps.
        """
        check_host("name", name, self.nodes, self._client_names)
        check_number("seconds", seconds)
        self._stall(name, seconds)

    def _stall(self, name: str, seconds: float) -> None:
        self._record("stall", name=name, seconds=seconds)
        host: Host | None = self.nodes.get(name) or self._client(name)
        if host is not None:  # a shrunk script may not contain the client's first request
            host.stalled_until = max(host.stalled_until, self.now + round(seconds * SECOND))

    def skew(self, name: str, *, drift: float) -> None:
        """Let the machine's clock run faster by this fraction from now on, or slower: 1e-3 is 86 s a day."""
        host = self._node(name)
        check_number("drift", drift, least=-0.9, most=10)
        self._record("skew", name=name, drift=drift)
        host.clock.skew(drift, self.now)
        if host.alive:
            host.due = None  # its deadline is now another moment
            self._engine.after(host)

    def partition(self, one: Collection[str], other: Collection[str], *, oneway: bool = False) -> None:
        """Cut the paths from `one` to `other`, and back unless `oneway`.

        Connections stay open, and their data waits.
        """
        for what, side in (("one", one), ("other", other)):
            if isinstance(side, str):
                raise TypeError(f"{what}={side!r} is a bare text; write sim.partition([{one!r}], [{other!r}])")
            for name in texts(what, side):
                check_host(what, name, self.nodes, self._client_names)
        self._record("partition", one=sorted(one), other=sorted(other), oneway=oneway)
        for source in sorted(one):
            for target in sorted(other):
                self.network.cut(source, target)
                if not oneway:
                    self.network.cut(target, source)

    def heal(self) -> None:
        """Open all paths again; data that was held back is sent again."""
        self._record("heal")
        self._engine.heal_network()

    def clog(self, *, k: int, seconds: float = 5.0) -> None:
        """Cut `k` paths between nodes, each in one direction, for this many seconds."""
        check_whole("k", k, least=1)
        check_number("seconds", seconds)
        names = list(self.nodes)
        for _ in range(k if len(names) > 1 else 0):
            source = self.chooser.choice("clog", names)
            target = self.chooser.choice("clog", [name for name in names if name != source])
            self.partition([source], [target], oneway=True)
        self.schedule(seconds, self.heal)

    def link(self, source: str, target: str) -> LinkControl:
        """Return a control of both paths between two hosts: `sim.link("a", "b").set(delay=exponential(0.04))`."""
        for what, name in (("source", source), ("target", target)):
            check_host(what, name, self.nodes, self._client_names)
        return LinkControl(self, source, target)

    def set_link(self, source: str, target: str, profile: Profile) -> None:
        """Set the profile of the path from `source` to `target` from now on."""
        for what, name in (("source", source), ("target", target)):
            check_host(what, name, self.nodes, self._client_names)
        check_kind("profile", profile, Profile, "Profile(...); sim.link(a, b).set(...) makes one")
        self._record("set_link", source=source, target=target, profile=msgspec.to_builtins(profile))
        self.network.set(source, target, profile)

    def set_links(self, profile: Profile) -> None:
        """Set the profile of all paths that were not set by name, from now on."""
        check_kind("profile", profile, Profile, "Profile(...)")
        self._record("set_links", profile=msgspec.to_builtins(profile))
        self.network.default = profile

    def offer(self, name: str, function: str, fn: Any) -> None:
        """Register a function at a running node. The script records only its name: a replay needs it in the spec."""
        host = self._node(name)
        check_text("function", function)
        self._record("offer", name=name, function=function)
        offered = fn if isinstance(fn, Fn) else Fn(fn)
        if host.alive:
            host.offer(function, offered)
            self._engine.after(host)

    def withdraw(self, name: str, function: str) -> None:
        """Unregister a function of a node; its running bodies continue. Does nothing if it is withdrawn already."""
        host = self._node(name)
        if function not in host.offers:
            check_function_name(name, function)
            raise ValueError(f"{name} offers no {function!r}; it offers {', '.join(host.offers)}")
        self._record("withdraw", name=name, function=function)
        if host.alive and function in host.node.cluster.catalogue.offered:
            host.node.withdraw(function, now=host.local)
            self._engine.after(host)

    def set_resources(self, name: str, resources: Iterable[str]) -> None:
        """Replace the resources of a running node."""
        host = self._node(name)
        held = tuple(sorted(tags(resources)))
        self._record("set_resources", name=name, resources=list(held))
        if host.alive:
            host.node.set_resources(held, now=host.local)
            self._engine.after(host)

    def advertise(self, name: str, addresses: Iterable[str]) -> None:
        """Replace the addresses at which others may dial a running node.

        `sim://NAME` reaches the node NAME, and so does `sim://NAME/` with anything behind it.
        """
        host = self._node(name)
        said = texts("addresses", addresses)
        self._record("advertise", name=name, addresses=list(said))
        if host.alive:
            host.advertised += 1
            host.node.advertise(tuple(Address(one) for one in said), now=host.local)
            self._engine.after(host)

    def settle(self, seconds: float = 45.0) -> None:
        """Stop all faults, run for this many seconds, and check liveness.

        Without faults all paths are open, no link breaks and no node is stalled.
        """
        check_number("seconds", seconds)
        self.calm()
        self.run(seconds)
        self.judge()

    def calm(self) -> None:
        """Stop all faults."""
        self._record("calm")
        self._faulty = False
        self._engine.heal_all()

    def judge(self) -> None:
        """Check liveness, some time after the faults have stopped."""
        self._record("judge")
        self.sweep()
        for watcher in self._engine.observers.watchers:
            watcher.settled(self._engine)

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
        retry: bool = False,
        **more: Any,
    ) -> SimCall:
        """Call a function, which is given by its name, as a client of `node`."""
        self._node(node)
        check_function_name(node, function)
        if kwargs is not None:
            check_kind("kwargs", kwargs, Mapping, "a mapping")
        encoded = default_codec().encode([list(args), {**(kwargs or {}), **more}])
        call = Call(function, function, encoded, (), tuple(sorted(tags(resources))))
        request = Request(0, (call,), timeout=_ns("timeout", timeout), wait=_ns("wait", wait) or 0)
        return self.submit(node, request, client=client, retry=retry)

    def graph(self, node: str, graph: Graph, *, partial: bool = False, timeout: float | None = None) -> SimCall:
        """Send a graph of calls as a client of `node`."""
        self._node(node)
        check_kind("graph", graph, Graph, "a Graph (sim.call calls one function)")
        return self.submit(node, graph.request(partial=partial, timeout=_ns("timeout", timeout)))

    def submit(
        self,
        node: str,
        request: Request,
        *,
        client: str | None = None,
        label: int | None = None,
        retry: bool = False,
        stops_early: bool = False,
    ) -> SimCall:
        """Send a request as a client of `node`.

        Clients are created by name when they are needed; by default there is one for each node. `label` is the number
        of the request in the script; by default it is the number of requests before it. With `retry` it is sent again
        after a refusal. With `stops_early` the client may have enough of the items of a generator before its end.
        Raises ValueError for an unknown node, and nothing is sent.
        """
        self._node(node)
        check_kind("request", request, Request, "a Request, such as graph.request() returns")
        check_kind("retry", retry, bool, "True or False")
        if client is not None:
            check_text("client", client)
        client = client or f"client@{node}"
        label = len(self.calls) if label is None else label
        more = {"retry": True} if retry else {}
        more |= {"stops_early": True} if stops_early else {}
        self._record("submit", node=node, request=packed(request), client=client, label=label, **more)
        host = self._native_client(client, node, self._engine.framing)
        if not host.alive:
            host.start()
        number = host.session.submit(request, now=host.local, retry=retry)
        call = SimCall(client, number, request, sent=self.now, codec=default_codec(), label=label, retry=retry)
        call.stops_early = stops_early
        self.calls.append(call)
        self._labelled[label] = call
        self._engine.waiting_calls[client, host.life, number] = call
        for hook in self._engine.observers.hooks("submitted"):
            hook(call)
        if not host.session.ready:
            host.connect()
        self._engine.after(host)
        return call

    def submit_own(self, node: str, request: Request, *, label: int | None = None) -> OwnRequest | None:
        """Submit a request as the process of a node itself does (`Node.submit`). Return None if it does not run."""
        host = self._node(node)
        check_kind("request", request, Request, "a Request, such as graph.request() returns")
        engine = self._engine
        label = OWN + len(engine.own_requests) if label is None else label
        self._record("submit_own", node=node, request=packed(request), label=label)
        if not host.alive:
            return None
        number = host.node.submit(request, now=host.local)
        own = OwnRequest(node, host.life, number, request, sent=self.now, label=label)
        engine.own_requests.append(own)
        engine.waiting_own[node, host.life, number] = self._labelled_own[label] = own
        for hook in engine.observers.hooks("own_submitted"):
            hook(own)
        engine.after(host)
        return own

    def cancel_own(self, own: OwnRequest) -> None:
        """Cancel a request of a node's own process (`Node.cancel`). It still gets a result."""
        check_kind("own", own, OwnRequest, "what sim.submit_own returned")
        self._record("cancel_own", label=own.label)
        host = self.nodes[own.node]
        if host.alive and host.life == own.life:
            host.node.cancel(RequestId(own.number), now=host.local)
            self._engine.after(host)

    def query(self, node: str, request: Request | None = None, *, client: str | None = None) -> SimQuery:
        """Ask a node for its view, or where it would run the calls of a request."""
        self._node(node)
        if request is not None:
            check_kind("request", request, Request, "a Request, such as graph.request() returns")
        if client is not None:
            check_text("client", client)
        client = client or f"client@{node}"
        self._record("query", node=node, client=client, request=None if request is None else packed(request))
        if request is None:
            return self._ask(client, node, lambda session, now: session.get_view(now=now))
        return self._ask(client, node, lambda session, now: session.explain(request, now=now), request)

    def drain(self, name: str, *, node: str, client: str | None = None) -> SimQuery:
        """Command as a client of `node` that the node `name`, maybe another one, leaves: `mpreg drain`."""
        self._node(name)
        self._node(node)
        if client is not None:
            check_text("client", client)
        client = client or f"client@{node}"
        self._record("drain", name=name, node=node, client=client)
        target = str(address(name))
        return self._ask(client, node, lambda session, now: session.drain_node(target, now=now), drained=name)

    def _ask(
        self,
        client: str,
        node: str,
        ask: Callable[[ClientSession, int], int],
        request: Request | None = None,
        *,
        drained: str = "",
    ) -> SimQuery:
        engine = self._engine
        host = self._native_client(client, node, engine.framing)
        if not host.alive:
            host.start()
        session = host.session
        number = ask(session, host.local)
        query = SimQuery(client, number, request, sent=self.now, drained=drained)
        engine.queries.append(query)
        engine.waiting_queries[client, host.life, number] = query
        for hook in engine.observers.hooks("queried"):
            hook(query)
        if not session.ready:
            host.connect()
        engine.after(host)
        return query

    def add_client(self, client: str, node: str, *, framing: Framing) -> None:
        """Create a native client of `node` whose link has another framing than the simulation.

        With `Framing.NATIVE_MESSAGES` the link is like a WebSocket: each message arrives whole. Requests use the client
        by its name. Raises ValueError for an unknown node, or if the client exists already.
        """
        self._node(node)
        check_text("client", client)
        check_kind("framing", framing, Framing, "one of Framing")
        if client in self.clients:
            raise ValueError(f"the client {client!r} exists already; add it before its first request")
        self._record("add_client", client=client, node=node, framing=framing.value)
        self._native_client(client, node, framing)

    def json_client(self, node: str, *, client: str | None = None) -> JsonClient:
        """Return a client of `node` that uses only the classic JSON dialect; by default there is one for each node.

        Raises ValueError for an unknown node.
        """
        self._node(node)
        if client is not None:
            check_text("client", client)
        client = client or f"json@{node}"
        hosts = self._engine.json_clients
        host = hosts.get(client)
        if host is None:
            host = hosts[client] = JsonClientHost(self._engine, client, 2000 + len(hosts), node)
        return JsonClient(self, host)

    def _send_json(self, client: str, node: str, text: str) -> None:
        """Send a text as a JSON client of `node`, which is created when it is needed."""
        host = self.json_client(node, client=client).host
        self._record("send_json", client=client, node=node, text=text)
        if not host.alive:
            host.start()
        host.submit(text)
        self._engine.after(host)

    def post(self, node: str, text: str, *, client: str | None = None, patience: float | None = None) -> JsonClient:
        """Send a JSON text as `POST /rpc` does: on a link of its own, which is closed after the answer.

        `patience` is the number of seconds after which the client closes the link without an answer. One client sends
        one text after the other.
        """
        self._node(node)
        check_kind("text", text, str, "a JSON text")
        client = client or f"post@{node}"
        hosts = self._engine.json_clients
        self._record("post", node=node, text=text, client=client, patience=patience)
        host = hosts.get(client)
        if host is None:
            host = hosts[client] = PostClientHost(self._engine, client, 2000 + len(hosts), node)
        if not isinstance(host, PostClientHost):
            raise ValueError(f"{client!r} is a client that keeps its link; take another name")
        if not host.alive:
            host.start()
        host.patience = _ns("patience", patience)
        host.submit(text)
        self._engine.after(host)
        return JsonClient(self, host)

    def cancel(self, call: SimCall) -> None:
        """Cancel a request at its client."""
        check_kind("call", call, SimCall, "what sim.call returned")
        if self._labelled.get(call.label) is not call:
            raise ValueError("this call belongs to another simulation")
        self._record("cancel", label=call.label)
        host = self.clients[call.client]
        if not call.done():
            call.cancelled = True
            host.session.cancel(call.number, now=host.local)
            self._engine.after(host)

    # -- saved runs and scripts ---------------------------------------------------------------------------------------

    def _header(self) -> Header:
        """Return the header of a saved trace of this simulation. Raises ValueError if its draws were not recorded."""
        seeded = isinstance(self.chooser.source, Seeded)
        if not seeded and not self.chooser.recording:
            raise ValueError("draws that come from no seed must be recorded: Chooser(..., record=True)")
        return Header(
            seed=self.seed,
            scenario=self._scenario,
            options=self.options,
            nodes=described(self.specs),
            objects=self._engine.framing is Framing.OBJECTS,
            invariants=bool(self._engine.observers.watchers),
            watchers=names_of(self._engine.observers.watchers),
            violation=self.violation,
            tape=None if seeded else self.chooser.tape,
            hash=self.trace.hash,
            events=self.trace.events,
            steps=self._engine.steps,
            at=self.now,
            versions=versions(),
        )

    def _play(self, script: Iterable[Action], *, later: bool = False) -> None:
        """Schedule the actions at their times. After `calm` only requests are performed, unless it is the later part.

        That part is of single faults in a cluster that has settled.
        """
        for action in script:
            self._engine.push(max(self.now, action.at), self._engine.act, self._played, (action, later))

    def _played(self, action: Action, later: bool) -> None:
        """Perform an action at its time. A stalled process submits nothing."""
        caller: Host | None = self._client(action.args.get("client", ""))
        if action.name == "submit_own":
            caller = self.nodes[action.args["node"]]
        if caller is not None and caller.stalled_until > self.now:
            return
        if self._faulty or later or action.name in WORK:
            self._perform(action.name, action.args)

    def _perform(self, name: str, args: Mapping[str, Any]) -> None:
        """Perform an action of a script."""
        match name:
            case "submit":
                request = unpacked(args["request"])
                more = {"client": args["client"], "label": args["label"], "retry": args.get("retry", False)}
                self.submit(args["node"], request, stops_early=args.get("stops_early", False), **more)
            case "cancel":
                if args["label"] in self._labelled:  # a shrunk script may not contain it
                    self.cancel(self._labelled[args["label"]])
            case "submit_own":
                self.submit_own(args["node"], unpacked(args["request"]), label=args["label"])
            case "cancel_own":
                if args["label"] in self._labelled_own:
                    self.cancel_own(self._labelled_own[args["label"]])
            case "query":
                request = args["request"]
                self.query(args["node"], None if request is None else unpacked(request), client=args["client"])
            case "add_client":
                self.add_client(args["client"], args["node"], framing=Framing(args["framing"]))
            case "partition":
                self.partition(args["one"], args["other"], oneway=args["oneway"])
            case "set_link":
                profile = msgspec.convert(args["profile"], Profile)
                self.set_link(args["source"], args["target"], profile)
            case "offer":
                self.offer(args["name"], args["function"], self._known_function(args["name"], args["function"]))
            case "set_links":
                self.set_links(msgspec.convert(args["profile"], Profile))
            case "crash" | "crash_amid" | "restart" | "leave" | "skew" | "heal" | "withdraw" | "calm" | "judge":
                getattr(self, name)(**args)
            case "post" | "set_resources" | "advertise" | "drain":
                getattr(self, name)(**args)
            case "vanish" | "send_json" | "stall" | "kill_link":
                getattr(self, f"_{name}")(**args)
            case _:
                raise ValueError(f"unknown action {name!r} in a script")

    def _record(self, action: str, /, **args: Any) -> None:
        self._engine.record_action(action, args)

    def _node(self, name: str) -> NodeHost:
        """Return a node. Raises TypeError or ValueError for a name that is none."""
        check_known("node", name, self.nodes)
        return self.nodes[name]

    def _client(self, name: str) -> DialingHost | None:
        return self.clients.get(name) or self._engine.json_clients.get(name)

    @property
    def _client_names(self) -> list[str]:
        return [*self.clients, *self._engine.json_clients]

    def _known_function(self, node: str, function: str) -> Fn:
        known = self._node(node).functions
        if function not in known:
            raise ValueError(
                f"{node} has no function {function!r} to offer, only {', '.join(known) or 'none'}: a script refers to "
                "the functions of the spec"
            )
        return known[function]

    def _native_client(self, client: str, node: str, framing: Framing) -> ClientHost:
        host = self.clients.get(client)
        if host is None:
            host = self.clients[client] = ClientHost(self._engine, client, 1000 + len(self.clients), node, framing)
        return host


class JsonClient:
    """The control of a client that uses only JSON (docs/howto/call-from-json.md): `send` texts, read `answers`."""

    def __init__(self, sim: Simulation, host: JsonClientHost) -> None:
        self.host = host
        self._sim = sim

    @property
    def answers(self) -> list[Any]:
        """The decoded messages that the client has received so far, in the order of their arrival."""
        return self.host.answers

    def send(self, message: object) -> None:
        """Send one message as JSON; a text is sent unchanged."""
        text = message if isinstance(message, str) else json.dumps(message)
        self._sim._send_json(self.host.name, self.host.node, text)


class LinkControl:
    """The control of both paths between two hosts."""

    def __init__(self, sim: Simulation, source: str, target: str) -> None:
        self._sim = sim
        self._ends = (source, target)

    def set(
        self,
        *,
        delay: float | Duration | None = None,
        bandwidth: int | None = None,
        reset: float | None = None,
        rechunk: float | None = None,
        hangs: float | None = None,
    ) -> None:
        """Change the given values in both directions; `delay` in seconds, `bandwidth` in bytes per second."""
        if bandwidth is not None:
            check_whole("bandwidth", bandwidth)
        for what, share in (("reset", reset), ("rechunk", rechunk), ("hangs", hangs)):
            if share is not None:
                check_number(what, share, most=1)
        for source, target in (self._ends, self._ends[::-1]):
            profile = self._sim.network.profile(source, target)
            self._sim.set_link(
                source,
                target,
                Profile(
                    delay=profile.delay if delay is None else as_duration(delay),
                    bandwidth=profile.bandwidth if bandwidth is None else bandwidth,
                    reset=profile.reset if reset is None else reset,
                    rechunk=profile.rechunk if rechunk is None else rechunk,
                    hangs=profile.hangs if hangs is None else hangs,
                ),
            )


def _living(host: NodeHost) -> Spec:
    """Return the spec of a node with the functions of its present life, so that no factory is called once more."""
    return msgspec.structs.replace(host.spec, functions=host.functions)


def _ns(what: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    check_number(what, seconds)
    return round(seconds * SECOND)


__all__ = ["JsonClient", "LinkControl", "Simulation", "address"]
