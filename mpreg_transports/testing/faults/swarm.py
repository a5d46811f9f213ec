"""Swarm testing (Groce and others, ISSTA 2012): each seed draws the kinds of faults, their rate, and then a script.

The script of faults is drawn before the run, so that it can be saved and shrunk. A run without faults and a run in
which something breaks every third second find other defects than the mean of the two. A script is a list of actions by
time (trace.py), which `Simulation.play` performs. Nothing in this module depends on a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mpreg_transports.graph import Graph
from mpreg_transports.testing.simulation.checks import check_number, texts
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.durations import SECOND, constant, exponential
from mpreg_transports.testing.simulation.functions import Fn, functions_of
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.trace import Action, packed

LEVELS = (0.0, 0.02, 0.1, 0.3)
"""The chances that a fault begins in a given second; a run draws one of them."""


_ASKED = 1_000_000
"""The label of the first request that a fault submits. The labels of the workload start at 0."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options that a seed has drawn for its run."""

    level: float = 0.0
    kinds: tuple[str, ...] = ()
    """The kinds of faults of this run."""
    links: Profile = Profile()
    """The profile of all network paths from the start."""
    joins: str = "first"
    """The nodes that a node joins: the first node, the node before it (chain), or all nodes."""
    rate: float = 4.0
    """The requests per second of the standard workload, if it is used."""
    hot: float = 0.0
    long: float = 0.0
    """The share of the requests with bodies of 45 to 90 s."""
    after: float = 0.0
    """The seconds for which requests go on after the faults have stopped."""
    stranger: str = ""
    """The difference of the last node, or of half of the nodes, from the others: cluster, version or versions."""
    limits: dict[str, int] = {}
    """The bounds of all nodes that differ from the defaults."""

    def describe(self) -> str:
        """Return the options as one line of text."""
        faults = f"{self.level:.0%} a second of {', '.join(self.kinds)}" if self.kinds else "none"
        links = f"delay {self.links.delay.kind} {max(self.links.delay.low, self.links.delay.high) / 1e6:g} ms"
        for name, value in (("reset", self.links.reset), ("rechunk", self.links.rechunk)):
            links += f", {name} {value:g}" if value else ""
        links += f", {self.links.bandwidth} B/s" if self.links.bandwidth else ""
        words = f"faults {faults}; links {links}; joins {self.joins}; {self.rate:g} requests/s"
        words += f", {self.long:.0%} of them long" if self.long else ""
        words += f", for {self.after:g} s more" if self.after else ""
        words += f"; another {self.stranger}" if self.stranger else ""
        limits = ", ".join(f"{name} {limit}" for name, limit in self.limits.items())
        return words + (f"; limits {limits}" if limits else "")


class Swarm(msgspec.Struct, frozen=True, kw_only=True):
    """Faults drawn from a seed, for a number of simulated seconds: all kinds, or the kinds in `kinds`."""

    seconds: float = 60.0
    kinds: tuple[str, ...] = ()
    level: float | None = None
    """The chance that a fault begins in a given second; None: one of `LEVELS` is drawn."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a value of the wrong kind, or a fault that there is not."""
        check_number("seconds", self.seconds)
        for kind in texts("kinds", self.kinds):
            if kind not in FAULTS:
                raise ValueError(f"there is no fault {kind!r}; there are {', '.join(FAULTS)}")
        if self.level is not None:
            check_number("level", self.level, most=1)

    def options(self, chooser: Chooser, nodes: int = 5) -> Options:
        """Draw the options of a run with so many nodes."""
        level = chooser.choice("swarm level", LEVELS) if self.level is None else self.level
        known = self.kinds or tuple(FAULTS)
        kinds = tuple(kind for kind in known if chooser.chance("swarm kind", 0.4)) or known[:1]
        return Options(
            level=level,
            kinds=kinds if level else (),
            links=_links(chooser, "swarm links", sound=level == 0),
            joins=chooser.choice("swarm joins", ("first", "first", "chain", "all")),
            rate=chooser.choice("swarm rate", (1.0, 4.0, 8.0, 16.0)),
            hot=chooser.choice("swarm hot", (0.0, 0.0, 0.6)),
            long=chooser.choice("swarm long", (0.0, 0.0, 0.0, 0.1)),
            after=chooser.choice("swarm after", (0.0, 0.0, 12.0)),
            stranger=chooser.choice("swarm stranger", ("", "", "", "", "", "", "", "cluster", "version", "versions")),
            limits=small_limits(chooser, nodes) if chooser.chance("swarm limits", 0.25) else {},
        )

    def draw(self, chooser: Chooser, nodes: Mapping[str, Spec]) -> tuple[dict[str, Any], str, list[Action]]:
        """Draw the options of a run, as data and as text, and all its faults (see `script`)."""
        options = self.options(chooser, len(nodes))
        return msgspec.to_builtins(options), options.describe(), self.script(chooser, options, nodes)

    def script(self, chooser: Chooser, options: Options, nodes: Mapping[str, Spec]) -> list[Action]:
        """Draw all faults, in the order of their times.

        Each fault ends before `seconds` are over, or lasts to the end.
        """
        drawing = Drawing(chooser, nodes, self.seconds)
        drawing.add(0.0, "set_links", profile=msgspec.to_builtins(options.links))
        drawing.directions(sound=options.level == 0)
        for second in range(int(self.seconds) if options.kinds else 0):
            if chooser.chance("swarm fault", options.level):
                at = second + chooser.fraction("swarm moment")
                FAULTS[chooser.choice("swarm which", options.kinds)](drawing, at)
        if options.joins != "all":
            drawing.revive()
        return drawing.done()


class Drawing:
    """A script under construction."""

    def __init__(self, chooser: Chooser, nodes: Mapping[str, Spec], seconds: float) -> None:
        self.chooser = chooser
        self.functions: dict[str, dict[str, Fn]] = {name: functions_of(spec.functions) for name, spec in nodes.items()}
        self.resources: dict[str, list[str]] = {name: sorted(spec.resources) for name, spec in nodes.items()}
        self.names: list[str] = list(nodes)
        self.seconds = seconds
        self._script: list[Action] = []
        self.asked: int = 0
        """The number of requests so far, for their labels."""

    def add(self, at: float, name: str, /, **args: Any) -> None:
        """Add an action at `at` seconds, or at the end of the run if that is earlier."""
        self._script.append(Action(round(min(at, self.seconds) * SECOND), name, args))

    def submit(self, at: float, function: str, *args: Any, node: str, client: str, wait: float = 0.0) -> None:
        """Add a call by a client of `node` with a timeout of 60 s. Add nothing if no node offers the function."""
        if any(function in functions for functions in self.functions.values()):
            graph = Graph()
            graph.call(function, *args)
            request = packed(graph.request(timeout=60 * SECOND, wait=round(wait * SECOND)))
            self.add(at, "submit", node=node, request=request, client=client, label=_ASKED + self.asked)
            self.asked += 1

    def directions(self, *, sound: bool) -> None:
        """Now and then draw the paths of one pair of nodes from the start, each direction on its own."""
        if len(self.names) > 1 and self.chooser.chance("swarm directions", 0.3):
            for one, other in (pair := self.pair(), pair[::-1]):
                profile = _links(self.chooser, "swarm direction", sound=sound)
                self.add(0.0, "set_link", source=one, target=other, profile=msgspec.to_builtins(profile))

    def name(self, purpose: str = "swarm node") -> str:
        """Return a random node."""
        return self.chooser.choice(purpose, self.names)

    def pair(self) -> tuple[str, str]:
        """Return two different nodes. There must be more than one node."""
        one = self.name()
        return one, self.chooser.choice("swarm node", [name for name in self.names if name != one])

    def between(self, least: float, most: float) -> float:
        """Return a random duration in seconds."""
        return least + self.chooser.fraction("swarm span") * (most - least)

    def split(self) -> tuple[list[str], list[str]]:
        """Split the nodes into two sides. Neither side is empty unless there is only one node."""
        one = [name for name in self.names if self.chooser.chance("swarm side", 0.5)] or self.names[:1]
        if len(one) == len(self.names):
            one = one[1:]
        return one, [name for name in self.names if name not in one]

    def revive(self) -> None:
        """Restart the nodes that would stay down.

        A node that has the address of only one other node can find the cluster only through that node.
        """
        down: dict[str, None] = {}
        for action in self.done():
            if action.name in ("crash", "crash_amid", "leave", "drain"):
                down[action.args["name"]] = None
            elif action.name == "restart":
                down.pop(action.args["name"], None)
        for name in down:
            self.add(self.seconds, "restart", name=name)

    def done(self) -> list[Action]:
        """Return the actions in the order of their times.

        Actions of one time keep the order in which they were added.
        """
        return sorted(self._script, key=lambda action: action.at)


# -- faults: each adds its actions and usually its end ----------------------------------------------------------------


def crash(drawing: Drawing, at: float) -> None:
    """Crash a process, and usually start it again."""
    _down(drawing, at, silent=False)


def silent_crash(drawing: Drawing, at: float) -> None:
    """Crash a machine; no other node is notified."""
    _down(drawing, at, silent=True)


def _down(drawing: Drawing, at: float, *, silent: bool) -> None:
    name = drawing.name()
    drawing.add(at, "crash", name=name, silent=silent)
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(0.1, 12), "restart", name=name)


def crash_amid(drawing: Drawing, at: float) -> None:
    """Crash a process in the middle of what one input makes it do, and usually start it again."""
    name = drawing.name()
    drawing.add(at, "crash_amid", name=name, effects=drawing.chooser.below("swarm effects", 6))
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(3, 15), "restart", name=name)


def sleep(drawing: Drawing, at: float) -> None:
    """Let a machine sleep for longer than a silent link stays open, like a laptop: a node's, or a client's."""
    longest = drawing.seconds - at
    name = drawing.name()
    seconds = min(drawing.between(18, 45), max(0.0, longest))
    drawing.add(at, "stall", name=f"a@{name}" if drawing.chooser.chance("swarm client", 0.4) else name, seconds=seconds)


def half_open(drawing: Drawing, at: float) -> None:
    """Let a connection die without a word: one of two that two nodes have just opened, or any one, or a client's."""
    which = drawing.chooser.below("swarm which", 2)
    if len(drawing.names) < 2 or drawing.chooser.chance("swarm client", 0.2):
        name = drawing.name()
        drawing.add(at, "kill_link", one=f"a@{name}", other=name, which=which)
        return
    one, other = drawing.pair()
    if drawing.chooser.chance("swarm both", 0.6):
        for source, target in ((one, other), (other, one)):  # so slow that both links are open for a while
            far = msgspec.to_builtins(Profile(delay=constant(0.05)))
            drawing.add(at, "set_link", source=source, target=target, profile=far)
            drawing.add(at + 2, "set_link", source=source, target=target, profile=msgspec.to_builtins(Profile()))
        for name in (one, other):
            drawing.add(at, "restart", name=name)
        at += drawing.between(0.1, 0.4)
    drawing.add(at, "kill_link", one=one, other=other, which=which)


def hang(drawing: Drawing, at: float) -> None:
    """Let dials to a node hang, often as it starts again."""
    name = drawing.name()
    until = at + drawing.between(1, 20)
    sources = [one for one in drawing.names if one != name and drawing.chooser.chance("swarm side", 0.6)]
    for source in (*sources, f"a@{name}"):
        hangs = drawing.chooser.choice("swarm hangs", (0.3, 1.0))
        drawing.add(at, "set_link", source=source, target=name, profile=msgspec.to_builtins(Profile(hangs=hangs)))
        drawing.add(until, "set_link", source=source, target=name, profile=msgspec.to_builtins(Profile()))
    if drawing.chooser.chance("swarm again", 0.7):
        drawing.add(at, "restart", name=name)


def restart(drawing: Drawing, at: float) -> None:
    """Replace a process at once."""
    drawing.add(at, "restart", name=drawing.name())


def leave(drawing: Drawing, at: float) -> None:
    """Let a node leave in order, at its signal or at a client's command, and usually start it again as a new member."""
    name = drawing.name()
    if drawing.chooser.chance("swarm drained", 0.3):
        asked = drawing.name("swarm drained by")
        drawing.add(at, "drain", name=name, node=asked, client=f"a@{asked}")
    else:
        drawing.add(at, "leave", name=name)
    if drawing.chooser.chance("swarm second", 0.25):
        drawing.add(at + drawing.between(0, 4), "leave", name=name)
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(0.5, 15), "restart", name=name)


def hold(drawing: Drawing, at: float) -> None:
    """Change the resources of a node, while calls for them wait, and usually change them back."""
    name = drawing.name()
    kept = [one for one in drawing.resources[name] if drawing.chooser.chance("swarm resource", 0.3)]
    more = drawing.chooser.choice("swarm resource", ([], ["gpu"], ["disk", "eu"], ["model-a"]))
    drawing.add(at, "set_resources", name=name, resources=sorted({*kept, *more}))
    if drawing.chooser.chance("swarm again", 0.85):
        drawing.add(at + drawing.between(0.05, 10), "set_resources", name=name, resources=drawing.resources[name])


def advertise(drawing: Drawing, at: float) -> None:
    """Change the addresses of a node: to another one, to one of nobody, or to none, and then back."""
    name = drawing.name()
    own = f"sim://{name}"
    said = drawing.chooser.choice("swarm address", ([f"{own}/b"], [own, f"{own}/b"], ["sim://nobody"], []))
    drawing.add(at, "advertise", name=name, addresses=said)
    drawing.add(at + drawing.between(0.5, 15), "advertise", name=name, addresses=[own])


def stall(drawing: Drawing, at: float) -> None:
    """Stall a process."""
    seconds = min(drawing.between(0.05, 8), max(0.0, drawing.seconds - at))
    drawing.add(at, "stall", name=drawing.name(), seconds=seconds)


def pause(drawing: Drawing, at: float) -> None:
    """Stall a process for some seconds, like a garbage collection or a body that blocks the event loop."""
    seconds = min(drawing.between(1, 5), max(0.0, drawing.seconds - at))
    drawing.add(at, "stall", name=drawing.name(), seconds=seconds)


def meet(drawing: Drawing, at: float) -> None:
    """Start two nodes at the same moment, so that they may dial each other, with long calls on the first open link."""
    if len(drawing.names) > 1:
        pair = drawing.pair()
        for name in pair:
            drawing.add(at, "restart", name=name)
        near = msgspec.to_builtins(Profile(delay=constant(1e-5)))  # so that calls arrive before the second link
        for name in pair:
            client = f"{at:.3f}@{name}"
            for one, other in ((client, name), (name, client)):
                drawing.add(at, "set_link", source=one, target=other, profile=near)
            for number in range(6):
                drawing.submit(at + drawing.between(0, 0.6), "haul", number, node=name, client=client, wait=10)


def narrow(drawing: Drawing, at: float) -> None:
    """Limit the bandwidth between two nodes, or between a node and a client.

    Long results and arguments are sent over this connection and queue up.
    """
    if len(drawing.names) > 1:
        source, target = drawing.pair()
        if drawing.chooser.chance("swarm client", 0.3):
            target = f"a@{source}"
        until = at + drawing.between(5, 25)
        for one, other in ((source, target), (target, source)):
            bandwidth = drawing.chooser.choice("swarm bandwidth", (0, 4_000, 20_000, 50_000, 80_000))
            slow = Profile(bandwidth=bandwidth)
            drawing.add(at, "set_link", source=one, target=other, profile=msgspec.to_builtins(slow))
            drawing.add(until, "set_link", source=one, target=other, profile=msgspec.to_builtins(Profile()))
        for _ in range(8 * target.startswith("a@")):
            drawing.submit(at + drawing.between(0, 4), "pad", 7, node=source, client=target)
        for _ in range(1 + drawing.chooser.below("swarm bulks", 4)):
            function, value = drawing.chooser.choice("swarm bulk", (("bulk", 7), ("add", bytes(300_000))))
            drawing.submit(at + drawing.between(0, 4), function, value, node=source, client=f"a@{source}")


def skew(drawing: Drawing, at: float) -> None:
    """Let a clock run faster or slower, by up to 0.1 %."""
    drawing.add(at, "skew", name=drawing.name(), drift=drawing.between(-1e-3, 1e-3))


def partition(drawing: Drawing, at: float) -> None:
    """Split the cluster into two halves."""
    one, other = drawing.split()
    drawing.add(at, "partition", one=one, other=other, oneway=False)
    drawing.add(at + drawing.between(0.2, 20), "heal")


def deaf(drawing: Drawing, at: float) -> None:
    """Cut the messages of some nodes to the others in one direction only."""
    one, other = drawing.split()
    drawing.add(at, "partition", one=one, other=other, oneway=True)
    drawing.add(at + drawing.between(0.2, 20), "heal")


def clog(drawing: Drawing, at: float) -> None:
    """Cut single network paths between two nodes, each in one direction."""
    if len(drawing.names) > 1:
        for _ in range(1 + drawing.chooser.below("swarm clogs", 3)):
            source = drawing.name()
            target = drawing.chooser.choice("swarm node", [name for name in drawing.names if name != source])
            drawing.add(at, "partition", one=[source], other=[target], oneway=True)
        drawing.add(at + drawing.between(0.2, 10), "heal")


def apart(drawing: Drawing, at: float) -> None:
    """Cut one or two nodes off from some others, while the rest reaches all nodes and has to relay.

    The cut often exists from the beginning, because an open link is closed only after a long silence.
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
    """Make the connection between two nodes, or between a node and a client of it, unreliable."""
    source = drawing.name()
    target = drawing.chooser.choice("swarm node", [*(name for name in drawing.names if name != source), f"a@{source}"])
    until = at + drawing.between(1, 20)
    good = Profile()
    for one, other in ((source, target), (target, source)):
        bad = _links(drawing.chooser, "swarm line", sound=False)
        drawing.add(at, "set_link", source=one, target=other, profile=msgspec.to_builtins(bad))
        drawing.add(until, "set_link", source=one, target=other, profile=msgspec.to_builtins(good))


def withdraw(drawing: Drawing, at: float) -> None:
    """Withdraw a function while its node runs, and usually offer it again.

    It is often a function for which calls may be queued.
    """
    name = drawing.name()
    functions = list(drawing.functions[name])
    if functions:
        busiest = [function for function, one in drawing.functions[name].items() if one.concurrency]
        often = bool(busiest) and drawing.chooser.chance("swarm busiest", 0.4)
        function = drawing.chooser.choice("swarm function", busiest if often else functions)
        drawing.add(at, "withdraw", name=name, function=function)
        if drawing.chooser.chance("swarm again", 0.85):
            drawing.add(at + drawing.between(0.05, 8), "offer", name=name, function=function)


def flap(drawing: Drawing, at: float) -> None:
    """Withdraw and offer a function many times, faster than the changes reach all nodes."""
    name = drawing.name()
    functions = list(drawing.functions[name])
    if functions:
        function = drawing.chooser.choice("swarm function", functions)
        for _ in range(2 + drawing.chooser.below("swarm flaps", 6)):
            drawing.add(at, "withdraw", name=name, function=function)
            at += drawing.between(0.001, 0.3)
            drawing.add(at, "offer", name=name, function=function)
            at += drawing.between(0.001, 0.3)


def vanish(drawing: Drawing, at: float) -> None:
    """Kill the process or the machine of a client while replies to it are outstanding."""
    silent = drawing.chooser.chance("swarm silent", 0.5)
    client = drawing.chooser.choice("swarm client", ("a", "a", "a", "j", "p"))
    drawing.add(at, "vanish", client=f"{client}@{drawing.name()}", silent=silent)


FAULTS: dict[str, Callable[[Drawing, float], None]] = {
    fault.__name__: fault
    for fault in (
        crash, silent_crash, crash_amid, restart, leave, stall, pause, sleep, meet, half_open, hang, narrow, skew,
        partition, deaf, clog, apart, link, withdraw, flap, hold, advertise, vanish
    )
}  # fmt: skip
"""All kinds of faults by name."""


def cut(drawing: Drawing, at: float) -> None:
    """Break the connections between two nodes, some of them again as they are opened."""
    if len(drawing.names) > 1:
        one, other = drawing.pair()
        for source, target in ((one, other), (other, one)):
            drawing.add(at, "set_link", source=source, target=target, profile=msgspec.to_builtins(Profile(reset=1.0)))
            until = at + drawing.between(0.5, 3)
            drawing.add(until, "set_link", source=source, target=target, profile=msgspec.to_builtins(Profile()))


def long_partition(drawing: Drawing, at: float) -> None:
    """Split the cluster into two halves until each has marked the other DEAD."""
    one, other = drawing.split()
    drawing.add(at, "partition", one=one, other=other, oneway=False)
    drawing.add(at + drawing.between(8, 60), "heal")


SINGLE: tuple[Callable[[Drawing, float], None], ...] = (
    crash, silent_crash, silent_crash, restart, leave, pause, sleep, half_open, cut, long_partition, withdraw, hold
)  # fmt: skip
"""Faults whose effects have narrow bounds if the cluster is calm before and after them."""
_APART = 25.0
"""Seconds from the end of one single fault to the next one."""


def single_faults(chooser: Chooser, nodes: Mapping[str, Spec], start: float) -> list[Action]:
    """Draw one to three single faults from `start` seconds on, each with some calls around it and time to recover."""
    drawing = Drawing(chooser, nodes, start + 1000)
    drawing.asked = 500_000
    at = start
    for _ in range(1 + chooser.below("single number", 3)):
        chooser.choice("single fault", SINGLE)(drawing, at)
        for _ in range(chooser.below("single calls", 5)):
            function, *args = chooser.choice("single call", _CALLS)
            node = drawing.name()
            drawing.submit(at + drawing.between(-1, 4), function, *args, node=node, client=f"a@{node}", wait=5)
        at = max(action.at for action in drawing.done()) / SECOND + _APART
    return drawing.done()


_CALLS = (("haul", 7), ("narrow", 1), ("narrow", 2), ("train", 3), ("trek", 45), ("concat", 5), ("book", 6))


def small_limits(chooser: Chooser, nodes: int) -> dict[str, int]:
    """Draw bounds that a short run with so many nodes reaches, as fields of `Limits`; each usually keeps its default.

    A view has room for all living nodes and few others, as a node that does not fit into it is rightly left out.
    """
    limits: dict[str, int] = {}
    for name, drawn in _SMALL.items():
        if chooser.chance("swarm limit", 0.4):
            limits[name] = chooser.choice("swarm bound", drawn)
    if "message" in limits:
        limits["node_message"] = 2 * limits["message"]
        limits["backlog"] = limits["message"] * 11 // 10
    if "members" in limits:
        limits["members"] += nodes
        # What a full table has refused comes with anti-entropy, which must be within 15 s.
        limits["gossip_interval"] = 2 * SECOND
    if "ping_every" in limits:
        limits["gone_after"] = 5 * limits["ping_every"] // 2
    return limits


_SMALL: dict[str, tuple[int, ...]] = {
    "message": (20_000, 65_536, 250_000),
    "calls": (3, 6),
    "edges": (3, 8),
    "expansion": (3_000, 60_000),
    "expansion_elements": (3, 20),
    "inputs": (20_000, 300_000),
    "values": (10_000, 100_000),
    "requests": (2, 6, 20),
    "client_requests": (1, 3),
    "client_bytes": (1_000, 30_000),
    "client_answers": (50_000,),
    "json_answers": (5_000, 30_000),
    "calls_per_worker": (1, 4),
    "ping_every": (2 * SECOND, 4 * SECOND),
    "drain_grace": (0, SECOND, 4 * SECOND),
    "link_wait": (50_000_000, 5 * SECOND),
    "unreachable": (2 * SECOND, 10 * SECOND),
    "failover_pause": (0, 2 * SECOND),
    "dial": (2 * SECOND, 5 * SECOND),
    "dials": (2, 4),
    "gossip_interval": (2 * SECOND, 8 * SECOND),
    "slow_link": (1_000, 20_000),
    "members": (1, 3),  # beside the nodes of the run
    "dead_members": (1, 3),
    "changes": (1, 4),
    "dead_for": (15 * SECOND,),
    "retired_for": (90 * SECOND,),
    "rare_from": (5 * SECOND, 20 * SECOND),
    "rare_dial": (2 * SECOND, 10 * SECOND),
    "full_digest": (1, 4),
}
"""The bounds that a run may make small. Times are no longer than the defaults, on which bounds of invariants depend."""


def _links(chooser: Chooser, purpose: str, *, sound: bool) -> Profile:
    def drawn(items: Iterable[Any]) -> Any:
        return chooser.choice(purpose, tuple(items))

    delay = drawn((Profile().delay, exponential(0.002), exponential(0.01, least=0.001), exponential(0.04)))
    rechunk = drawn((0.0, 0.1, 0.5))
    if sound:
        return Profile(delay=delay, rechunk=rechunk, bandwidth=drawn((0, 0, 0, 60_000)))
    return Profile(
        delay=delay,
        rechunk=rechunk,
        bandwidth=drawn((0, 0, 0, 50_000, 500_000, 4_000)),
        reset=drawn((0.0, 0.0, 1e-3, 1e-2)),
        hangs=drawn((0.0, 0.0, 0.0, 0.3)),
    )
