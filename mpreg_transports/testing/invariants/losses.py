"""Parts of invariants 10 and 14: what a reply says of lost calls, by a ledger of dispatches, refusals and starts.

A call of a function that is not idempotent counts as possibly started from its dispatch to another node until that node
refuses it (docs/explanation/guarantees.md). At its own node it counts as started only once its body has begun; before
that both answers are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.effects import Run
from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import InputTaken, Items, Message, Request, Result
from mpreg_transports.testing.invariants.execution import RequestKey, request_of
from mpreg_transports.testing.invariants.oracles import CatalogueReader, attempt_of
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.calls import CallKey
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_by_number
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World


_UNREAD = range(ErrorCode.INVALID_REQUEST, ErrorCode.LIMIT_EXCEEDED + 1)
"""The codes with which a node answers without a look at the functions; the client adds what that means."""


class _SentDispatch:
    """The dispatches of one call: how many, and those of which the body may have started."""

    __slots__ = ("count", "idempotent", "local", "possible")

    def __init__(self) -> None:
        self.count = 0
        self.idempotent = True
        self.local = False
        """True if its own node may run it, so that a start cannot be excluded without a message."""
        self.possible: dict[int, None] = {}
        """The dispatches to other nodes that were not refused, if the function is not idempotent; or a start."""


class OutcomeCodes(Watcher):
    """Invariants 10 and 14: 1023 and `maybe_executed` mean that a call may have started, and 1024 that none has (10).

    A lost call of an idempotent function is started again, up to the limit of failovers (14), unless a part of its
    items has been passed on, or it has taken items of a generator.
    """

    message_types: ClassVar[tuple[type, ...]] = (Request, Result, Items, InputTaken)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._catalogues = CatalogueReader()
        self._requests: dict[tuple[str, int, int], dict[RequestKey, None]] = {}
        """The request at its coordinators, one for each time that it was sent, by client, life and number."""
        self._again: dict[tuple[str, int, int], None] = {}
        """The requests that their client has sent again."""
        self._sent: dict[RequestKey, dict[str, _SentDispatch]] = {}
        self._calls: dict[tuple[str, int, int], list[_SentDispatch]] = {}
        """The calls of each dispatch to another node, by host, life and number."""
        self._streamed: dict[CallKey, None] = {}
        """The calls whose coordinator has received items of them, and those that have taken some: they do not start
        again."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is None:
            return
        execution = attempt.execution
        if execution.link in host.wires:
            client = peer_of(host, execution.link)
            sent_by = (client.host.name, client.life, execution.reply_id)
            self._requests.setdefault(sent_by, {})[request_of(key)] = None
        sent = self._sent.setdefault(request_of(key), {}).setdefault(key.call, _SentDispatch())
        sent.count += 1
        sent.idempotent = self._idempotent(host, key.call, number)
        if not sent.idempotent:
            if attempt.link == 0:
                sent.local = True
            else:
                sent.possible[number] = None
                self._calls.setdefault((host.name, host.life, number), []).append(sent)

    def _idempotent(self, host: NodeHost, name: str, number: int) -> bool:
        """Return whether the chosen member offers the function as idempotent, by its catalogue in the node's view."""
        attempt = attempt_of(host.node.coordinator, number, name)
        assert attempt is not None, "the caller has it"
        offers = self._catalogues.read(host.node.cluster.catalogue.content(attempt.candidate.member))
        offer = offers.functions.get(attempt.execution.plan.calls[name].function)
        return attempt.candidate.idempotent if offer is None else offer.idempotent

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        if not host.offers[run.function].function.spec.idempotent:
            sent = self._sent.get(request_of(key), {}).get(key.call)
            if sent is not None:
                sent.possible[0] = None

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(message, Request) and message.again and isinstance(host, NodeHost):
            client = peer_of(host, link)
            self._again[client.host.name, client.life, message.id] = None
        if isinstance(message, (Items, InputTaken)) and isinstance(host, NodeHost):
            key = self._sim.observers.keys.get((host.name, host.life, message.id, message.call))
            if key is not None:
                self._streamed[key] = None
        if not isinstance(message, Result):
            return
        if isinstance(host, NodeHost):
            if self._calls:
                self._refused(host, message)
        elif isinstance(host, ClientHost) and (message.fault is not None or message.failed):
            sent_by = (host.name, host.life, message.id)
            requests = list(self._requests.get(sent_by, ()))
            if sent_by in self._again:
                self._check_repeat(host, message, requests)
            elif requests:
                self._check(host, message, requests[-1])

    def _refused(self, host: NodeHost, result: Result) -> None:
        """Record the refused calls of a request that is still open: their bodies have not started."""
        number, coordinator = result.id, host.node.coordinator
        attempts = coordinator.outstanding.by_number(number)
        if (host.name, host.life, number) not in self._calls or not attempts:
            return
        if attempts[0].execution.id not in coordinator.requests:  # its reply was sent before
            return
        for row in result.failed:
            key = self._sim.observers.keys.get((host.name, host.life, number, row.name))
            if row.refused and key is not None:
                self._sent[request_of(key)][row.name].possible.pop(number, None)
        if result.fault is not None and not result.fault.details.get("maybe_executed", True):
            for sent in self._calls[host.name, host.life, number]:
                sent.possible.pop(number, None)

    def _check(self, client: ClientHost, result: Result, request: RequestKey) -> None:
        calls = self._sent[request]
        name = f"{name_by_number(self._sim, client.name, result.id)} ended at {client.sim.time:.6f} s with"
        for fault in (*(row.fault for row in result.failed), *(() if result.fault is None else (result.fault,))):
            sent = calls.get(str(fault.details.get("call")))
            streamed = CallKey(*request, str(fault.details.get("call"))) in self._streamed
            streamed = streamed or "because" in fault.details
            if fault.code == ErrorCode.OUTCOME_UNKNOWN and sent is not None and not streamed:
                self._lost(f"{name} {fault.code} {fault.message}", sent, request)
        fault = result.fault
        if fault is None:
            return
        started = [call for call, sent in calls.items() if sent.possible]
        maybe = started or [call for call, sent in calls.items() if sent.local]
        text = f"{name} {fault.code} {fault.message}"
        if _says_started(fault) and not maybe and not self._placed_unseen(request, calls):
            raise Violation(10, f"{text}, and no call can have started that is not idempotent")
        if started and not _says_started(fault):
            raise Violation(10, f"{text}, and promised that nothing was done; {started[:5]} may have started")
        if started and fault.code == ErrorCode.DRAINING and "call" not in fault.details:
            raise Violation(10, f"{text}, and {started[:5]} may have started")

    def _check_repeat(self, client: ClientHost, result: Result, requests: list[RequestKey]) -> None:
        """Check what a node promises of a request that was sent again: it does not know what the first one did."""
        if result.fault is None or _says_started(result.fault) or result.fault.code in _UNREAD:
            return
        started = [call for one in requests for call, sent in self._sent[one].items() if sent.possible]
        if started:
            name = f"{name_by_number(self._sim, client.name, result.id)} was sent again, and is answered with"
            text = f"{name} {result.fault.code} {result.fault.message}, which promises that nothing was done"
            raise Violation(10, f"{text}; {started[:5]} may have started before")

    def _placed_unseen(self, request: RequestKey, calls: dict[str, _SentDispatch]) -> bool:
        """Return whether a call was placed in the event that ended its request, of which no watcher is notified."""
        keys = self._sim.observers.keys.values()
        return any(request_of(key) == request and key.call not in calls for key in keys)

    def _lost(self, text: str, sent: _SentDispatch, request: RequestKey) -> None:
        failovers = self._sim.specs[request[0]].limits.failovers
        if sent.idempotent and sent.count <= failovers:
            raise Violation(14, f"{text}, and was started {sent.count} times; it is idempotent")
        if not sent.idempotent and not sent.possible and not sent.local:
            raise Violation(10, f"{text}, and was refused each time")


def _says_started(fault: Fault) -> bool:
    return bool(fault.details.get("maybe_executed"))
