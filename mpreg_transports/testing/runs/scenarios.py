"""Scenarios by name: a standard cluster, its workload, and its faults, all drawn from a seed.

`swarm` draws everything from runs without faults to runs full of faults. `drivers` does the same with drivers of nodes
that work late or incompletely. Each of the others has one theme, and shows how a cluster behaves under it. The result
is a `Case` (replay.py), which can be run, saved and shrunk.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.wire.messages import VERSION
from mpreg_transports.testing.faults.swarm import Drawing, Swarm, meet, single_faults
from mpreg_transports.testing.faults.swarm import crash as crash_one
from mpreg_transports.testing.faults.swarm import leave as leave_one
from mpreg_transports.testing.runs.replay import SETTLING, Case
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded
from mpreg_transports.testing.simulation.drivers import DriverFaults
from mpreg_transports.testing.simulation.durations import exponential
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.workload import LONGEST, Load, standard_nodes, work

Build = Callable[[Drawing], Load]
"""A function that adds the faults of a scenario and returns its workload."""

FAILOVERS = (2, 2, 2, 1)
"""The possible failover limits of the nodes of a run; one is drawn. With 1 a call reaches the limit in a short run
too."""


def case(scenario: str = "swarm", *, seed: int, nodes: int = 5, seconds: float = 60.0, objects: bool = False) -> Case:
    """Draw one run, without running it. Raises ValueError for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise ValueError(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if nodes < 1:
        raise ValueError("a cluster has at least one node")
    chooser = Chooser(Seeded(seed))
    build = SCENARIOS[scenario]
    if build is None:
        drivers = scenario == "drivers"
        swarm = Swarm(seconds=seconds)
        options = swarm.options(chooser, nodes)
        limits = Limits(failovers=chooser.choice("swarm failovers", FAILOVERS), **options.limits)
        specs = standard_nodes(nodes, joins=options.joins, limits=limits)
        specs = strangers(specs, options.stranger)
        faults = swarm.script(chooser, options, specs)
        sizes = tuple(options.limits[name] for name in ("message", "expansion", "values") if name in options.limits)
        load = Load(
            rate=options.rate,
            hot=options.hot,
            long=options.long,
            sizes=sizes,
            after=options.after,
            others=0.2,
            bursts=0.03,
        )
        words = f"{options.describe()}; {limits.failovers} failovers"
        if drivers:
            specs = {name: msgspec.structs.replace(spec, driver=bad_driver(chooser)) for name, spec in specs.items()}
            shown = [f"{name} {str(spec.driver).partition('(')[2].removesuffix(')')}" for name, spec in specs.items()]
            words += f"; drivers {', '.join(shown)}"
        drawn_options = {**msgspec.to_builtins(options), "failovers": limits.failovers, "words": words}
        singles = chooser.chance("single", 0.4) and not drivers
        later = single_faults(chooser, specs, seconds + _settling(load) + 1.0) if singles else []
    else:
        limits = SCALED if build is days else Limits()
        specs = standard_nodes(nodes, joins="all" if build is meetings else "first", limits=limits)
        drawing = Drawing(chooser, specs, seconds)
        load = build(drawing)
        faults = drawing.done()
        drawn_options = {
            "rate": load.rate,
            "words": f"{(build.__doc__ or '').splitlines()[0]} {load.rate:g} requests/s",
        }
        later = []
    settling = _settling(load)
    drawn_options["settling"] = settling
    script = sorted([*faults, *work(chooser, list(specs), seconds, load)], key=lambda action: action.at)
    return Case(
        seed=seed,
        scenario=scenario,
        options=drawn_options,
        nodes=specs,
        script=script,
        seconds=seconds,
        settling=settling,
        later=later,
        objects=objects,
    )


def _settling(load: Load) -> float:
    """Return the seconds in which all requests of a workload end."""
    return SETTLING if not load.long else max(SETTLING, LONGEST + 20.0)


def strangers(specs: dict[str, Spec], kind: str) -> dict[str, Spec]:
    """Return nodes of which the last is of another cluster or version, or each other one knows a newer version too."""
    if len(specs) < 3:
        return specs
    last = list(specs)[-1]
    replace = msgspec.structs.replace
    match kind:
        case "cluster":
            return {**specs, last: replace(specs[last], cluster_id="another")}
        case "version":
            return {**specs, last: replace(specs[last], versions=(VERSION + 1, VERSION + 1))}
        case "versions":
            newer = (VERSION, VERSION + 1)
            return {
                name: replace(spec, versions=newer) if place % 2 else spec
                for place, (name, spec) in enumerate(specs.items())
            }
        case _:
            return specs


SCALED = Limits(
    dead_for=30 * SECOND,
    retired_for=180 * SECOND,
    rare_from=20 * SECOND,
    rare_dial=3 * SECOND,
    link_idle=6 * SECOND,
    gossip_interval=6 * SECOND,
    dial_longest=3 * SECOND,
    unreachable=8 * SECOND,
)
"""Bounds with which some minutes show what otherwise takes days: members are retired and forgotten, dials are rare."""


def bad_driver(chooser: Chooser) -> DriverFaults:
    """Draw a driver that does some of its work late or not at all."""

    def seconds(longest: float) -> float:
        return chooser.choice("driver", (0.0, round(chooser.fraction("driver") * longest, 3)))

    return DriverFaults(
        closes_late=seconds(8),
        hangs_up_late=seconds(5),
        fails_late=seconds(15),
        forgets_dials=chooser.choice("driver", (0.0, 0.0, 0.5, 1.0)),
        reports_backlog=chooser.chance("driver", 0.5),
    )


def steady(drawing: Drawing) -> Load:
    """No faults."""
    return Load()


def churn(drawing: Drawing) -> Load:
    """Nodes crash, leave and come back all the time."""
    _come_and_go(drawing, first=3.0, calm=5, pause=(2, 6))
    return Load()


def partition(drawing: Drawing) -> Load:
    """The cluster is split into two halves, again and again, and is healed."""
    at = 5.0
    while at < drawing.seconds - 10:
        one, other = drawing.split()
        drawing.add(at, "partition", one=one, other=other, oneway=drawing.chooser.chance("story", 0.3))
        at += drawing.between(3, 12)
        drawing.add(at, "heal")
        at += drawing.between(5, 10)
    return Load()


def rolling_restart(drawing: Drawing) -> Load:
    """One node after the other leaves in order and is started again."""
    gap = (drawing.seconds - 5) / len(drawing.names)
    for index, name in enumerate(drawing.names):
        at = 3.0 + index * gap
        drawing.add(at, "leave", name=name)
        drawing.add(at + min(12.0, gap * 0.7), "restart", name=name)
    return Load()


def overload(drawing: Drawing) -> Load:
    """The requests need more slots than the functions have."""
    return Load(rate=60, hot=0.5, only=("narrow", "narrow", "book", "dawdle", "add"), tight=0.3)


def slow_node(drawing: Drawing) -> Load:
    """One node is stalled now and then, and its links are slow."""
    slow = drawing.names[-1]
    for name in drawing.names[:-1]:
        for one, other in ((slow, name), (name, slow)):
            profile = msgspec.to_builtins(Profile(delay=exponential(0.05), bandwidth=100_000))
            drawing.add(1.0, "set_link", source=one, target=other, profile=profile)
    at = 4.0
    while at < drawing.seconds - 5:
        drawing.add(at, "stall", name=slow, seconds=drawing.between(0.2, 4))
        at += drawing.between(3, 9)
    return Load()


def pauses(drawing: Drawing) -> Load:
    """One node after another is stalled for 1 to 3.5 s."""
    at = 5.0
    while at < drawing.seconds - 5:
        seconds = drawing.between(1, 3.5)
        drawing.add(at, "stall", name=drawing.name(), seconds=seconds)
        at += seconds + drawing.between(10, 15)
    return Load()


def slow_lines(drawing: Drawing) -> Load:
    """All links have a low bandwidth, and long values are queued on them."""
    bandwidth = 30_000 + drawing.chooser.below("story", 50_000)
    drawing.add(0.0, "set_links", profile=msgspec.to_builtins(Profile(bandwidth=bandwidth)))
    return Load(rate=0.8, only=("bulk", "add", "add", "add", "haul"), tight=0.0)


def meetings(drawing: Drawing) -> Load:
    """Two nodes are started at the same moment, with long calls, again and again."""
    drawing.add(0.0, "set_links", profile=msgspec.to_builtins(Profile(delay=exponential(0.08))))
    at = 0.0
    while at < drawing.seconds - 5:
        meet(drawing, at)
        at += drawing.between(33, 40)
    return Load(rate=0.5)


def long_calls(drawing: Drawing) -> Load:
    """Bodies run for 45 to 90 s, on links that carry nothing else."""
    return Load(rate=1.0, long=0.9, tight=0.0)


def days(drawing: Drawing) -> Load:
    """Nodes go and come back now and then, and the times of the core are so short that minutes show days."""
    _come_and_go(drawing, first=5.0, calm=20, pause=(10, 40))
    return Load(rate=2.0, long=0.05, others=0.2)


def _come_and_go(drawing: Drawing, *, first: float, calm: float, pause: tuple[float, float]) -> None:
    """Let a node crash or leave, the first one after `first` seconds, with pauses between; none in the last `calm`."""
    at = first
    while at < drawing.seconds - calm:
        (leave_one if drawing.chooser.chance("story", 0.4) else crash_one)(drawing, at)
        at += drawing.between(*pause)
    drawing.revive()


def flaky_links(drawing: Drawing) -> Load:
    """All links are slow and deliver data in pieces, and some break."""
    profile = Profile(delay=exponential(0.02, least=0.001), bandwidth=500_000, reset=2e-3, rechunk=0.3)
    drawing.add(0.0, "set_links", profile=msgspec.to_builtins(profile))
    return Load()


SCENARIOS: dict[str, Build | None] = {
    "swarm": None,
    "drivers": None,
    "steady": steady,
    "churn": churn,
    "partition": partition,
    "rolling-restart": rolling_restart,
    "overload": overload,
    "slow-node": slow_node,
    "flaky-links": flaky_links,
    "pauses": pauses,
    "slow-lines": slow_lines,
    "meetings": meetings,
    "long-calls": long_calls,
    "days": days,
}
"""The scenarios by name; None: the swarm, with good or bad drivers."""
