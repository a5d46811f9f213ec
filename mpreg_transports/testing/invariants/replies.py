"""Parts of invariants 9 to 11: a reply is complete, and what it states about bodies is true.

A worker reports the outcome of each call before it leaves, and coordinators pass the outcome on. A client subtracts the
time that a request has waited at the client. The ledgers are kept by dispatch, because a worker replies to a dispatch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Done, Failed, Goodbye, GoodbyeReason, Message, Request, Result
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.network import WireEnd
from mpreg_transports.testing.simulation.request_names import name_by_number, name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_OF_A_CALL = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.EXECUTION_FAILED)
"""Errors that a partial request does not end with as a whole, because its reply may contain other errors beside
them."""

Dispatched = tuple[str, int, int, str]
"""A dispatched call: the coordinator's host and life, the dispatch number, the call."""


def peer_of(host: Host, link: LinkId) -> WireEnd[Host]:
    """Return the other end of an open link."""
    wire, side = host.wires[link]
    return wire.ends[1 - side]


class ReplyCompleteness(Watcher):
    """Invariant 9: a last reply and the replies before it name every wanted call.

    No reply contains an internal error, such as the one for a call without an outcome.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._named: dict[int, dict[str, None]] = {}

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result):
            return
        named = self._named.setdefault(call.label, {})
        rows: tuple[Done | Failed, ...] = (*reply.done, *reply.failed)
        named.update(dict.fromkeys(row.name for row in rows))
        if not reply.last:
            return
        self._named.pop(call.label, None)
        fault = reply.fault
        for one in (*(row.fault for row in reply.failed), *(() if fault is None else (fault,))):
            if one.code == ErrorCode.INTERNAL:
                raise Violation(9, f"{name_of_call(self._sim, call)} ended with {one.message}")
        if fault is None or (call.request.partial and fault.code in _OF_A_CALL):
            missing = [name for name in _wanted(call.request) if name not in named]
            if missing:
                how = "well" if fault is None else f"with {fault.code}"
                raise Violation(9, f"{name_of_call(self._sim, call)} ended {how} and is silent about {missing}")


def _wanted(request: Request) -> list[str]:
    if request.want is not None:
        return list(request.want)
    needed = dict.fromkeys(need for call in request.calls for need in call.dependencies)
    return [call.name for call in request.calls if call.name not in needed]


class ReplyAccuracy(Watcher):
    """Invariants 9 and 10: what a reply states is true.

    A `refused` call has not started (10). A node that leaves has first reported the outcome of all calls that ended
    (9).
    """

    message_types: ClassVar[tuple[type, ...]] = (Result, Goodbye)

    def begin(self, sim: World) -> None:
        self._of: dict[tuple[str, int, int], tuple[Dispatched, WireEnd[Host]]] = {}
        """The call of each run, and the end of the link over which its reply is sent."""
        self._ran: dict[Dispatched, None] = {}
        self._owed: dict[WireEnd[Host], dict[Dispatched, None]] = {}
        """The calls that have ended and whose reply has not arrived, by the worker's end of the link."""

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        if job is not None and job.link in host.wires:
            peer = peer_of(host, job.link)
            dispatched = (peer.host.name, peer.life, job.request, job.call.name)
            self._ran[dispatched] = None
            wire, side = host.wires[job.link]
            self._of[host.name, host.life, run.run] = dispatched, wire.ends[side]

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        found = self._of.pop((host.name, host.life, run.run), None)
        if found is not None and not host.node.left:
            self._owed.setdefault(found[1], {})[found[0]] = None

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        kind = type(message)
        if kind is Result and isinstance(host, NodeHost):
            assert isinstance(message, Result)
            peer = peer_of(host, link)
            owed = self._owed.get(peer, {})
            rows: tuple[Done | Failed, ...] = (*message.done, *message.failed)
            for row in rows:
                owed.pop((host.name, host.life, message.id, row.name), None)
            for failed in message.failed:
                if failed.refused and (host.name, host.life, message.id, failed.name) in self._ran:
                    what = f"{failed.name!r} of dispatch {message.id}"
                    raise Violation(
                        10, f"{stamp(host)} received that {what} was refused; it has run at {peer.host.name}"
                    )
        elif kind is Goodbye and message.reason == GoodbyeReason.LEAVING:  # type: ignore[union-attr]  # kind is Goodbye
            peer = peer_of(host, link)
            unsaid = [calls[2:] for calls in self._owed.pop(peer, {})]
            if unsaid:
                who = f"{peer.host.name} leaves at {host.sim.time:.6f} s"
                raise Violation(9, f"{who} and has never said to {host.name} what became of {unsaid[:5]}")


class RemainingTimeout(Watcher):
    """Invariant 11: a request that waited at its client, or is sent again, has less time left when it is sent."""

    message_types: ClassVar[tuple[type, ...]] = (Request,)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._waits: dict[tuple[str, int, int], int | None] = {}
        self._spans: dict[tuple[str, int, int], int | None] = {}

    def submitted(self, call: SimCall) -> None:
        client = self._sim.clients[call.client]
        self._spans[call.client, client.life, call.number] = call.request.timeout
        if not client.session.ready:
            self._waits[call.client, client.life, call.number] = call.request.timeout

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Request and isinstance(host, NodeHost) and (self._waits or message.again):
            peer = peer_of(host, link)
            key = (peer.host.name, peer.life, message.id)
            if key in self._waits or message.again:
                self._waits.pop(key, None)
                whole = self._spans.get(key)
                if message.timeout is None or (whole is not None and message.timeout >= whole):
                    name = name_by_number(self._sim, key[0], message.id)
                    raise Violation(11, f"{stamp(host)} gets {name}, which has waited, with all its time")
