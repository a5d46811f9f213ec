"""A simulated cluster that counts sent messages, and records when each node learned what."""

from __future__ import annotations

from collections.abc import Callable

from mpreg_proto.effects import Send
from mpreg_proto.ids import MemberId
from mpreg_proto.notices import CatalogueChanged, MemberChanged, Notice, Standing
from mpreg_proto.wire.dialects import encode
from mpreg_proto.wire.messages import Gossip, Message
from mpreg_transports.testing import Fn, Simulation, Spec, Watcher
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Host, NodeHost

PREFIX = 4
"""The size of a frame's length in bytes."""


def offered() -> int:
    """The function that every node offers."""
    return 1


class Learnt(Watcher):
    """The times at which each node learned of a member's catalogue, or marked a member DEAD, in simulated time."""

    def __init__(self) -> None:
        self.catalogues: dict[tuple[MemberId, int], dict[str, int]] = {}
        self.deaths: dict[MemberId, dict[str, int]] = {}
        self.suspected: list[tuple[int, MemberId]] = []

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        now = host.sim.now
        if isinstance(notice, CatalogueChanged):
            self.catalogues.setdefault((notice.member, notice.version), {}).setdefault(host.name, now)
        elif isinstance(notice, MemberChanged) and notice.standing is Standing.DEAD:
            self.deaths.setdefault(notice.member, {}).setdefault(host.name, now)
        elif isinstance(notice, MemberChanged) and notice.standing is Standing.SUSPECT:
            self.suspected.append((now, notice.member))


class Counted(Simulation):
    """Counts messages and, while `weighing`, their bytes on a stream."""

    weighing = False

    def __init__(self, nodes: int, seed: int) -> None:
        self.sent: dict[str, int] = {}
        self.bytes = 0
        self.sends: dict[tuple[bytes, int], dict[str, int]] = {}
        """The number of times that each member sent each version of a catalogue."""
        self.learnt = Learnt()
        specs = {f"n{number}": Spec(functions={"offered": Fn(offered)}) for number in range(nodes)}
        super().__init__(seed=seed, nodes=specs, objects=True, watchers=[self.learnt])

    def send(self, host: Host, effect: Send) -> None:
        """Count a message that a host writes to a link."""
        message = effect.message
        if message is not None:
            self._count(host, message)
        super().send(host, effect)

    def _count(self, host: Host, message: Message) -> None:
        kind = type(message).__name__
        self.sent[kind] = self.sent.get(kind, 0) + 1
        if self.weighing:
            self.bytes += PREFIX + len(encode(message))
        if isinstance(message, Gossip):
            for delta in message.deltas:
                times = self.sends.setdefault((delta.head.member, delta.head.version), {})
                times[host.name] = times.get(host.name, 0) + 1

    def wait(self, ready: Callable[[], bool], *, most: float, step: float = 0.25) -> float | None:
        """Let time pass until a condition is true; return the seconds, None if it does not become true."""
        began = self.now
        while self.now - began < most * SECOND:
            self.run(step)
            if ready():
                return (self.now - began) / SECOND
        return None

    def formed(self) -> bool:
        """Return whether all nodes know all others and their functions."""
        living = [host for host in self.nodes.values() if host.alive]
        size = len(living)
        return all(
            host.node.cluster.members.living == size and len(host.node.cluster.catalogue.heads()) == size
            for host in living
        )

    def whole(self) -> bool:
        """Return whether all nodes see all others as ALIVE."""
        living = [host.node.me for host in self.nodes.values() if host.alive]
        return all(
            all(host.node.cluster.members.standing(member) is Standing.ALIVE for member in living)
            for host in self.nodes.values()
            if host.alive
        )
