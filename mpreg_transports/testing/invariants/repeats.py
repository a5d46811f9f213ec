"""Parts of invariants 10 to 12: what a client sends again, read from the messages that reach nodes and clients.

A request is sent again after the loss of its link, and then says so (`again`), or after a refusal, if its caller asked
for that. The oracle knows nothing of the client's tables: it counts requests with a number that came before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import LinkId
from mpreg_proto.retries import CALLS_PER_REPEAT, RESERVE
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message, Request, Result
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_Sent = tuple[str, int, int]
"""A request of a client: host, life, number."""


class _Row:
    """One request of a client."""

    __slots__ = ("answer", "answered_at", "arrivals", "call", "partial")

    def __init__(self, call: SimCall) -> None:
        self.call = call
        self.arrivals: list[LinkId] = []
        """The links over which it reached a node."""
        self.answer: Fault | None = None
        """The error of the last answer that its client has received, and when."""
        self.answered_at = 0
        self.partial = False
        """True if a part of its results has arrived."""


class ClientRepeats(Watcher):
    """Invariants 10, 11 and 12: a client repeats what it may, when it may, and no more often.

    What may have started is sent again with `again` only, and never after a part of its results (10); what was refused
    without a promise is not repeated (10), nor before the pause that the node asked for (11). Repeats after refusals
    are a tenth of a client's calls at most, beside a small reserve; repeats after losses are bounded for each (12).
    """

    message_types: ClassVar[tuple[type, ...]] = (Request, Result)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._rows: dict[_Sent, _Row] = {}
        self._calls: dict[tuple[str, int], int] = {}
        self._repeats: dict[tuple[str, int], int] = {}
        """The calls and the repeats after refusals of each client."""

    def submitted(self, call: SimCall) -> None:
        life = self._sim.clients[call.client].life
        self._rows[call.client, life, call.number] = _Row(call)
        self._calls[call.client, life] = self._calls.get((call.client, life), 0) + 1

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if isinstance(host, ClientHost) and type(message) is Result:
            row = self._rows.get((host.name, host.life, message.id))
            if row is not None:
                row.answer, row.answered_at = message.fault, host.local
                row.partial = row.partial or not message.last
        elif isinstance(host, NodeHost) and type(message) is Request:
            client = peer_of(host, link).host
            row = self._rows.get((client.name, peer_of(host, link).life, message.id))
            if isinstance(client, ClientHost) and row is not None:
                if row.arrivals:
                    self._sent_again(client, row, message)
                row.arrivals.append(link)

    def _sent_again(self, client: ClientHost, row: _Row, request: Request) -> None:
        name = name_of_call(self._sim, row.call)
        if row.partial:
            raise Violation(10, f"{name} was sent again, after a part of its results")
        losses = client.session._limits.failovers
        if request.again:
            if row.answer is None and len(row.arrivals) > losses + RESERVE:
                raise Violation(12, f"{name} was sent {len(row.arrivals) + 1} times, at most {losses} after a loss")
            return
        fault = row.answer
        if fault is None:
            raise Violation(10, f"{name} was sent again without a word, and may have started")
        if not row.call.retry or fault.code not in (ErrorCode.OVERLOADED, ErrorCode.DRAINING):
            raise Violation(10, f"{name} was sent again after {fault.code} {fault.message}")
        if fault.details.get("maybe_executed") is not False:
            raise Violation(10, f"{name} was sent again after {fault.code}, and may have started")
        after = fault.details.get("retry_after", 0)
        if client.local < row.answered_at + int(after * 1e9):
            raise Violation(11, f"{name} was sent again before the {after:g} s that the node asked for")
        key = client.name, client.life
        self._repeats[key] = self._repeats.get(key, 0) + 1
        if self._repeats[key] > RESERVE + self._calls[key] // CALLS_PER_REPEAT:
            raise Violation(12, f"{client.name} repeats {self._repeats[key]} of {self._calls[key]} calls")
