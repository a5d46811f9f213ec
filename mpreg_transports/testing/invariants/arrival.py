"""Part of invariant 9: an error that is known when a request arrives is sent at once.

The oracle is `oracles.refusal_on_arrival`, and a search for each call in the raw catalogues of the node's view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import LinkId
from mpreg_proto.notices import Standing
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Call, Message, Request, Result
from mpreg_transports.testing.invariants.oracles import CatalogueReader, attempt_of, refusal_on_arrival, stamp
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_by_number
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_Sent = tuple[str, int, int]
"""A request of a client: host, life, number."""


class _ArrivalError(msgspec.Struct, frozen=True):
    """A request whose error is known, where it arrived."""

    link: LinkId
    number: int
    code: int
    sent: _Sent


class ImmediateErrors(Watcher):
    """Invariant 9: an error that is known on arrival ends the request at once, and none of its calls is placed.

    Such errors are a malformed graph, a number in use, a closing link, a draining or full node, calls that no node
    offers and that do not wait, and functions of a request that is sent again that are not idempotent.
    """

    message_types: ClassVar[tuple[type, ...]] = (Request, Result)

    def begin(self, sim: World) -> None:
        self._catalogues = CatalogueReader()
        self._refused: dict[str, list[_ArrivalError]] = {}
        """The requests that arrived with an error in the present event, by host."""
        self._codes: dict[_Sent, int] = {}
        """The error of each of them that has not reached its client."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(message, Result):
            if isinstance(host, ClientHost) and self._codes:
                self._answered(host, message)
        elif isinstance(message, Request) and isinstance(host, NodeHost):
            session = host.node.links.sessions[link]
            if session.member is not None:
                return
            code = ErrorCode.DRAINING if session.closing else self._known_error(host, link, message)
            peer = peer_of(host, link)
            sent = (peer.host.name, peer.life, message.id)
            self._codes.pop(sent, None)  # an earlier answer to it was lost with its link
            if code:
                self._refused.setdefault(host.name, []).append(_ArrivalError(link, message.id, code, sent))

    def _known_error(self, host: NodeHost, link: LinkId, request: Request) -> int | None:
        node, limits, session = host.node, host.spec.limits, host.node.links.sessions[link]
        if not session.classic and session.backlog >= limits.client_answers:
            return ErrorCode.OVERLOADED
        if node.draining:
            return ErrorCode.DRAINING
        mine = node.coordinator.in_flight.origins.get(link, ())
        if request.id in mine:
            return None  # the answer to the second one and that to the first have one number
        if len(node.coordinator.requests) + len(mine) >= limits.requests:
            return ErrorCode.OVERLOADED
        code = refusal_on_arrival(request, limits)
        if code:
            return code
        if not (request.wait or request.partial) and not all(self._offered(host, call) for call in request.calls):
            return ErrorCode.COMMAND_NOT_FOUND
        if request.again and any(self._offered(host, call, once=True) for call in request.calls):
            return ErrorCode.OUTCOME_UNKNOWN
        return None

    def _offered(self, host: NodeHost, call: Call, *, once: bool = False) -> bool:
        """Return whether a node offers the function of a call, `once`: as not idempotent."""
        cluster = host.node.cluster
        found = [
            offers.functions[call.function]
            for record in cluster.members.all()
            if record.standing <= Standing.SUSPECT
            and (offers := self._catalogues.read(cluster.catalogue.content(record.id))).fits(call)
        ]
        return any(not one.idempotent for one in found) if once else bool(found)

    def node_event_handled(self, host: NodeHost) -> None:
        for one in self._refused.pop(host.name, ()) if self._refused else ():
            if one.number in host.node.coordinator.in_flight.origins.get(one.link, ()):
                name = name_by_number(host.sim, one.sent[0], one.number)
                raise Violation(9, f"{stamp(host)} continues {name}, whose error {one.code} was known on its arrival")
            self._codes[one.sent] = one.code

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        if self._refused:
            attempt = attempt_of(host.node.coordinator, number, key.call)
            for one in self._refused.get(host.name, ()):
                if attempt is not None and (attempt.execution.link, attempt.execution.reply_id) == (
                    one.link,
                    one.number,
                ):
                    raise Violation(9, f"{stamp(host)} places {key.call!r} of a request with error {one.code}")

    def _answered(self, client: ClientHost, result: Result) -> None:
        code = self._codes.pop((client.name, client.life, result.id), None)
        got = 0 if result.fault is None else result.fault.code
        if code is not None and got != code:
            name = name_by_number(client.sim, client.name, result.id)
            raise Violation(9, f"{name} ended at {client.sim.time:.6f} s with {got}; on its arrival {code} was known")
