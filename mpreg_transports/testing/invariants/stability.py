"""Since when nothing has been wrong in a simulation: what liveness may be asked for depends on it.

It reads the script (what people and generators did) and the present state of hosts and ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.limits import DEFAULT
from mpreg_transports.testing.invariants.known_gaps import SEEDS_AFTER, SETTLED_AFTER
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

HARMLESS = ("submit", "cancel", "judge", "vanish")
"""What can be done to a cluster without its nodes having to come to terms with it."""
MESH = 12
"""Below so many members everybody is linked with everybody (docs/explanation/membership.md)."""


class Stability:
    """Since when all is well; reads on in the script from where it was."""

    def __init__(self, sim: World) -> None:
        self._sim = sim
        self._read = 0
        self._since = 0

    def since(self) -> int:
        """The simulation's time of the last thing that nodes had to come to terms with; now, if one goes on."""
        sim = self._sim
        script = sim.trace.script
        for action in script[self._read :]:
            if action.name == "calm":  # whatever would have gone on is over
                self._since = action.at
            elif action.name not in HARMLESS:
                lasts = round(action.args.get("seconds", 0) * SECOND) if action.name == "stall" else 0
                self._since = max(self._since, action.at + lasts)
        self._read = len(script)
        if self._trouble():
            self._since = sim.now
        return self._since

    def _trouble(self) -> bool:
        sim = self._sim
        network = sim.network
        bad = network.cuts or network.default.reset or any(one.reset for one in network._profiles.values())
        return bool(bad) or any(host.stalled_until > sim.now for host in sim.nodes.values())


def correct(sim: World) -> list[NodeHost]:
    """The nodes that run, do not stand still, and have not been told to leave."""
    return [
        host
        for host in sim.nodes.values()
        if host.alive and not host.node.left and not host.node.draining and host.stalled_until <= sim.now
    ]


def components(hosts: list[NodeHost], *, stable_for: int) -> list[list[NodeHost]]:
    """Those that know each other by now, over any number of steps: who knows another as the member that it is.

    If nothing has been wrong for long (`stable_for`, nanoseconds), an address is enough, of a seed or of whoever was
    there before, as those in a cluster try such addresses but rarely.

    Nodes that never heard of each other, as the one they were to meet at is gone, are no cluster.
    """
    near: dict[str, dict[str, None]] = {host.name: {} for host in hosts}
    present = {host.node.me: None for host in hosts}
    rarely = stable_for >= max(SEEDS_AFTER, len(hosts) * DEFAULT.dial_longest + SETTLED_AFTER)
    for host in hosts:
        known = [str(seed) for seed in host.node.config.seeds] if rarely else []
        for record in host.node.cluster.members.all():
            known += record.addresses if record.standing <= 2 and (rarely or record.id in present) else ()
        for address in known:
            name = address.removeprefix("sim://")
            if name in near:
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
