"""The time since when a simulation has no faults, on which the liveness invariants depend.

It is read from the script (the actions of users and generators) and from the present state of hosts and network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpreg_proto.limits import DEFAULT
from mpreg_transports.testing.invariants.known_gaps import SEEDS_AFTER, SETTLED_AFTER
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost, compatible
from mpreg_transports.testing.simulation.network import Wire
from mpreg_transports.testing.simulation.trace import WORK

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

HARMLESS = (*WORK, "judge", "vanish", "set_resources")
"""The actions after which the nodes do not have to recover."""
MESH = 12
"""The number of members from which on rings replace the full mesh of links (docs/explanation/membership.md)."""


_UNNOTICED = DEFAULT.gone_after + 2 * SECOND
"""The longest time after the death of a connection in which an end may believe that it is open."""
_PROMPT = SECOND // 100
"""The mean delay up to which half a second is always enough for a reply, whatever is drawn."""


class Stability:
    """The time of the last fault. It reads the script incrementally."""

    def __init__(self, sim: World) -> None:
        self._sim = sim
        self._read = 0
        self._drained = 0
        self._since = 0
        self._ends: list[tuple[int, int]] = []
        """The start of each fault and its end."""

    def since(self) -> int:
        """Return the simulated time of the last fault from which nodes had to recover.

        Return the present time while a fault lasts.
        """
        sim = self._sim
        script = sim.trace.script
        for action in script[self._read :]:
            if action.name == "calm":  # ends all faults
                self._since = action.at
                self._ends = [(start, min(end, action.at)) for start, end in self._ends]
            elif action.name not in HARMLESS:
                lasts = round(action.args.get("seconds", 0) * SECOND) if action.name == "stall" else 0
                self._since = max(self._since, action.at + lasts)
                self._ends.append((action.at, action.at + lasts))
        self._read = len(script)
        for _, _, at in sim.drained[self._drained :]:  # the command of a client took effect, some time after it
            self._since = max(self._since, at)
            self._ends.append((at, at))
        self._drained = len(sim.drained)
        if self._trouble():
            self._since = sim.now
        return self._since

    def before(self, at: int) -> int:
        """Return the end of the last fault of the script that began before `at`, or `at` if it lasts until then."""
        self.since()
        last = max((end for start, end in self._ends if start < at), default=0)
        network = self._sim.network
        dead = max((died + _UNNOTICED for wire in network.dead if (died := wire.died) is not None), default=0)
        return at if network.is_faulty else min(at, max(last, dead))

    def last(self) -> int:
        """Return the start of the last fault of the script."""
        self.since()
        return self._ends[-1][0] if self._ends else 0

    def prompt(self) -> bool:
        """Return whether each reply arrives in time: there are no bandwidth limits and no long delays."""
        network = self._sim.network
        return all(
            not profile.bandwidth and max(profile.delay.low, profile.delay.high) <= _PROMPT
            for profile in (network.default, *network._profiles.values())
        )

    def _trouble(self) -> bool:
        sim = self._sim
        network = sim.network
        if network.is_faulty or network.hung_until > sim.now or any(_unnoticed(sim, wire) for wire in network.dead):
            return True
        return any(host.stalled_until > sim.now for host in (*sim.nodes.values(), *sim.clients.values()))


def _unnoticed(sim: World, wire: Wire[Any]) -> bool:
    """Return whether a connection has died, and an end may still believe that it is open."""
    died = sim.now if wire.died is None else wire.died
    return sim.now <= died + _UNNOTICED and any(end.is_open for end in wire.ends)


def correct(sim: World) -> list[NodeHost]:
    """Return the nodes that run, are not stalled, and are not leaving."""
    return [
        host
        for host in sim.nodes.values()
        if host.alive and not host.node.left and not host.node.draining and host.stalled_until <= sim.now
    ]


def components(hosts: list[NodeHost], *, stable_for: int) -> list[list[NodeHost]]:
    """Return the groups of nodes that are connected by their views, over any number of steps.

    A node is connected to another if its view contains the other's present member. If there were no faults for a long
    time (`stable_for`, nanoseconds), an address of the other is enough, of a seed or of an earlier member: nodes of a
    cluster try such addresses rarely.

    Nodes that have never found each other, because their common seed has ended, are no cluster.
    """
    near: dict[str, dict[str, None]] = {host.name: {} for host in hosts}
    specs = {host.name: host.spec for host in hosts}
    present = {host.node.me: None for host in hosts}
    rarely = stable_for >= max(SEEDS_AFTER, len(hosts) * DEFAULT.dial_longest + SETTLED_AFTER)
    for host in hosts:
        known = [str(seed) for seed in host.node.config.seeds] if rarely else []
        for record in host.node.cluster.members.all():
            known += record.addresses if record.standing <= 2 and (rarely or record.id in present) else ()
        for address in known:
            name = address.removeprefix("sim://").partition("/")[0]
            if name in near and compatible(host.spec, specs[name]):
                near[host.name][name] = None
                near[name][host.name] = None
    by_name = {host.name: host for host in hosts}
    seen: dict[str, None] = {}
    found: list[list[NodeHost]] = []
    for name in near:
        if name in seen:
            continue
        component, waiting = [], [name]
        seen[name] = None
        while waiting:
            one = waiting.pop()
            component.append(by_name[one])
            fresh = [other for other in near[one] if other not in seen]
            seen.update(dict.fromkeys(fresh))
            waiting += fresh
        found.append(component)
    return found
