"""The client side of the protocol, without I/O like `Node`: requests in, bytes out; bytes in, replies out.

One `ClientSession` uses many links, one after another. A request that is submitted without a link waits for the next
link. A request on a link that ended is answered with 1023, unless it was never sent. If there are other nodes, the
session leaves a node that drains: requests that the node refused go to the next node, and the old link stays until the
rest is answered. The session also enforces deadlines: 200 ms after a deadline without an answer, it answers 1020
itself, cancels the request, and drops what still arrives (docs/explanation/guarantees.md).
"""

from __future__ import annotations

from typing import NoReturn, assert_never

import msgspec

from mpreg_proto.effects import Effect, Framing, HangUp, Notify
from mpreg_proto.errors import ErrorCode, Fault, LocalProtocolError
from mpreg_proto.guard import FURTHEST, check_kind, check_request, check_text, exclusive, shown
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.links import Links
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CallProgress,
    CancelRequest,
    Explain,
    Explanation,
    GetView,
    Goodbye,
    GoodbyeReason,
    Hello,
    Items,
    ItemsTaken,
    Message,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.session import Received
from mpreg_proto.wire.values import ValueCodec

_DEADLINE_MARGIN = 200 * MILLISECOND
"""The time after the deadline, in ns, for which a client still waits for the answer."""

Reply = Result | Explanation | View
"""The answer to a request or query; more follow a `Result` that is not `last`."""


_REPLY_TYPES: dict[type, type[Reply]] = {Request: Result, Explain: Explanation, GetView: View}


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The handshake is done: requests can be sent. `name` and `member` are those of the node."""

    name: str
    member: bytes
    version: int


class ReplyReceived(msgspec.Struct, frozen=True, gc=False):
    """A reply to the request or query `id` has arrived."""

    id: int
    reply: Reply


class ProgressReceived(msgspec.Struct, frozen=True, gc=False):
    """The progress of a call of the request `id`, which was submitted with `progress`."""

    id: int
    progress: CallProgress


class ItemsReceived(msgspec.Struct, frozen=True, gc=False):
    """The next items of a call of the request `id`, which named it in `streams`. Call `items_taken` for used ones."""

    id: int
    items: Items


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The node ended the link with this reason: another cluster, no common version, ..."""

    fault: Fault


class LinkDraining(msgspec.Struct, frozen=True, gc=False):
    """The node accepts nothing more on `link`: connect to another node. The link ends once its answers have arrived."""

    link: LinkId


ClientEffect = Effect | Ready | ReplyReceived | ProgressReceived | ItemsReceived | Rejected | LinkDraining
"""A client returns only Send, HangUp and Notify of `Effect`."""


class _Pending:
    __slots__ = (
        "deadline",
        "has_results",
        "link",
        "may_execute",
        "message",
        "progress",
        "reply_type",
        "retries_left",
        "streams",
        "view",
        "was_queued",
    )

    def __init__(self, message: Request | Explain | GetView, deadline: int, retries_left: int) -> None:
        self.reply_type: type[Reply] = _REPLY_TYPES[type(message)]
        """The type of its answer, if that is not an error."""
        self.view = bytearray()
        """The parts of a `View` that have arrived."""
        self.message: Request | Explain | GetView | None = message
        self.may_execute = isinstance(message, Request)
        """True if it can make a function run. Queries cannot, so they can be sent again at any time."""
        self.progress = isinstance(message, Request) and message.progress
        """True if the progress of its calls is wanted."""
        self.streams = message.streams if isinstance(message, Request) else ()
        """The calls whose items come one by one."""
        self.deadline = deadline
        self.link: LinkId | None = None
        """The link on which it was sent; None while it waits."""
        self.retries_left = retries_left
        """The number of times that it may still go to another node, if no node has started anything of it."""
        self.was_queued = False
        """True if it waited here, so that less of its time is left."""
        self.has_results = False
        """True if some results have arrived: then no other node may start it again."""


class ClientSession:
    """A client. Not thread-safe; never awaits; `drain` works as in `Node`. All times are nanoseconds.

    `alternatives` is the number of other addresses that its owner can connect to when a node drains. `links` may be
    read, but not used.
    """

    def __init__(
        self,
        *,
        name: str = "",
        cluster_id: str = "",
        limits: Limits = DEFAULT,
        codec: ValueCodec | None = None,
        alternatives: int = 0,
    ) -> None:
        """Raises LocalProtocolError for arguments of wrong kinds."""
        check_text("name", name)
        check_text("cluster_id", cluster_id)
        check_kind("limits", limits, (Limits,))
        check_kind("alternatives", alternatives, (int,))
        if codec is not None and not isinstance(codec, ValueCodec):
            raise LocalProtocolError(f"codec={shown(codec)}: expected a ValueCodec")
        self._limits = limits
        self._alternatives = alternatives
        self._timers = Timers()
        self._log: list[ClientEffect] = []
        self._own_log: list[Effect] = []
        self._pending: dict[int, _Pending] = {}
        self._unsent: dict[int, _Pending] = {}
        self._unreachable = ""
        self._last_id = 0
        self._free: list[None] = [None]
        self._link: LinkId | None = None
        self._draining: dict[LinkId, dict[int, None]] = {}
        """Links to nodes that drain, each with the requests and queries that its node still has to answer."""
        self.ready: bool = False
        """True if there is a link on which requests can be sent."""
        self.links: Links = Links(
            lambda: hello(cluster=cluster_id, member=b"", name=name),
            codec=codec or ValueCodec(),
            timers=self._timers,
            limits=limits,
            log=self._own_log,
            busy_on=lambda link: any(pending.link == link for pending in self._pending.values()),
            frozen_after=limits.frozen_after if alternatives > 0 else None,
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share parts of this session."""
        raise TypeError("cannot copy or pickle a ClientSession: make another one")

    # -- inputs -------------------------------------------------------------------------------------------------------

    @exclusive
    def link_opened(self, link: LinkId, *, framing: Framing, address: Address, now: int) -> None:
        """Take an open transport to a node.

        Raises LocalProtocolError if there is one already, for a number that was used before or is below 1, and for an
        address that is no text; nothing has changed then.
        """
        check_text("address", address)
        if self._link is not None:
            raise LocalProtocolError(f"link {self._link} is open already: a session uses one link after another")
        self.links.opened(link, framing=framing, dialled=address, now=now)
        self._link = link
        self._collect_effects()

    @exclusive
    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        """Take bytes of a stream, or one whole message of a link that keeps message boundaries.

        Raises LocalProtocolError for a link that is not open, and for text on a byte stream; nothing has changed then.
        """
        self._receive(link, self.links.receive(link, data, now), now)

    @exclusive
    def handle(self, link: LinkId, message: Message, *, now: int) -> None:
        """Take one message of a link with Framing.OBJECTS, as it was in `Send.message` at the other end.

        Raises LocalProtocolError as `Node.handle` does.
        """
        self._receive(link, self.links.handle(link, message, now), now)

    @exclusive
    def progress(self, link: LinkId, *, now: int) -> None:
        """Record a sign of life on a link, see `Node.progress`. Raises LocalProtocolError for one that is not open."""
        self.links.require(link)
        self.links.progress(link, now)

    @exclusive
    def link_closed(self, link: LinkId, *, now: int) -> None:
        """Take the end of a transport: answer what was sent on it with 1023; what was never sent waits for the next.

        Raises LocalProtocolError for a link that is not open; nothing has changed then.
        """
        if self.links.closed(link) is not None:
            self._let_go(link)
        self._collect_effects()

    def _let_go(self, link: LinkId) -> None:
        """End all that belonged to a link."""
        if link == self._link:
            self._link = None
            self.ready = False
        elif self._draining.pop(link, None) is None:
            return
        for number, pending in list(self._pending.items()):
            if pending.link == link:
                may = "while the request may have been running" if pending.may_execute else "before it answered"
                text = f"the link to the node was lost {may}"
                fault = Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"maybe_executed": pending.may_execute})
                self._settle(number, Result(number, fault=fault))

    @exclusive
    def wake(self, *, now: int) -> None:
        """Do what is due at `now`, if anything is."""
        for key in self._timers.due(now):
            if key[0] == TimerKind.LATE:
                self._deadline_exceeded(int(key[1]))
            elif key[0] == TimerKind.DECODE:
                link = LinkId(int(key[1]))
                self._receive(link, self.links.continue_decoding(link, now), now)
            else:
                self.links.wake(key, now)
        self.links.quiet.clear()
        self._collect_effects()

    # -- commands -----------------------------------------------------------------------------------------------------

    @exclusive
    def submit(self, request: Request, *, now: int) -> int:
        """Send `request`, now or once there is a link; return the number that its `ReplyReceived` will carry.

        While the node closes its link, and between links, it waits for the next link. An error of a request that was
        never sent has `maybe_executed: False`. Raises LocalProtocolError for something that is no `Request`, or that
        has a field of another type; nothing has changed then.
        """
        check_request(request)
        span = self._limits.default_timeout if request.timeout is None else request.timeout
        number = self._next_id()
        return self._add_pending(number, msgspec.structs.replace(request, id=number), now + span, now)

    @exclusive
    def explain(self, request: Request, *, now: int) -> int:
        """Send a query for the nodes on which `request` would run; return its number. Raises as `submit` does."""
        check_request(request)
        number = self._next_id()
        question = Explain(msgspec.structs.replace(request, id=number))
        return self._add_pending(number, question, now + self._limits.default_timeout, now)

    @exclusive
    def get_view(self, *, now: int) -> int:
        """Send a query for the node's view of the cluster; return its number."""
        number = self._next_id()
        return self._add_pending(number, GetView(number), now + self._limits.default_timeout, now)

    @exclusive
    def cancel(self, number: int, *, now: int) -> None:
        """Cancel a request: no answer comes, and the node receives a `CancelRequest`."""
        check_kind("the number of a request", number, (int,))
        pending = self._pending.get(number)
        if pending is not None:
            if pending.link is not None:
                self.links.send_or_close(pending.link, CancelRequest(number))
            self._forget(number)
            self._collect_effects()

    @exclusive
    def items_taken(self, number: int, call: str, count: int, *, now: int) -> None:
        """Let the node send so many more items of a call, as the caller has used as many. Of an ended one do nothing.

        Raises LocalProtocolError for arguments of wrong kinds.
        """
        check_kind("the number of a request", number, (int,))
        check_kind("call", call, (str,))
        check_kind("count", count, (int,))
        pending = self._pending.get(number)
        if pending is not None and pending.link is not None:
            self.links.send_or_close(pending.link, ItemsTaken(number, call, count))
            self._collect_effects()

    @exclusive
    def close(self, *, now: int) -> None:
        """Hang up. The node's answers to pending requests do not arrive any more."""
        if self._link is not None:
            self.links.hang_up(self._link)
            self._collect_effects()

    @exclusive
    def unreachable(self, reason: str) -> None:
        """Record that no address answers for now: errors of requests that end before one answers include `reason`."""
        check_kind("reason", reason, (str,))
        self._unreachable = reason

    @exclusive
    def fail_all(self, fault: Fault) -> None:
        """Answer all that is pending with `fault`, because no link will open."""
        check_kind("fault", fault, (Fault,))
        for number in list(self._pending):
            self._settle(number, Result(number, fault=fault))
        self._collect_effects()

    # -- outputs ------------------------------------------------------------------------------------------------------

    @exclusive
    def drain(self) -> list[ClientEffect]:
        """Return all effects since the last `drain`, in the order of their causes."""
        log, self._log = self._log, []
        return log

    @exclusive
    def next_timeout(self) -> int | None:
        """Return the latest time at which `wake` should be called, or None."""
        return self._timers.next()

    def __len__(self) -> int:
        """Return the number of requests and queries without an answer."""
        return len(self._pending)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _add_pending(self, number: int, message: Request | Explain | GetView, deadline: int, now: int) -> int:
        pending = self._pending[number] = _Pending(message, deadline, self._alternatives)
        self._timers.set((TimerKind.LATE, number), min(deadline + _DEADLINE_MARGIN, FURTHEST))
        if self.ready and self._link is not None:
            self._send(self._link, number, pending, now)
            self._collect_effects()
        else:
            self._queue(number, pending)
        return number

    def _queue(self, number: int, pending: _Pending) -> None:
        """Keep it for the next link."""
        pending.was_queued = True
        self._unsent[number] = pending

    def _send(self, link: LinkId, number: int, pending: _Pending, now: int) -> None:
        message = pending.message
        assert message is not None, "a question that may be sent again is kept"
        if pending.was_queued and isinstance(message, Request) and (message.timeout is None or message.timeout > 0):
            # It waited here, so less time is left. A timeout that is not valid stays as it is, for the node to refuse.
            message = msgspec.structs.replace(message, timeout=max(1, pending.deadline - now))
        try:
            outcome = self.links.send(link, message)
        except (ValueError, OverflowError, TypeError, RecursionError) as error:  # UnicodeError is a ValueError
            fault = Fault(
                ErrorCode.INVALID_REQUEST, f"the request cannot be encoded: {error}", {"maybe_executed": False}
            )
            self._settle(number, Result(number, fault=fault))
            return
        match outcome:
            case Sent():
                pending.link = link
                self.links.watch(link, now)
                if not pending.retries_left:
                    pending.message = None  # its bytes are sent; do not keep a large argument
            case TooLong():
                self._settle(number, Result(number, fault=outcome.fault(maybe_executed=False)))
            case LinkGone():
                self._queue(number, pending)  # it is sent on the next link
            case _:
                assert_never(outcome)

    def _receive(self, link: LinkId, received: Received, now: int) -> None:
        for message in received:
            if self.links.handle_control(link, message, now):
                self._on_message(link, message, now)
        if received.violation is not None:
            self.links.refuse(link, received.violation)
        self._collect_effects()

    def _on_message(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        match message:
            case Result() | Explanation() | View():
                self._on_reply(link, message, now)
            case CallProgress():
                self._on_progress(link, message)
            case Items():
                self._on_items(link, message)
            case Hello():
                self._on_hello(link, message, now)
            case Goodbye(reason):
                self._start_draining(link)
                if reason == GoodbyeReason.LEAVING:
                    self._on_node_left(link, now)
            case Refused() if link == self._link:
                self._log.append(Rejected(message.fault))
            case _:
                pass  # newer kinds end the link before this

    def _on_progress(self, link: LinkId, message: CallProgress) -> None:
        pending = self._pending.get(message.id)
        if pending is not None and pending.link == link and pending.progress:
            self._log.append(ProgressReceived(message.id, message))

    def _on_items(self, link: LinkId, message: Items) -> None:
        pending = self._pending.get(message.id)
        if pending is not None and pending.link == link and message.call in pending.streams:
            pending.has_results = True
            self._log.append(ItemsReceived(message.id, message))

    def _on_reply(self, link: LinkId, reply: Reply, now: int) -> None:
        """Take a reply. Ignore one whose request was not sent over `link`, or has another type of answer."""
        pending = self._pending.get(reply.id)
        if pending is None or pending.link != link:
            return
        if isinstance(reply, View) and pending.reply_type is View:
            pending.view += reply.view
            if reply.last:
                self._settle(reply.id, View(reply.id, bytes(pending.view)))
        elif isinstance(reply, Result) and pending.reply_type is Result and not reply.last:
            pending.has_results = True
            self._log.append(ReplyReceived(reply.id, reply))
        elif (
            isinstance(reply, Result)
            and reply.fault is not None
            and pending.retries_left
            and _refused_while_draining(reply.fault)
        ):
            self._retry_unless_started(link, pending, reply, now)
        elif isinstance(reply, pending.reply_type) or (isinstance(reply, Result) and reply.fault is not None):
            self._settle(reply.id, reply)

    def _retry_unless_started(self, link: LinkId, pending: _Pending, result: Result, now: int) -> None:
        """Send a request that a draining node refused to another node, unless a part of it was answered."""
        if pending.has_results:
            self._settle(result.id, result)
            return
        self._start_draining(link)
        self._retry(result.id, pending, now)

    def _retry(self, number: int, pending: _Pending, now: int) -> None:
        """Send a request to another node, because a draining node has started nothing of it."""
        left, pending.link = pending.link, None
        pending.retries_left -= 1
        self._remove_from_draining(left, number)
        self._queue(number, pending)
        if self.ready and self._link is not None:
            self._send(self._link, number, self._unsent.pop(number), now)

    def _on_node_left(self, link: LinkId, now: int) -> None:
        """Retry or fail what a node that left has not answered: it answered all that it had accepted."""
        fault = Fault(
            ErrorCode.DRAINING, "the node left the cluster before it took the request", {"maybe_executed": False}
        )
        for number, pending in list(self._pending.items()):
            if pending.link == link and pending.retries_left and not pending.has_results:
                self._retry(number, pending, now)
            elif pending.link == link:
                self._settle(number, Result(number, fault=fault))

    def _start_draining(self, link: LinkId) -> None:
        """Send nothing new on the link of a node that accepts nothing more, and report `LinkDraining`."""
        if link != self._link:
            return
        self._link = None
        self.ready = False
        waiting = {number: None for number, pending in self._pending.items() if pending.link == link}
        self._draining[link] = waiting
        self._log.append(LinkDraining(link))
        if not waiting:
            self.links.hang_up(link)

    def _remove_from_draining(self, link: LinkId | None, number: int) -> None:
        """Remove a request from a draining link; hang up after the last one."""
        waiting = None if link is None else self._draining.get(link)
        if link is not None and waiting is not None and number in waiting:
            del waiting[number]
            if not waiting:
                self.links.hang_up(link)

    def _on_hello(self, link: LinkId, theirs: Hello, now: int) -> None:
        if link != self._link:
            return
        self.ready, self._unreachable = True, ""
        agreed = self.links.sessions[link].agreed
        self._log.append(Ready(theirs.name, theirs.member, agreed.version if agreed is not None else 0))
        unsent, self._unsent = self._unsent, {}
        for number, pending in unsent.items():
            self._send(link, number, pending, now)

    def _settle(self, number: int, reply: Reply) -> None:
        if number in self._pending:
            self._forget(number)
            self._log.append(ReplyReceived(number, reply))

    def _forget(self, number: int) -> None:
        pending = self._pending.pop(number)
        self._remove_from_draining(pending.link, number)
        self._unsent.pop(number, None)
        self._timers.cancel((TimerKind.LATE, number))

    def _deadline_exceeded(self, number: int) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        link = pending.link
        why = f" ({self._unreachable})" if self._unreachable else ""
        text = "no answer came by the deadline"
        if link is None:
            text = f"the request was never sent: no node could be reached by the deadline{why}"
        maybe = link is not None and pending.may_execute
        if link is not None:
            self.links.send_or_close(link, CancelRequest(number))
        self._settle(number, Result(number, fault=Fault(ErrorCode.DEADLINE_EXCEEDED, text, {"maybe_executed": maybe})))

    def _collect_effects(self) -> None:
        """Move the effects of the links into the one log, in order, and let go of links that were hung up."""
        while True:
            self._log.extend(self._own_log)
            self._own_log.clear()
            if not self.links.ended:
                return
            session, _ = self.links.release()
            self._let_go(session.link)


def _refused_while_draining(fault: Fault) -> bool:
    """Return whether a node that drains has refused a whole request, and started nothing of it."""
    return (
        fault.code == ErrorCode.DRAINING
        and "call" not in fault.details
        and fault.details.get("maybe_executed") is False
    )


__all__ = [
    "ClientEffect",
    "ClientSession",
    "HangUp",
    "ItemsReceived",
    "LinkDraining",
    "Notify",
    "ProgressReceived",
    "Ready",
    "Rejected",
    "Reply",
    "ReplyReceived",
]
