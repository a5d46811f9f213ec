"""Parts of invariants 13 and 14: a member that is only slow is not marked DEAD, and no deliberate action loses a call.

Backlogs on connections with low bandwidth, pauses of a few seconds in small clusters, and the closing of duplicate
links may not cost a member its standing or a call its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import show
from mpreg_proto.limits import DEFAULT
from mpreg_proto.notices import LinkClosed, LinkEndCause, MemberChanged, Notice, Standing
from mpreg_proto.wire.messages import Result
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.invariants.stability import HARMLESS
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.trace import Action
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

SMALL = 4
"""The largest number of members of a cluster that tolerates a pause."""
PAUSE = 3_500_000_000
"""The longest pause that has no effect in a small cluster, in nanoseconds."""
_BETWEEN = 8 * SECOND
"""The least time from the end of one pause to the next one, so that they count as separate pauses."""
_AFTERMATH = 25 * SECOND
"""The time after a fault in which it may still cost calls: a silent link is closed after 20 s."""
_MEANINGLESS = (*HARMLESS, "withdraw", "offer", "heal", "calm")


class SlowPeerTolerance(Watcher):
    """Invariant 13: a slow peer is tolerated.

    If bandwidth limits, or pauses in a small cluster, are the only faults, no living member is marked DEAD and no link
    is closed as silent.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._read = 0
        self._paused_until: int | None = None
        self._only_slow = True

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        kind = type(notice)
        if kind is LinkClosed and notice.cause is LinkEndCause.SILENT:  # type: ignore[union-attr]  # kind is LinkClosed
            if self._holds():
                raise Violation(14, f"{stamp(host)} gives a link up, {notice.reason}, and all ways carry")  # type: ignore[union-attr]
        elif kind is MemberChanged:
            assert isinstance(notice, MemberChanged)
            living = any(
                other.node.me == notice.member
                for other in self._sim.nodes.values()
                if other.alive and not other.node.left
            )
            if living and notice.standing in (Standing.DEAD, Standing.RETIRED) and self._holds():
                member = f"{show(notice.name, notice.member)} {notice.standing.name}"
                raise Violation(13, f"{stamp(host)} marks {member}, which is only slow")

    def _holds(self) -> bool:
        script = self._sim.trace.script
        for action in script[self._read :]:
            self._only_slow = self._only_slow and self._slow_only(action)
        self._read = len(script)
        paused = self._paused_until is not None
        return (
            self._only_slow
            and not self._late_driver()
            and not (paused and (self._sim.network.has_bandwidth_limit or len(self._sim.nodes) > SMALL))
        )

    def _late_driver(self) -> bool:
        """Return whether a driver ends links so late that the other end may have given them up before."""
        nodes = self._sim.nodes.values()
        late = max((host.driver.closes_late + host.driver.hangs_up_late for host in nodes), default=0)
        return any(late * SECOND >= host.spec.limits.gone_after for host in nodes)

    def _slow_only(self, action: Action) -> bool:
        """Return whether bandwidth limits and pauses are still the only faults after `action`."""
        if action.name == "stall":
            before, length = self._paused_until, round(action.args["seconds"] * SECOND)
            self._paused_until = action.at + length
            return length <= PAUSE and (before is None or action.at >= before + _BETWEEN)
        if action.name in ("set_link", "set_links"):
            profile = action.args["profile"]
            return not (profile["reset"] or profile.get("hangs"))
        if action.name == "vanish":  # after a silent end its links are silent too
            return not action.args["silent"]
        return action.name in _MEANINGLESS


class NoLostCalls(Watcher):
    """Invariant 14: an outcome is unknown (1023) only after a loss.

    The loss is a process, a connection, or seconds of a process.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._born: dict[tuple[str, int], int] = {}
        self._stale: dict[int, None] = {}
        """The requests sent on a link to an earlier life of their node."""

    def submitted(self, call: SimCall) -> None:
        client = self._sim.clients[call.client]
        life = self._sim.nodes[client.node].life
        if any(wire.died is not None or wire.ends[1 - side].life != life for wire, side in client.wires.values()):
            self._stale[call.label] = None

    def node_started(self, host: NodeHost) -> None:
        self._born[host.name, host.life] = host.sim.now

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result):
            return
        faults = [row.fault for row in reply.failed] + ([] if reply.fault is None else [reply.fault])
        unknown = [
            fault for fault in faults if fault.code == ErrorCode.OUTCOME_UNKNOWN and not self._loses_by_itself(fault)
        ]
        if unknown and call.label not in self._stale and not self._something_lost(call):
            text = f"{name_of_call(self._sim, call)} sent at {call.sent / SECOND:.6f} s ended with 1023"
            raise Violation(14, f"{text}, {unknown[0].message}, and nothing was lost")

    def _loses_by_itself(self, fault: Fault) -> bool:
        """Return whether the executor of the function may have lost the call, as its `Fn.loses` allows."""
        function = str(fault.details.get("function"))
        offered = [host.functions[function] for host in self._sim.nodes.values() if function in host.functions]
        return any(fn.loses > 0 for fn in offered)

    def _something_lost(self, call: SimCall) -> bool:
        sim = self._sim
        host = sim.nodes[sim.clients[call.client].node]
        born = self._born[host.name, host.life]
        if sim.network.is_faulty:
            return True
        return any(self._may_lose(action, call, born) for action in sim.trace.script)

    def _may_lose(self, action: Action, call: SimCall, born: int) -> bool:
        """Return whether `action` may cost the call its outcome. An action that ended before its node began cannot."""
        if action.name in _MEANINGLESS or action.name == "skew":
            return False
        length = 0
        if action.name == "stall":
            length = round(action.args["seconds"] * SECOND)
            if length <= PAUSE and len(self._sim.nodes) <= SMALL:
                return False
        elif action.name in ("set_link", "set_links"):
            if not action.args["profile"]["reset"]:
                return False
            length = self._sim.now - action.at
        elif action.name == "drain":  # it waits for links
            length = DEFAULT.default_timeout
        elif action.name in ("restart", "leave") or (action.name == "crash" and not action.args["silent"]):
            return action.at > max(born, call.sent - _AFTERMATH) or (born > call.sent)
        return action.at + length >= min(born, call.sent) - _AFTERMATH
