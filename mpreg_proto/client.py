"""The caller's side of the protocol, as pure as `Node`: requests in, bytes out; bytes in, replies out.

One `ClientSession` lives over many links: what was submitted while none stood waits and leaves with the next; what was
on a link that ended is answered with 1023, unless it never left. With other nodes to go to, it leaves a node that
drains: requests that the node refused go to the next one, and the old link stays until the rest is answered. Deadlines
are enforced here too: 200 ms after one has passed without an answer, the session answers 1020 itself, cancels, and
drops what still comes (docs/explanation/guarantees.md).
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from mpreg_proto.effects import Effect, Framing, HangUp, Notify
from mpreg_proto.errors import ErrorCode, Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.links import Links
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    CancelRequest,
    Explain,
    Explanation,
    GetView,
    Goodbye,
    GoodbyeReason,
    Hello,
    Message,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.session import Received, Stage
from mpreg_proto.wire.values import ValueCodec

_DEADLINE_MARGIN = 200 * MILLISECOND
"""How long after the deadline a client stops believing that the answer is on its way."""

Reply = Result | Explanation | View
"""What answers a question; a `Result` that is not `last` has others after it."""


_REPLY_TYPES: dict[type, type[Reply]] = {Request: Result, Explain: Explanation, GetView: View}


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The handshake is done: requests flow. `name` and `member` are the node's."""

    name: str
    member: bytes
    version: int


class ReplyReceived(msgspec.Struct, frozen=True, gc=False):
    """Something came of question `id`."""

    id: int
    reply: Reply


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The node ended the link, with this reason: another cluster, no version in common, ..."""

    fault: Fault


class LinkDraining(msgspec.Struct, frozen=True, gc=False):
    """The node takes nothing more on `link`: connect to another one. The link ends once its answers are there."""

    link: LinkId


ClientEffect = Effect | Ready | ReplyReceived | Rejected | LinkDraining
"""Of `Effect` a client has Send, HangUp and Notify."""


class _Pending:
    __slots__ = (
        "deadline",
        "has_results",
        "link",
        "may_execute",
        "message",
        "reply_type",
        "retries_left",
        "view",
        "was_queued",
    )

    def __init__(self, message: Request | Explain | GetView, deadline: int, retries_left: int) -> None:
        self.reply_type: type[Reply] = _REPLY_TYPES[type(message)]
        """What answers it, beside an error."""
        self.view = bytearray()
        """The parts of a `View` that have come."""
        self.message: Request | Explain | GetView | None = message
        self.may_execute = isinstance(message, Request)
        """Whether it can make anything run; other questions may be asked again, whatever became of them."""
        self.deadline = deadline
        self.link: LinkId | None = None
        """Where it was sent; None while it waits."""
        self.retries_left = retries_left
        """How often it may still go to another node that has started nothing of it."""
        self.was_queued = False
        """Whether it was kept here for a while, so that less of its time is left."""
        self.has_results = False
        """Whether some results have come: then no other node may begin it again."""


class ClientSession:
    """A caller. Not thread-safe; never awaits; `drain` as in `Node`. All times are nanoseconds.

    `alternatives`: how many other addresses its owner has to go to when a node drains. `links` may be looked at,
    never used.
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
        self._limits = limits
        self._alternatives = alternatives
        self._timers = Timers()
        self._log: list[ClientEffect] = []
        self._own_log: list[Effect] = []
        self._pending: dict[int, _Pending] = {}
        self._unsent: dict[int, _Pending] = {}
        self._unreachable = ""
        self._last_id = 0
        self._link: LinkId | None = None
        self._draining: dict[LinkId, dict[int, None]] = {}
        """Links to nodes that drain, each with the questions that it still has to answer."""
        self.ready = False
        """Whether a link stands on which requests flow."""
        self.links = Links(
            lambda: hello(cluster=cluster_id, member=b"", name=name),
            codec=codec or ValueCodec(),
            timers=self._timers,
            limits=limits,
            log=self._own_log,
            busy_on=lambda link: any(pending.link == link for pending in self._pending.values()),
        )

    # -- inputs -------------------------------------------------------------------------------------------------------

    def link_opened(self, link: LinkId, *, framing: Framing, address: Address, now: int) -> None:
        """A transport to a node stands. Raises LocalProtocolError if one does already; nothing has changed then."""
        if self._link is not None:
            raise LocalProtocolError(f"link {self._link} stands already")
        self.links.opened(link, framing=framing, dialled=address, now=now)
        self._link = link
        self._collect_effects()

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        """Bytes of a stream, or one whole message of a link that keeps their borders."""
        self._receive(link, self.links.receive(link, data, now), now)

    def handle(self, link: LinkId, message: Message, *, now: int) -> None:
        """One message of a link with Framing.OBJECTS, as it was in `Send.message` at the other end."""
        self._receive(link, self.links.handle(link, message, now), now)

    def progress(self, link: LinkId, *, now: int) -> None:
        """See `Node.progress`."""
        self.links.progress(link, now)

    def link_closed(self, link: LinkId, *, now: int) -> None:
        """The transport is gone: what was on it is answered with 1023, what never left waits for the next."""
        self.links.closed(link)
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
        self._collect_effects()

    def wake(self, *, now: int) -> None:
        """Time has passed: do what is due. A no-op when nothing is."""
        for key in self._timers.due(now):
            if key[0] == TimerKind.LATE:
                self._deadline_exceeded(int(key[1]))
            else:
                self.links.wake(key, now)
        self._collect_effects()

    # -- commands -----------------------------------------------------------------------------------------------------

    def submit(self, request: Request, *, now: int) -> int:
        """Send `request`, now or when a link stands; gives the number that its `ReplyReceived` will carry."""
        span = self._limits.default_timeout if request.timeout is None else request.timeout
        self._last_id += 1
        number = self._last_id
        return self._add_pending(number, msgspec.structs.replace(request, id=number), now + span, now)

    def explain(self, request: Request, *, now: int) -> int:
        """Ask where `request` would run."""
        self._last_id += 1
        number = self._last_id
        question = Explain(msgspec.structs.replace(request, id=number))
        return self._add_pending(number, question, now + self._limits.default_timeout, now)

    def get_view(self, *, now: int) -> int:
        """Ask how the node sees the cluster."""
        self._last_id += 1
        return self._add_pending(self._last_id, GetView(self._last_id), now + self._limits.default_timeout, now)

    def cancel(self, number: int, *, now: int) -> None:
        """The answer is wanted no more: none comes, and the node is told to stop."""
        pending = self._pending.get(number)
        if pending is not None:
            if pending.link is not None:
                self.links.send_or_close(pending.link, CancelRequest(number))
            self._forget(number)
            self._collect_effects()

    def close(self, *, now: int) -> None:
        """Hang up. Answers to what is pending do not come any more."""
        if self._link is not None:
            self.links.hang_up(self._link)
            self._collect_effects()

    def unreachable(self, reason: str) -> None:
        """No address answers, for now: what ends before one does says `reason`."""
        self._unreachable = reason

    def fail_all(self, fault: Fault) -> None:
        """No link will stand: answer all that is pending with `fault`."""
        for number in list(self._pending):
            self._settle(number, Result(number, fault=fault))
        self._collect_effects()

    # -- outputs ------------------------------------------------------------------------------------------------------

    def drain(self) -> list[ClientEffect]:
        """All effects since the last `drain`, in the order of their causes."""
        log, self._log = self._log, []
        return log

    def next_timeout(self) -> int | None:
        """When `wake` should be called at the latest, or None."""
        return self._timers.next()

    def __len__(self) -> int:
        """How many questions have no answer yet."""
        return len(self._pending)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _add_pending(self, number: int, message: Request | Explain | GetView, deadline: int, now: int) -> int:
        pending = self._pending[number] = _Pending(message, deadline, self._alternatives)
        self._timers.set((TimerKind.LATE, number), deadline + _DEADLINE_MARGIN)
        if self.ready and self._link is not None:
            self._send(self._link, number, pending, now)
            self._collect_effects()
        else:
            self._queue(number, pending)
        return number

    def _queue(self, number: int, pending: _Pending) -> None:
        """Let it wait for the next link."""
        pending.was_queued = True
        self._unsent[number] = pending

    def _send(self, link: LinkId, number: int, pending: _Pending, now: int) -> None:
        message = pending.message
        assert message is not None, "a question that may be sent again is kept"
        if pending.was_queued and isinstance(message, Request):  # it waited here: what is left is less
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
                if not pending.retries_left:
                    pending.message = None  # its bytes are on their way; a large argument need not stay
            case TooLong():
                self._settle(number, Result(number, fault=outcome.fault(maybe_executed=False)))
            case LinkGone():
                self._queue(number, pending)  # it leaves with the next
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

    def _on_reply(self, link: LinkId, reply: Reply, now: int) -> None:
        """Something came of a question. What was not sent over `link`, or asks for something else, is not answered."""
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
        """The node drains and has refused a question, which goes to another one unless a part of it was answered."""
        if pending.has_results:
            self._settle(result.id, result)
            return
        self._start_draining(link)
        self._retry(result.id, pending, now)

    def _retry(self, number: int, pending: _Pending, now: int) -> None:
        """A node that drains has started nothing of it: send it to another one."""
        left, pending.link = pending.link, None
        pending.retries_left -= 1
        self._remove_from_draining(left, number)
        self._queue(number, pending)
        if self.ready and self._link is not None:
            self._send(self._link, number, self._unsent.pop(number), now)

    def _on_node_left(self, link: LinkId, now: int) -> None:
        """The node has left, and answered all that it had accepted: the rest came too late to be looked at."""
        fault = Fault(
            ErrorCode.DRAINING, "the node left the cluster before it took the request", {"maybe_executed": False}
        )
        for number, pending in list(self._pending.items()):
            if pending.link == link and pending.retries_left and not pending.has_results:
                self._retry(number, pending, now)
            elif pending.link == link:
                self._settle(number, Result(number, fault=fault))

    def _start_draining(self, link: LinkId) -> None:
        """The node takes nothing more: nothing new goes out on this link, and another one is asked for."""
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
        """One question less on a link that drains; after the last one it is hung up."""
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
        text = f"no node could be reached by the deadline{why}" if link is None else "no answer came by the deadline"
        maybe = link is not None and pending.may_execute
        if link is not None:
            self.links.send_or_close(link, CancelRequest(number))
        self._settle(number, Result(number, fault=Fault(ErrorCode.DEADLINE_EXCEEDED, text, {"maybe_executed": maybe})))

    def _collect_effects(self) -> None:
        """What the link wants goes into the one log, in order; over one that was hung up no request flows."""
        if self.ready and self._link is not None and self.links.sessions[self._link].stage is Stage.ENDED:
            self.ready = False
        if self._own_log:
            self._log.extend(self._own_log)
            self._own_log.clear()


def _refused_while_draining(fault: Fault) -> bool:
    """Whether a node that drains has refused a whole request, and started nothing of it."""
    return (
        fault.code == ErrorCode.DRAINING
        and "call" not in fault.details
        and fault.details.get("maybe_executed") is False
    )


__all__ = [
    "ClientEffect",
    "ClientSession",
    "HangUp",
    "LinkDraining",
    "Notify",
    "Ready",
    "Rejected",
    "Reply",
    "ReplyReceived",
]
