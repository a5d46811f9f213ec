"""Parts of invariants 9 to 11: an answer says all that was asked, and what it says of bodies is true.

Workers say of each call what became of it, before they go; coordinators pass that on; clients count down the time that
a request has waited with them. Ledgers are kept by dispatch, as it is the dispatch that a worker answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import LinkId
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Done, Failed, Goodbye, GoodbyeReason, Message, Request, Result
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.network import WireEnd
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_OF_A_CALL = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.EXECUTION_FAILED)
"""Errors that a partial request does not end with as a whole: there are others beside them in its answer."""

Dispatched = tuple[str, int, int, str]
"""A call as it was handed to somebody: coordinator's host and life, dispatch number, call."""


def peer_of(host: Host, link: LinkId) -> WireEnd[Host]:
    """The other end of a link that stands."""
    wire, side = host.wires[link]
    return wire.ends[1 - side]


class ReplyCompleteness(Watcher):
    """9: a last answer, with what came before it, names every wanted call; no call is left without a word (1002)."""

    def begin(self, sim: World) -> None:
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
                raise Violation(9, f"request {call.number} of {call.client} ended with {one.message}")
        if fault is None or (call.request.partial and fault.code in _OF_A_CALL):
            missing = [name for name in _wanted(call.request) if name not in named]
            if missing:
                how = "well" if fault is None else f"with {fault.code}"
                raise Violation(9, f"request {call.number} of {call.client} ended {how} and is silent about {missing}")


def _wanted(request: Request) -> list[str]:
    if request.want is not None:
        return list(request.want)
    needed = dict.fromkeys(need for call in request.calls for need in call.dependencies)
    return [call.name for call in request.calls if call.name not in needed]


class ReplyAccuracy(Watcher):
    """10: what was `refused` has not started. 9: who leaves has first said what became of all that ended."""

    message_types = (Result, Goodbye)

    def begin(self, sim: World) -> None:
        self._of: dict[tuple[str, int, int], tuple[Dispatched, WireEnd[Host]]] = {}
        """What each run is for, and at which end of which link its answer goes out."""
        self._ran: dict[Dispatched, None] = {}
        self._owed: dict[WireEnd[Host], dict[Dispatched, None]] = {}
        """Calls that have ended and whose answer has not been heard, by the worker's end of the link."""

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
                    raise Violation(10, f"{stamp(host)} hears that {what} was refused; it has run at {peer.host.name}")
        elif kind is Goodbye and message.reason == GoodbyeReason.LEAVING:  # type: ignore[union-attr]  # its kind says so
            peer = peer_of(host, link)
            unsaid = [calls[2:] for calls in self._owed.pop(peer, {})]
            if unsaid:
                who = f"{peer.host.name} leaves at {host.sim.time:.6f} s"
                raise Violation(9, f"{who} and has never said to {host.name} what became of {unsaid[:5]}")


class RemainingTimeout(Watcher):
    """11: what waited for a link at its client has less time left when it is sent."""

    message_types = (Request,)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._waits: dict[tuple[str, int, int], int | None] = {}

    def submitted(self, call: SimCall) -> None:
        client = self._sim.clients[call.client]
        if not client.session.ready:
            self._waits[call.client, client.life, call.number] = call.request.timeout

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Request and isinstance(host, NodeHost) and self._waits:
            peer = peer_of(host, link)
            key = (peer.host.name, peer.life, message.id)
            if key in self._waits:
                whole = self._waits.pop(key)
                if message.timeout is None or (whole is not None and message.timeout >= whole):
                    raise Violation(
                        11, f"{stamp(host)} gets request {message.id} of {key[0]}, which has waited, with all its time"
                    )
