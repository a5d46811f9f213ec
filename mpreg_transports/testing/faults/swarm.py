"""Swarm testing (Groce and others, ISSTA 2012): each seed first draws which faults there are at all and how many, then
a script of faults, up front, so that it can be saved and shrunk.

A run without any faults and a run where something breaks every third second find other defects than the mean of the
two. A script is a list of actions by time (trace.py), as `Simulation.play` does them; nothing here knows a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mpreg_transports.graph import Graph
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.durations import SECOND, constant, exponential
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.trace import Action, packed

LEVELS = (0.0, 0.02, 0.1, 0.3)
"""Chances, one of which a run draws, that in a given second a fault begins."""


_ASKED = 1_000_000
"""The label of the first request that a fault submits; those of the workload are counted from 0."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a seed has drawn for its run."""

    level: float = 0.0
    kinds: tuple[str, ...] = ()
    """The faults there are."""
    links: Profile = Profile()
    """How all ways behave from the start."""
    joins: str = "first"
    """Whom nodes join: the first, each the one before it (chain), or all."""
    rate: float = 4.0
    """Requests a second of the standard workload, where that is used."""
    hot: float = 0.0

    def describe(self) -> str:
        """On one line."""
        faults = f"{self.level:.0%} a second of {', '.join(self.kinds)}" if self.kinds else "none"
        links = f"delay {self.links.delay.kind} {max(self.links.delay.low, self.links.delay.high) / 1e6:g} ms"
        for name, value in (("reset", self.links.reset), ("rechunk", self.links.rechunk)):
            links += f", {name} {value:g}" if value else ""
        links += f", {self.links.bandwidth} B/s" if self.links.bandwidth else ""
        return f"faults {faults}; links {links}; joins {self.joins}; {self.rate:g} requests/s"


class Swarm(msgspec.Struct, frozen=True, kw_only=True):
    """Faults drawn from a seed, over so many simulated seconds; of all kinds, or of those named."""

    seconds: float = 60.0
    kinds: tuple[str, ...] = ()
    level: float | None = None
    """None: drawn, one of `LEVELS`."""

    def options(self, chooser: Chooser) -> Options:
        """What this run is like."""
        level = chooser.choice("swarm level", LEVELS) if self.level is None else self.level
        known = self.kinds or tuple(FAULTS)
        for kind in known:
            if kind not in FAULTS:
                raise ValueError(f"there is no fault {kind!r}; there are {', '.join(FAULTS)}")
        kinds = tuple(kind for kind in known if chooser.chance("swarm kind", 0.4)) or known[:1]
        return Options(
            level=level,
            kinds=kinds if level else (),
            links=_links(chooser, "swarm links", sound=level == 0),
            joins=chooser.choice("swarm joins", ("first", "first", "chain", "all")),
            rate=chooser.choice("swarm rate", (1.0, 4.0, 8.0, 16.0)),
            hot=chooser.choice("swarm hot", (0.0, 0.0, 0.6)),
        )

    def draw(self, chooser: Chooser, nodes: Mapping[str, Spec]) -> tuple[dict[str, Any], str, list[Action]]:
        """What a run is like, as data and in words; and all faults, see `script`."""
        options = self.options(chooser)
        return msgspec.to_builtins(options), options.describe(), self.script(chooser, options, nodes)

    def script(self, chooser: Chooser, options: Options, nodes: Mapping[str, Spec]) -> list[Action]:
        """All faults, in the order of their times; what begins ends before `seconds` are over, or stays so."""
        drawing = Drawing(chooser, nodes, self.seconds)
        drawing.add(0.0, "set_links", profile=msgspec.to_builtins(options.links))
        for second in range(int(self.seconds) if options.kinds else 0):
            if chooser.chance("swarm fault", options.level):
                at = second + chooser.fraction("swarm moment")
                FAULTS[chooser.choice("swarm which", options.kinds)](drawing, at)
        if options.joins != "all":
            drawing.revive()
        return drawing.done()


class Drawing:
    """A script in the making."""

    def __init__(self, chooser: Chooser, nodes: Mapping[str, Spec], seconds: float) -> None:
        self.chooser = chooser
        self.nodes = nodes
        self.names = list(nodes)
        self.seconds = seconds
        self._script: list[Action] = []
        self._asked = 0

    def add(self, at: float, name: str, /, **args: Any) -> None:
        """Something happens at `at` seconds, before the end at the latest."""
        self._script.append(Action(round(min(at, self.seconds) * SECOND), name, args))

    def submit(self, at: float, function: str, *args: Any, node: str, client: str, wait: float = 0.0) -> None:
        """A client of `node` calls a function with a timeout of 60 s; nothing happens if no node offers it."""
        if any(function in spec.functions for spec in self.nodes.values()):
            graph = Graph()
            graph.call(function, *args)
            request = packed(graph.request(timeout=60 * SECOND, wait=round(wait * SECOND)))
            self.add(at, "submit", node=node, request=request, client=client, label=_ASKED + self._asked)
            self._asked += 1

    def name(self, purpose: str = "swarm node") -> str:
        """Any node."""
        return self.chooser.choice(purpose, self.names)

    def pair(self) -> tuple[str, str]:
        """Two nodes; there must be more than one."""
        one = self.name()
        return one, self.chooser.choice("swarm node", [name for name in self.names if name != one])

    def between(self, least: float, most: float) -> float:
        """Any length of time, in seconds."""
        return least + self.chooser.fraction("swarm span") * (most - least)

    def split(self) -> tuple[list[str], list[str]]:
        """Two sides, none of them empty unless there is but one node."""
        one = [name for name in self.names if self.chooser.chance("swarm side", 0.5)] or self.names[:1]
        if len(one) == len(self.names):
            one = one[1:]
        return one, [name for name in self.names if name not in one]

    def revive(self) -> None:
        """Start again what would stay down: a node that knows but one other can only find the cluster through that."""
        down: dict[str, None] = {}
        for action in self.done():
            if action.name in ("crash", "leave"):
                down[action.args["name"]] = None
            elif action.name == "restart":
                down.pop(action.args["name"], None)
        for name in down:
            self.add(self.seconds, "restart", name=name)

    def done(self) -> list[Action]:
        """In the order of their times; what was added first goes first."""
        return sorted(self._script, key=lambda action: action.at)


# -- faults: each adds what it does and, mostly, its end --------------------------------------------------------------


def crash(drawing: Drawing, at: float) -> None:
    """The process dies; mostly it is started again."""
    _down(drawing, at, silent=False)


def silent_crash(drawing: Drawing, at: float) -> None:
    """The machine is gone; nobody is told."""
    _down(drawing, at, silent=True)


def _down(drawing: Drawing, at: float, *, silent: bool) -> None:
    name = drawing.name()
    drawing.add(at, "crash", name=name, silent=silent)
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(0.1, 12), "restart", name=name)


def restart(drawing: Drawing, at: float) -> None:
    """The process is replaced at once."""
    drawing.add(at, "restart", name=drawing.name())


def leave(drawing: Drawing, at: float) -> None:
    """A node is told to go, and mostly comes back as a new one."""
    name = drawing.name()
    drawing.add(at, "leave", name=name)
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(0.5, 15), "restart", name=name)


def stall(drawing: Drawing, at: float) -> None:
    """A process stands still."""
    seconds = min(drawing.between(0.05, 8), max(0.0, drawing.seconds - at))
    drawing.add(at, "stall", name=drawing.name(), seconds=seconds)


def pause(drawing: Drawing, at: float) -> None:
    """A process stands still for some seconds: a collection, a body that blocks the event loop."""
    seconds = min(drawing.between(1, 5), max(0.0, drawing.seconds - at))
    drawing.add(at, "stall", name=drawing.name(), seconds=seconds)


def meet(drawing: Drawing, at: float) -> None:
    """Two nodes start at one moment and may dial each other, with long calls on the first link that stands."""
    if len(drawing.names) > 1:
        pair = drawing.pair()
        for name in pair:
            drawing.add(at, "restart", name=name)
        near = msgspec.to_builtins(Profile(delay=constant(1e-5)))  # so that calls are there before the second link
        for name in pair:
            client = f"{at:.3f}@{name}"
            for one, other in ((client, name), (name, client)):
                drawing.add(at, "set_link", source=one, target=other, profile=near)
            for number in range(6):
                drawing.submit(at + drawing.between(0, 0.6), "haul", number, node=name, client=client, wait=10)


def narrow(drawing: Drawing, at: float) -> None:
    """A way of two nodes, or of a node and a client, is narrow, and long results and arguments wait to leave on it."""
    if len(drawing.names) > 1:
        source, target = drawing.pair()
        if drawing.chooser.chance("swarm client", 0.3):
            target = f"a@{source}"
        slow = Profile(bandwidth=20_000 + drawing.chooser.below("swarm bandwidth", 60_000))
        until = at + drawing.between(5, 25)
        for one, other in ((source, target), (target, source)):
            drawing.add(at, "set_link", source=one, target=other, profile=msgspec.to_builtins(slow))
            drawing.add(until, "set_link", source=one, target=other, profile=msgspec.to_builtins(Profile()))
        for _ in range(1 + drawing.chooser.below("swarm bulks", 4)):
            function, value = drawing.chooser.choice("swarm bulk", (("bulk", 7), ("add", bytes(300_000))))
            drawing.submit(at + drawing.between(0, 4), function, value, node=source, client=f"a@{source}")


def skew(drawing: Drawing, at: float) -> None:
    """A clock begins to run faster or slower, up to 0.1 %."""
    drawing.add(at, "skew", name=drawing.name(), drift=drawing.between(-1e-3, 1e-3))


def partition(drawing: Drawing, at: float) -> None:
    """The cluster falls into two halves."""
    one, other = drawing.split()
    drawing.add(at, "partition", one=one, other=other, oneway=False)
    drawing.add(at + drawing.between(0.2, 20), "heal")


def deaf(drawing: Drawing, at: float) -> None:
    """Some are not heard by the others any more, but hear them."""
    one, other = drawing.split()
    drawing.add(at, "partition", one=one, other=other, oneway=True)
    drawing.add(at + drawing.between(0.2, 20), "heal")


def clog(drawing: Drawing, at: float) -> None:
    """Single ways between two nodes are shut, in one direction each."""
    if len(drawing.names) > 1:
        for _ in range(1 + drawing.chooser.below("swarm clogs", 3)):
            source = drawing.name()
            target = drawing.chooser.choice("swarm node", [name for name in drawing.names if name != source])
            drawing.add(at, "partition", one=[source], other=[target], oneway=True)
        drawing.add(at + drawing.between(0.2, 10), "heal")


def apart(drawing: Drawing, at: float) -> None:
    """One or two nodes and some others cannot reach each other, but the rest reaches all: it has to relay.

    Often from the beginning, as links that stand once are given up only after long silence.
    """
    if len(drawing.names) > 2:
        at = 0.0 if drawing.chooser.chance("swarm early", 0.5) else at
        for _ in range(1 + drawing.chooser.below("swarm aparts", 2)):
            source = drawing.name()
            others = [name for name in drawing.names if name != source]
            for _ in range(1 + drawing.chooser.below("swarm aparts", len(others) - 1)):
                target = others.pop(drawing.chooser.below("swarm node", len(others)))
                drawing.add(at, "partition", one=[source], other=[target], oneway=False)
        drawing.add(at + drawing.between(2, 20), "heal")


def link(drawing: Drawing, at: float) -> None:
    """Two nodes, or a node and a client of it, have a bad line between them."""
    source = drawing.name()
    target = drawing.chooser.choice("swarm node", [*(name for name in drawing.names if name != source), f"a@{source}"])
    until = at + drawing.between(1, 20)
    bad, good = _links(drawing.chooser, "swarm line", sound=False), Profile()
    for one, other in ((source, target), (target, source)):
        drawing.add(at, "set_link", source=one, target=other, profile=msgspec.to_builtins(bad))
        drawing.add(until, "set_link", source=one, target=other, profile=msgspec.to_builtins(good))


def withdraw(drawing: Drawing, at: float) -> None:
    """A function is withdrawn while the node runs, often one for which calls may wait, and mostly offered again."""
    name = drawing.name()
    functions = list(drawing.nodes[name].functions)
    if functions:
        given = drawing.nodes[name].functions
        busiest = [function for function, one in given.items() if isinstance(one, Fn) and one.concurrency]
        often = bool(busiest) and drawing.chooser.chance("swarm busiest", 0.4)
        function = drawing.chooser.choice("swarm function", busiest if often else functions)
        drawing.add(at, "withdraw", name=name, function=function)
        if drawing.chooser.chance("swarm again", 0.85):
            drawing.add(at + drawing.between(0.05, 8), "offer", name=name, function=function)


def flap(drawing: Drawing, at: float) -> None:
    """A function comes and goes many times, faster than everybody hears of it."""
    name = drawing.name()
    functions = list(drawing.nodes[name].functions)
    if functions:
        function = drawing.chooser.choice("swarm function", functions)
        for _ in range(2 + drawing.chooser.below("swarm flaps", 6)):
            drawing.add(at, "withdraw", name=name, function=function)
            at += drawing.between(0.001, 0.3)
            drawing.add(at, "offer", name=name, function=function)
            at += drawing.between(0.001, 0.3)


def vanish(drawing: Drawing, at: float) -> None:
    """A client's process or machine is gone, with answers owed to it."""
    silent = drawing.chooser.chance("swarm silent", 0.5)
    drawing.add(at, "vanish", client=f"a@{drawing.name()}", silent=silent)


FAULTS: dict[str, Callable[[Drawing, float], None]] = {
    fault.__name__: fault
    for fault in (
        crash, silent_crash, restart, leave, stall, pause, meet, narrow, skew, partition, deaf, clog, apart, link,
        withdraw, flap, vanish
    )
}  # fmt: skip
"""All kinds of faults by name."""


def _links(chooser: Chooser, purpose: str, *, sound: bool) -> Profile:
    def drawn(items: Iterable[Any]) -> Any:
        return chooser.choice(purpose, tuple(items))

    delay = drawn((Profile().delay, exponential(0.002), exponential(0.01, least=0.001), exponential(0.04)))
    rechunk = drawn((0.0, 0.1, 0.5))
    if sound:
        return Profile(delay=delay, rechunk=rechunk, bandwidth=drawn((0, 0, 0, 60_000)))
    return Profile(
        delay=delay, rechunk=rechunk, bandwidth=drawn((0, 0, 50_000, 500_000)), reset=drawn((0.0, 0.0, 1e-3, 1e-2))
    )
