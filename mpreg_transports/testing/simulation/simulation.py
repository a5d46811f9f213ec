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
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from mpreg_proto.effects import Framing
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.functions.execution import tags
from mpreg_transports.graph import Graph
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded
from mpreg_transports.testing.simulation.determinism import forbid_nondeterminism
from mpreg_transports.testing.simulation.durations import SECOND, Duration, as_duration
from mpreg_transports.testing.simulation.engine import Engine
from mpreg_transports.testing.simulation.functions import Fn, function_table
from mpreg_transports.testing.simulation.hosts import ClientHost, DialingHost, JsonClientHost, Spec, address
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.specs import described, versions
from mpreg_transports.testing.simulation.trace import Action, Header, packed, unpacked
from mpreg_transports.testing.simulation.watchers import Watcher
from mpreg_transports.values import default_codec


class Faults(Protocol):
    """The faults of a run, such as a `Swarm`."""

    def draw(self, chooser: Chooser, nodes: Mapping[str, Spec]) -> tuple[dict[str, Any], str, list[Action]]:
        """Draw a run: its options as data and as text, and the script of its faults."""
        ...


class Simulation(Engine):
    """A simulated cluster, as the module describes. See `Engine` for its arguments.

    `faults` are drawn from the seed before the run, and printed.
    """

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
        super().__init__(
            seed=seed, nodes=nodes, chooser=chooser, objects=objects, watchers=watchers, recording=recording
        )
        self.scenario = ""
        self.options: dict[str, Any] = {}
        """The drawn options of this run, for reports."""
        self.violation = ""
        """The text of the violation, after one has occurred; saved with the trace."""
        self._faulty = True
        self._labelled: dict[int, SimCall] = {}
        if faults is not None:
            self.options, words, script = faults.draw(self.chooser, nodes)
            print(f"seed {seed}: {words}")
            self.play(script)

    def header(self) -> Header:
        """Return the header of a saved trace of this simulation. Raises ValueError if its draws were not recorded."""
        seeded = isinstance(self.chooser.source, Seeded)
        if not seeded and not self.chooser.recording:
            raise ValueError("draws that come from no seed must be recorded: Chooser(..., record=True)")
        return Header(
            seed=self.seed,
            scenario=self.scenario,
            options=self.options,
            nodes=described(self.specs),
            objects=self.framing is Framing.OBJECTS,
            invariants=bool(self.observers.watchers),
            violation=self.violation,
            tape=None if seeded else self.chooser.tape,
            hash=self.trace.hash,
            events=self.trace.events,
            steps=self.steps,
            at=self.now,
            versions=versions(),
        )

    def play(self, script: Iterable[Action]) -> None:
        """Schedule the actions at their times. After `calm` they are not performed."""
        for action in script:
            self._push(max(self.now, action.at), self._act, self._played, (action,))

    def _played(self, action: Action) -> None:
        if self._faulty:
            self.perform(action.name, action.args)

    # -- actions on the cluster; each is recorded in the script -------------------------------------------------------

    def crash(self, name: str, *, silent: bool = False) -> None:
        """Kill the process. With `silent` the machine fails, and no end of a stream is sent."""
        self._record_action("crash", {"name": name, "silent": silent})
        host = self.nodes[name]
        if host.alive:
            self._end_life(host, silent=silent)

    def vanish(self, client: str, *, silent: bool = False) -> None:
        """Kill a client's process and drop its requests. Its next request starts it again."""
        self._record_action("vanish", {"client": client, "silent": silent})
        host: DialingHost | None = self.clients.get(client) or self.json_clients.get(client)
        if host is not None and host.alive:
            for call in self.calls:
                if call.client == client and not call.done():
                    call.cancelled = True
            self._end_life(host, silent=silent)

    def restart(self, name: str, *, after: float = 0.0) -> None:
        """Start the node again, as a new member at the same address. Crash it first if it runs."""
        if after:
            self.schedule(after, self.restart, name)
            return
        self._record_action("restart", {"name": name})
        host = self.nodes[name]
        if host.alive:
            self._end_life(host, silent=False)
        with forbid_nondeterminism():
            host.start()
        self._after(host)

    def leave(self, name: str) -> None:
        """Drain a node and let it leave in order, as after SIGTERM."""
        self._record_action("leave", {"name": name})
        host = self.nodes[name]
        if host.alive:
            host.node.leave(now=host.local)
            self._after(host)

    def stall(self, name: str, seconds: float) -> None:
        """Stop the process for this many seconds; what arrives waits.

        This simulates SIGSTOP, a long garbage collection or a swapping machine.
        """
        self._record_action("stall", {"name": name, "seconds": seconds})
        host = self.nodes[name]
        host.stalled_until = max(host.stalled_until, self.now + round(seconds * SECOND))

    def skew(self, name: str, *, drift: float) -> None:
        """Let the machine's clock run faster by this fraction from now on."""
        self._record_action("skew", {"name": name, "drift": drift})
        host = self.nodes[name]
        host.clock.skew(drift, self.now)
        if host.alive:
            host.due = None  # its deadline is now another moment
            self._after(host)

    def partition(self, one: Collection[str], other: Collection[str], *, oneway: bool = False) -> None:
        """Cut the paths from `one` to `other`, and back unless `oneway`.

        Connections stay open, and their data waits.
        """
        self._record_action("partition", {"one": sorted(one), "other": sorted(other), "oneway": oneway})
        for source in sorted(one):
            for target in sorted(other):
                self.network.cut(source, target)
                if not oneway:
                    self.network.cut(target, source)

    def heal(self) -> None:
        """Open all paths again; data that was held back is sent again."""
        self._record_action("heal", {})
        self._heal_network()

    def clog(self, *, k: int, seconds: float = 5.0) -> None:
        """Cut `k` paths between nodes, each in one direction, for this many seconds."""
        names = list(self.nodes)
        for _ in range(k if len(names) > 1 else 0):
            source = self.chooser.choice("clog", names)
            target = self.chooser.choice("clog", [name for name in names if name != source])
            self.partition([source], [target], oneway=True)
        self.schedule(seconds, self.heal)

    def link(self, source: str, target: str) -> LinkControl:
        """Return a control of both paths between two hosts: `sim.link("a", "b").set(delay=exponential(0.04))`."""
        return LinkControl(self, source, target)

    def set_link(self, source: str, target: str, profile: Profile) -> None:
        """Set the profile of the path from `source` to `target` from now on."""
        self._record_action("set_link", {"source": source, "target": target, "profile": msgspec.to_builtins(profile)})
        self.network.set(source, target, profile)

    def set_links(self, profile: Profile) -> None:
        """Set the profile of all paths that were not set by name, from now on."""
        self._record_action("set_links", {"profile": msgspec.to_builtins(profile)})
        self.network.default = profile

    def offer(self, name: str, function: str, fn: Any) -> None:
        """Register a function at a running node. The script records only its name: a replay needs it in the spec."""
        self._record_action("offer", {"name": name, "function": function})
        host = self.nodes[name]
        if host.alive:
            host.offers.update(function_table({function: fn if isinstance(fn, Fn) else Fn(fn)}))
            host.node.offer(host.offers[function][0].spec, now=host.local)
            self._after(host)

    def withdraw(self, name: str, function: str) -> None:
        """Unregister a function at a running node that offers it; its running bodies continue."""
        self._record_action("withdraw", {"name": name, "function": function})
        host = self.nodes[name]
        if host.alive and function in host.node.cluster.catalogue.offered:
            host.node.withdraw(function, now=host.local)
            self._after(host)

    def settle(self, seconds: float = 45.0) -> None:
        """Stop all faults, run for this many seconds, and check liveness.

        Without faults all paths are open, no link breaks and no node is stalled.
        """
        self.calm()
        self.run(seconds)
        self.judge()

    def calm(self) -> None:
        """Stop all faults."""
        self._record_action("calm", {})
        self._faulty = False
        self._heal_all()

    def judge(self) -> None:
        """Check liveness, some time after the faults have stopped."""
        self._record_action("judge", {})
        self.sweep()
        for watcher in self.observers.watchers:
            watcher.settled(self)

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
        """Call a function as a client of `node`."""
        encoded = default_codec().encode([list(args), {**(kwargs or {}), **more}])
        call = Call(function, function, encoded, (), tuple(sorted(tags(resources))))
        request = Request(0, (call,), timeout=_ns(timeout), wait=_ns(wait) or 0)
        return self.submit(node, request, client=client)

    def graph(self, node: str, graph: Graph, *, partial: bool = False, timeout: float | None = None) -> SimCall:
        """Send a graph of calls as a client of `node`."""
        return self.submit(node, graph.request(partial=partial, timeout=_ns(timeout)))

    def submit(self, node: str, request: Request, *, client: str | None = None, label: int | None = None) -> SimCall:
        """Send a request as a client of `node`.

        Clients are created by name when they are needed; by default there is one for each node. `label` is the number
        of the request in the script; by default it is the number of requests before it. Raises ValueError for an
        unknown node, and nothing is sent.
        """
        self._check_node(node)
        client = client or f"client@{node}"
        label = len(self.calls) if label is None else label
        self._record_action("submit", {"node": node, "request": packed(request), "client": client, "label": label})
        host = self._native_client(client, node, self.framing)
        if not host.alive:
            host.start()
        number = host.session.submit(request, now=host.local)
        call = SimCall(client, number, request, sent=self.now, codec=default_codec(), label=label)
        self.calls.append(call)
        self._labelled[label] = call
        self._waiting[client, host.life, number] = call
        for hook in self.observers.hooks("submitted"):
            hook(call)
        if not host.session.ready:
            host.connect()
        self._after(host)
        return call

    def add_client(self, client: str, node: str, *, framing: Framing) -> None:
        """Create a native client of `node` whose link has another framing than the simulation.

        With `Framing.NATIVE_MESSAGES` the link is like a WebSocket: each message arrives whole. Requests use the client
        by its name. Raises ValueError for an unknown node, or if the client exists already.
        """
        self._check_node(node)
        if client in self.clients:
            raise ValueError(f"the client {client!r} exists already; add it before its first request")
        self._record_action("add_client", {"client": client, "node": node, "framing": framing.value})
        self._native_client(client, node, framing)

    def json_client(self, node: str, *, client: str | None = None) -> JsonClient:
        """Return a client of `node` that uses only the classic JSON dialect; by default there is one for each node.

        Raises ValueError for an unknown node.
        """
        self._check_node(node)
        client = client or f"json@{node}"
        host = self.json_clients.get(client)
        if host is None:
            host = self.json_clients[client] = JsonClientHost(self, client, 2000 + len(self.json_clients), node)
        return JsonClient(self, host)

    def send_json(self, client: str, node: str, text: str) -> None:
        """Send a text as a JSON client of `node`, which is created when it is needed."""
        host = self.json_client(node, client=client).host
        self._record_action("send_json", {"client": client, "node": node, "text": text})
        if not host.alive:
            host.start()
        host.submit(text)
        self._after(host)

    def cancel(self, call: SimCall) -> None:
        """Cancel a request at its client."""
        self._record_action("cancel", {"label": call.label})
        host = self.clients[call.client]
        if not call.done():
            call.cancelled = True
            host.session.cancel(call.number, now=host.local)
            self._after(host)

    def perform(self, name: str, args: Mapping[str, Any]) -> None:
        """Perform an action of a script."""
        match name:
            case "submit":
                self.submit(args["node"], unpacked(args["request"]), client=args["client"], label=args["label"])
            case "cancel":
                if args["label"] in self._labelled:  # a shrunk script may not contain it
                    self.cancel(self._labelled[args["label"]])
            case "add_client":
                self.add_client(args["client"], args["node"], framing=Framing(args["framing"]))
            case "partition":
                self.partition(args["one"], args["other"], oneway=args["oneway"])
            case "set_link":
                profile = msgspec.convert(args["profile"], Profile)
                self.set_link(args["source"], args["target"], profile)
            case "offer":
                fn = self.specs[args["name"]].functions[args["function"]]
                self.offer(args["name"], args["function"], fn)
            case "set_links":
                self.set_links(msgspec.convert(args["profile"], Profile))
            case "crash" | "restart" | "leave" | "stall" | "skew" | "heal" | "withdraw" | "vanish" | "calm" | "judge":
                getattr(self, name)(**args)
            case "send_json":
                self.send_json(**args)
            case _:
                raise ValueError(f"unknown action {name!r} in a script")

    def _check_node(self, name: str) -> None:
        if name not in self.nodes:
            raise ValueError(f"there is no node {name!r}; there are {', '.join(self.nodes)}")

    def _native_client(self, client: str, node: str, framing: Framing) -> ClientHost:
        host = self.clients.get(client)
        if host is None:
            host = self.clients[client] = ClientHost(self, client, 1000 + len(self.clients), node, framing)
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
        self._sim.send_json(self.host.name, self.host.node, text)


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
    ) -> None:
        """Change the given values in both directions; `delay` in seconds, `bandwidth` in bytes per second."""
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
                ),
            )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)


__all__ = ["JsonClient", "LinkControl", "Simulation", "address"]
