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
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from mpreg_proto.wire.dialects import encode as encode_message
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.functions import tags
from mpreg_transports.graph import Graph
from mpreg_transports.testing.bodies import Fn, bodies
from mpreg_transports.testing.calls import SimCall
from mpreg_transports.testing.determinism import watching
from mpreg_transports.testing.engine import CallKey, Engine
from mpreg_transports.testing.hosts import ClientHost, address
from mpreg_transports.testing.network import Profile
from mpreg_transports.testing.spans import SECOND, Span, span
from mpreg_transports.values import default_codec


class Simulation(Engine):
    """See the module, and `Engine` for its arguments."""

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

    def settle(self, seconds: float = 45.0) -> None:
        """Faults stop: ways are open, links sound, nobody stalls; after this time liveness must hold."""
        self._did("settle", {"seconds": seconds})
        self._heal_all()
        self.run(seconds)
        self.sweep()
        for watcher in self._watchers:
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
