"""Part of invariant 15: what a client asked for ends when the client is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.limits import DEFAULT
from mpreg_transports.testing.invariants.execution import RequestKey, request_of
from mpreg_transports.testing.invariants.oracles import attempt_of, stamp
from mpreg_transports.testing.invariants.stability import Stability
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_execution
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World
    from mpreg_transports.testing.simulation.network import WireEnd

_NOTICED = DEFAULT.gone_after + 4 * SECOND
"""The time after which a node has given up the link of a client that ended without a word, and has called off what it
had placed."""


class CallerGone(Watcher):
    """Invariant 15: the requests of a client that has ended are closed, and their bodies are cancelled.

    With a link that ended silently this takes until its node gives the link up.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._stability = Stability(sim)
        self._next = 0
        self._callers: dict[RequestKey, WireEnd[Host]] = {}
        self._bodies: dict[tuple[str, int, int], RequestKey] = {}
        """The request of each running body, by host, life and run."""
        self._gone: dict[WireEnd[Host], int] = {}
        """The clients' ends that were seen closed, and since when."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is not None and request_of(key) not in self._callers and attempt.execution.link in host.wires:
            wire, side = host.wires[attempt.execution.link]
            self._callers[request_of(key)] = wire.ends[1 - side]

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        self._bodies[host.name, host.life, run.run] = request_of(key)

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        self._bodies.pop((host.name, host.life, run.run), None)

    def node_event_handled(self, host: NodeHost) -> None:
        if self._sim.now >= self._next:
            self._next = self._sim.now + SECOND
            self._look()

    def _look(self) -> None:
        sim = self._sim
        if sim.network.has_bandwidth_limit:
            return
        since = max(self._stability.since(), *(host.stalled_until for host in sim.nodes.values()))
        for host in sim.nodes.values():
            if not host.alive:
                continue
            for execution in host.node.coordinator.requests.values():
                found = host.wires.get(execution.link)
                if found is not None and self._long_gone(found[0].ends[1 - found[1]], since):
                    raise Violation(
                        15, f"{stamp(host)} keeps {name_of_execution(host, execution)}, whose client is gone"
                    )
            for run, body in host.running.items():
                request = self._bodies.get((host.name, host.life, run))
                caller = None if request is None else self._callers.get(request)
                job = host.node.worker.job(run)
                if caller is not None and job is not None and job.cancelled is None and self._long_gone(caller, since):
                    what = f"{body.run.function} for {caller.host.name}, which is gone"
                    raise Violation(15, f"{stamp(host)} goes on with {what}")

    def _long_gone(self, end: WireEnd[Host], since: int) -> bool:
        if end.is_open:
            return False
        gone = self._gone.setdefault(end, self._sim.now)
        return self._sim.now > max(gone, since) + _NOTICED
