"""Invariant 14: a call that one correct node could serve throughout succeeds.

Two cases are certain. A node that offers all functions of a request itself, from the arrival of the request to its end,
never replies that no node can run them. And after a long time without faults, every function that a node of the
component offers can be called from every other node; then only the function itself may fail or exceed its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.messages import Call, Result
from mpreg_transports.testing.invariants.known_gaps import STABLE_AFTER
from mpreg_transports.testing.invariants.oracles import CatalogueReader, Offers
from mpreg_transports.testing.invariants.stability import Stability, components, correct
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

NEVER = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.INTERNAL, ErrorCode.DRAINING)
"""The errors that a request cannot end with if its own node offers all its functions: not found, an internal defect,
draining."""
OF_ITS_OWN = (
    ErrorCode.EXECUTION_FAILED,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.DUPLICATE_NAME,
    ErrorCode.CYCLIC_REFERENCE,
    ErrorCode.UNRESOLVED_REFERENCE,
    ErrorCode.LIMIT_EXCEEDED,
    ErrorCode.CANCELLED,
)
"""The errors of the request itself and its functions, independent of the cluster. 1021: a call that it depends on
failed."""
_JOINED = 10 * SECOND
"""The time in which a cluster joins when there are no faults."""
_FOUND_OUT = DEFAULT.gone_after + SECOND
"""The time for which a client may use a half-open link: the other end is closed, and the client was not notified."""


class _Asked:
    """A request, and the state of its node when it was sent."""

    __slots__ = ("faults", "half_open", "host", "life", "member", "started", "version")

    def __init__(self, host: NodeHost, version: int, faults: int, *, half_open: bool) -> None:
        self.host = host
        self.life = host.life
        self.member = host.node.me
        """The id of its node; with a new id the node ends its requests and has no links to other members."""
        self.version = version
        """The version of the node's own catalogue at that time. A function that is withdrawn and offered again was not
        offered throughout."""
        self.faults = faults
        """The time of the last fault before the request, as `Stability.since` returns it."""
        self.half_open = half_open
        """True if it was sent on a link to an earlier life of the node, so that it cannot arrive."""
        self.started = host.sim.now


class Availability(Watcher):
    """Invariant 14, as the module describes."""

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._stability = Stability(sim)
        self._catalogues = CatalogueReader()
        self._asked: dict[int, _Asked] = {}
        self._busy: dict[str, int] = {}
        """The last time at which a body of a function ended that had run for more than one second."""
        self._began: dict[tuple[str, int, int], int] = {}

    def submitted(self, call: SimCall) -> None:
        client = self._sim.clients[call.client]
        host = self._sim.nodes.get(client.node)
        if host is None or not host.alive:
            return
        half_open = any(
            wire.died is not None or wire.ends[1 - side].life != host.life for wire, side in client.wires.values()
        )
        self._asked[call.label] = _Asked(host, _version(host), self._stability.since(), half_open=half_open)

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        self._began[host.name, host.life, run.run] = host.sim.now

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        began = self._began.pop((host.name, host.life, run.run))
        if host.sim.now - began > SECOND:
            self._busy[run.function] = host.sim.now

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result) or not reply.last:
            return
        asked = self._asked.pop(call.label, None)
        if asked is None or (reply.fault is None and not reply.failed):
            return
        faults = [row.fault for row in reply.failed]
        faults += [reply.fault] if reply.fault is not None else []
        codes = dict.fromkeys(fault.code for fault in faults)
        words = f"{name_of_call(self._sim, call)} ended at {self._sim.time:.6f} s with "
        words += "; ".join(f"{fault.code} {fault.message}" for fault in faults[:3])
        if any(fault.details.get("full") for fault in faults):
            raise Violation(14, f"{words}, though it was admitted, and may wait")
        never = [code for code in codes if code in NEVER]
        if never and not asked.half_open and self._serves_all_itself(asked, call.request.calls):
            raise Violation(14, f"{words}, though its node offers all of it")
        admitted = dict.fromkeys(fault.code for fault in faults if not _not_admitted(fault))
        self._check_stable_cluster(asked, call, list(admitted), words)

    def _serves_all_itself(self, asked: _Asked, calls: tuple[Call, ...]) -> bool:
        """Return whether its node could run all calls throughout, and no node offers other versions."""
        host = asked.host
        if (
            not host.alive
            or host.life != asked.life
            or host.node.me != asked.member
            or host.node.draining
            or host.stalled_until > self._sim.now
        ):
            return False
        now = self._offers(host)
        return asked.version == _version(host) and all(now.fits(call) and self._alike(call) for call in calls)

    def _alike(self, call: Call) -> bool:
        """Return whether all nodes that offer the function offer one version.

        A call that is run again goes only to a node with the same version.
        """
        offers = [host.offers[call.function] for host in self._sim.nodes.values() if call.function in host.offers]
        made = [offered.function.spec for offered in offers]
        return len({(spec.version, spec.idempotent) for spec in made}) == 1

    def _check_stable_cluster(self, asked: _Asked, call: SimCall, codes: list[int], words: str) -> None:
        """Check a reply in a cluster that has had no faults for a long time."""
        sim = self._sim
        since = self._stability.since()
        long_enough = _JOINED if since == 0 else STABLE_AFTER
        if asked.half_open:
            long_enough = max(long_enough, _FOUND_OUT)
        if since != asked.faults or asked.started - since < long_enough:
            return
        wrong = [code for code in codes if code not in OF_ITS_OWN]
        if ErrorCode.DEADLINE_EXCEEDED in wrong and (
            self._slow(call) or call.request.timeout is not None or sim.network.has_bandwidth_limit
        ):
            wrong.remove(ErrorCode.DEADLINE_EXCEEDED)
        if any(host.spec.limits != DEFAULT for host in sim.nodes.values()):  # 1022 may be right with other limits
            wrong = [code for code in wrong if code != ErrorCode.OVERLOADED]
        if any(_in_an_executor(host, one) for host in sim.nodes.values() for one in call.request.calls):
            wrong = [code for code in wrong if code not in (ErrorCode.OVERLOADED, ErrorCode.OUTCOME_UNKNOWN)]
        nodes = correct(sim)
        component = next(
            (component for component in components(nodes, stable_for=sim.now - since) if asked.host in component), []
        )
        if wrong and all(any(self._offers(host).fits(one) for host in component) for one in call.request.calls):
            first = next(host for host in component if self._offers(host).fits(call.request.calls[0]))
            text = f"{words}, though all of it is offered and nothing was wrong for {long_enough / 1e9} s"
            raise Violation(14, text, pair=(asked.host.name, first.name))

    def _offers(self, host: NodeHost) -> Offers:
        return self._catalogues.read(host.node.cluster.catalogue.content(host.node.me))

    def _slow(self, call: SimCall) -> bool:
        """Return whether its functions run for long, or did so while it waited, so that a deadline may pass."""
        functions = dict.fromkeys(one.function for one in call.request.calls)
        if any(body.run.function in functions for host in self._sim.nodes.values() for body in host.running.values()):
            return True
        return any(self._busy.get(function, -1) >= call.sent for function in functions)


def _not_admitted(fault: Fault) -> bool:
    """Return whether a request was refused as calls of its function have waited for long."""
    waited = fault.details.get("waited")
    return fault.code == ErrorCode.OVERLOADED and isinstance(waited, float) and waited > 0.05


def _in_an_executor(host: NodeHost, call: Call) -> bool:
    """Return whether the call runs in an executor that refuses calls or breaks."""
    fn = host.functions.get(call.function)
    return fn is not None and fn.refuses + fn.loses > 0


def _version(host: NodeHost) -> int:
    """Return the version of a node's own catalogue."""
    own = host.node.cluster.catalogue.content(host.node.me)
    return 0 if own is None else own.version
