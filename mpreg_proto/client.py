"""The caller's side of the protocol, as pure as `Node`: requests in, bytes out; bytes in, replies out.

One `ClientSession` lives over many links: what was submitted while none stood waits and leaves with the next; what was
on a link that ended is answered with 1023, unless it never left. Deadlines are enforced here too: 200 ms after one has
passed without an answer, the session answers 1020 itself, cancels, and drops what still comes
(docs/explanation/guarantees.md).
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from mpreg_proto.effects import Effect, Framing, HangUp, Notify
from mpreg_proto.errors import Fault, LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.links import Links
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.timers import Timers
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import (
    Ask,
    CancelRequest,
    Explain,
    Explanation,
    Hello,
    Message,
    Refused,
    Request,
    Result,
    Told,
)
from mpreg_proto.wire.session import Received, Stage
from mpreg_proto.wire.values import ValueCodec

_LATE = 200 * MILLISECOND
"""How long after the deadline a client stops believing that the answer is on its way."""

Reply = Result | Explanation | Told
"""What answers a question; a `Result` that is not `last` has others after it."""


_ANSWERS: dict[type, type[Reply]] = {Request: Result, Explain: Explanation, Ask: Told}


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The handshake is done: requests flow. `name` and `member` are the node's."""

    name: str
    member: bytes
    version: int


class Replied(msgspec.Struct, frozen=True, gc=False):
    """Something came of question `id`."""

    id: int
    reply: Reply


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The node ended the link, with this reason: another cluster, no version in common, ..."""

    fault: Fault


ClientEffect = Effect | Ready | Replied | Rejected
"""Of `Effect` a client has Send, HangUp and Notify."""


class _Pending:
    __slots__ = ("answer", "deadline", "message", "runs", "sent", "view")

    def __init__(self, message: Request | Explain | Ask, deadline: int) -> None:
        self.answer: type[Reply] = _ANSWERS[type(message)]
        """What answers it, beside an error."""
        self.view = bytearray()
        """The parts of a `Told` that have come."""
        self.message: Request | Explain | Ask | None = message
        self.runs = isinstance(message, Request)
        """Whether it can make anything run; other questions may be asked again, whatever became of them."""
        self.deadline = deadline
        self.sent = False


class ClientSession:
    """A caller. Not thread-safe; never awaits; `drain` as in `Node`. All times are nanoseconds.

    `links` may be looked at, never used.
    """

    def __init__(
        self, *, name: str = "", cluster_id: str = "", limits: Limits = DEFAULT, codec: ValueCodec | None = None
    ) -> None:
        self._limits = limits
        self._timers = Timers()
        self._log: list[ClientEffect] = []
        self._own_log: list[Effect] = []
        self._pending: dict[int, _Pending] = {}
        self._unsent: dict[int, _Pending] = {}
        self._last_id = 0
        self._link: LinkId | None = None
        self.ready = False
        """Whether a link stands on which requests flow."""
        self.links = Links(
            lambda: hello(cluster=cluster_id, member=b"", name=name),
            codec=codec or ValueCodec(),
            timers=self._timers,
            limits=limits,
            log=self._own_log,
            pending=lambda link: any(pending.sent for pending in self._pending.values()),
        )

    # -- inputs -------------------------------------------------------------------------------------------------------

    def link_opened(self, link: LinkId, *, framing: Framing, address: Address, now: int) -> None:
        """A transport to a node stands. Raises LocalProtocolError if one does already; nothing has changed then."""
        if self._link is not None:
            raise LocalProtocolError(f"link {self._link} stands already")
        self.links.opened(link, framing=framing, dialled=address, now=now)
        self._link = link
        self._collect()

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
        if link != self._link:
            return
        self._link = None
        self.ready = False
        for number, pending in list(self._pending.items()):
            if pending.sent:
                may = "while the request may have been running" if pending.runs else "before it answered"
                fault = Fault(1023, f"the link to the node was lost {may}", {"maybe_executed": pending.runs})
                self._settle(number, Result(number, fault=fault))
        self._collect()

    def wake(self, *, now: int) -> None:
        """Time has passed: do what is due. A no-op when nothing is."""
        for key in self._timers.due(now):
            if key[0] == "late":
                self._too_late(int(key[1]))
            else:
                self.links.wake(key, now)
        self._collect()

    # -- commands -----------------------------------------------------------------------------------------------------

    def submit(self, request: Request, *, now: int) -> int:
        """Send `request`, now or when a link stands; gives the number that its `Replied` will carry."""
        span = self._limits.default_timeout if request.timeout is None else request.timeout
        self._last_id += 1
        number = self._last_id
        return self._enter(number, msgspec.structs.replace(request, id=number), now + span)

    def explain(self, request: Request, *, now: int) -> int:
        """Ask where `request` would run."""
        self._last_id += 1
        number = self._last_id
        question = Explain(msgspec.structs.replace(request, id=number))
        return self._enter(number, question, now + self._limits.default_timeout)

    def ask(self, *, now: int) -> int:
        """Ask how the node sees the cluster."""
        self._last_id += 1
        return self._enter(self._last_id, Ask(self._last_id), now + self._limits.default_timeout)

    def cancel(self, number: int, *, now: int) -> None:
        """The answer is wanted no more: none comes, and the node is told to stop."""
        pending = self._pending.get(number)
        if pending is not None:
            self._forget(number)
            if pending.sent and self._link is not None:
                self.links.say(self._link, CancelRequest(number))
            self._collect()

    def close(self, *, now: int) -> None:
        """Hang up. Answers to what is pending do not come any more."""
        if self._link is not None:
            self.links.hang_up(self._link)
            self._collect()

    def give_up(self, fault: Fault) -> None:
        """No link will stand: answer all that is pending with `fault`."""
        for number in list(self._pending):
            self._settle(number, Result(number, fault=fault))

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

    def _enter(self, number: int, message: Request | Explain | Ask, deadline: int) -> int:
        pending = self._pending[number] = _Pending(message, deadline)
        self._timers.set(("late", number), deadline + _LATE)
        if self.ready and self._link is not None:
            self._put(self._link, number, pending)
            self._collect()
        else:
            self._unsent[number] = pending
        return number

    def _put(self, link: LinkId, number: int, pending: _Pending) -> None:
        message = pending.message
        assert message is not None, "a question is sent once"
        outcome = self.links.send(link, message)
        match outcome:
            case Sent():
                pending.message = None  # its bytes are on their way; a large argument need not stay
                pending.sent = True
            case TooLong():
                self._settle(number, Result(number, fault=outcome.fault(maybe_executed=False)))
            case LinkGone():
                self._unsent[number] = pending  # it leaves with the next
            case _:
                assert_never(outcome)

    def _receive(self, link: LinkId, received: Received, now: int) -> None:
        for message in received:
            if self.links.take(link, message, now) and link == self._link:
                self._take(link, message, now)
        self.links.conclude(link, received)
        self._collect()

    def _take(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        match message:
            case Result() | Explanation() | Told():
                self._answered(message)
            case Hello():
                self._open(link, message, now)
            case Refused():
                self._log.append(Rejected(message.fault))
            case _:
                pass  # a node may say goodbye, which needs no answer of ours, and newer kinds end the link before this

    def _answered(self, reply: Reply) -> None:
        """Something came of a question. What was never sent, or asks for something else, is not answered by it."""
        pending = self._pending.get(reply.id)
        if pending is None or not pending.sent:
            return
        if isinstance(reply, Told) and pending.answer is Told:
            pending.view += reply.view
            if reply.last:
                self._settle(reply.id, Told(reply.id, bytes(pending.view)))
        elif isinstance(reply, Result) and pending.answer is Result and not reply.last:
            self._log.append(Replied(reply.id, reply))
        elif isinstance(reply, pending.answer) or (isinstance(reply, Result) and reply.fault is not None):
            self._settle(reply.id, reply)

    def _open(self, link: LinkId, theirs: Hello, now: int) -> None:
        self.ready = True
        agreed = self.links.sessions[link].agreed
        self._log.append(Ready(theirs.name, theirs.member, agreed.version if agreed is not None else 0))
        unsent, self._unsent = self._unsent, {}
        for number, pending in unsent.items():
            message = pending.message
            if isinstance(message, Request):  # it waited here: what is left is less
                pending.message = msgspec.structs.replace(message, timeout=max(1, pending.deadline - now))
            self._put(link, number, pending)

    def _settle(self, number: int, reply: Reply) -> None:
        if number in self._pending:
            self._forget(number)
            self._log.append(Replied(number, reply))

    def _forget(self, number: int) -> None:
        del self._pending[number]
        self._unsent.pop(number, None)
        self._timers.cancel(("late", number))

    def _too_late(self, number: int) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        text = "no answer came by the deadline" if pending.sent else "no node could be reached by the deadline"
        maybe = pending.sent and pending.runs
        self._settle(number, Result(number, fault=Fault(1020, text, {"maybe_executed": maybe})))
        if pending.sent and self._link is not None:
            self.links.say(self._link, CancelRequest(number))

    def _collect(self) -> None:
        """What the link wants goes into the one log, in order; over one that was hung up no request flows."""
        if self.ready and self._link is not None and self.links.sessions[self._link].stage is Stage.ENDED:
            self.ready = False
        if self._own_log:
            self._log.extend(self._own_log)
            self._own_log.clear()

    def closing(self) -> bool:
        """Whether the node has said goodbye: it will answer what is pending and take nothing more."""
        session = None if self._link is None else self.links.sessions.get(self._link)
        return session is not None and session.stage not in (Stage.OPENING, Stage.OPEN)


__all__ = [
    "ClientEffect",
    "ClientSession",
    "HangUp",
    "Notify",
    "Ready",
    "Rejected",
    "Replied",
    "Reply",
]
