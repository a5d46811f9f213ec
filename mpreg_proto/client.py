"""The client side of the protocol, without I/O like `Node`: requests in, bytes out; bytes in, replies out.

One `ClientSession` uses many links, one after another. A request that is submitted without a link waits for the next
link. A request on a link that was lost is sent again over the next link, with `again`: the node there accepts it only
if all of its functions are idempotent, else it answers 1023. Without a next link within `Limits.lost_link` the session
answers 1023 itself. If there are other nodes, the session leaves a node that drains: requests that the node refused go
to the next node, and the old link stays until the rest is answered. With `retry` a request that a node refused is sent
again later (retries.py). Requests beyond the credit that the node announces in its `Hello` wait here, in the order of
their submission, and go as answers arrive; queries go at once. The session also enforces deadlines: 200 ms after a
deadline without an answer, it answers 1020 itself, cancels the request, and drops what still arrives
(docs/explanation/guarantees.md).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NoReturn, assert_never

import msgspec

from mpreg_proto.effects import Effect, Framing, HangUp, Notify
from mpreg_proto.errors import ErrorCode, Fault, LocalProtocolError
from mpreg_proto.guard import FURTHEST, check_kind, check_request, check_text, exclusive, shown
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.links import Links
from mpreg_proto.retries import RetryBudget, is_repeatable, pause
from mpreg_proto.rng import Entropy
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import Feature, hello
from mpreg_proto.wire.messages import (
    CallProgress,
    CancelRequest,
    Drain,
    DrainReply,
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

_STALE = 64
"""The numbers in the order of waiting requests that may be stale, beside as many as are not."""

Question = Request | Explain | GetView | Drain
"""A message of a client that has an answer."""
Reply = Result | Explanation | View | DrainReply
"""The answer to a request or query; more follow a `Result` that is not `last`."""


_BAD_REQUEST = range(ErrorCode.INVALID_REQUEST, ErrorCode.LIMIT_EXCEEDED + 1)
"""The codes of a node that has not looked at the functions of a request."""
_REFUSALS = (ErrorCode.COMMAND_NOT_FOUND, ErrorCode.OVERLOADED, ErrorCode.DRAINING)
"""The codes of a node that has started nothing of a request."""
_REPLY_TYPES: dict[type, type[Reply]] = {Request: Result, Explain: Explanation, GetView: View, Drain: DrainReply}


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
        "again",
        "deadline",
        "has_results",
        "link",
        "losses_left",
        "may_execute",
        "message",
        "progress",
        "repeats",
        "reply_type",
        "retries_left",
        "retry",
        "size",
        "streams",
        "view",
        "was_queued",
    )

    def __init__(self, message: Question, deadline: int, *, retries_left: int, losses_left: int, retry: bool) -> None:
        self.reply_type: type[Reply] = _REPLY_TYPES[type(message)]
        """The type of its answer, if that is not an error."""
        self.view = bytearray()
        """The parts of a `View` that have arrived."""
        self.message: Question = message
        """Kept until the answer, as a loss of the link sends it again."""
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
        self.size = 0
        """The bytes of its message, once it was encoded."""
        self.has_results = False
        """True if some results have arrived: then no other node may start it again."""
        self.again = False
        """True if a link was lost on which it was sent, so that its functions may have started."""
        self.losses_left = losses_left
        """The number of links that may still be lost with it, and it be sent again."""
        self.retry = retry
        """True if it is sent again after a refusal, as long as the budget lasts."""
        self.repeats = 0
        """The number of times that it was sent again after a refusal."""


class _Window:
    """The credit of the link on which requests are sent, and the requests that hold it until their last `Result`.

    A cancelled request holds it too: its node has it until it answers.
    """

    __slots__ = ("_held", "_most", "_size", "_sizes")

    def __init__(self, credit: tuple[int, int]) -> None:
        self._most, self._size = credit
        self._held: dict[int, int] = {}
        self._sizes = 0

    def __len__(self) -> int:
        return len(self._held)

    def has_room(self, size: int) -> bool:
        """Return whether a request of `size` bytes may be sent. One may always be pending, however long it is."""
        held = self._held
        return not held or (len(held) < self._most and self._sizes + size <= self._size)

    def take(self, number: int, size: int) -> None:
        """Give credit to a request that is sent."""
        self._held[number] = size
        self._sizes += size

    def give_back(self, number: int) -> bool:
        """Take back the credit of a request, if it holds some. Returns whether it did."""
        size = self._held.pop(number, None)
        if size is None:
            return False
        self._sizes -= size
        return True


class ClientSession:
    """A client. Not thread-safe; never awaits; `drain` works as in `Node`. All times are nanoseconds.

    `alternatives` is the number of other addresses that its owner can connect to when a node drains. `entropy` spreads
    the repeats of many clients in time (`retry`); without it each pause has its full length. `links` may be read, but
    not used.
    """

    def __init__(
        self,
        *,
        name: str = "",
        cluster_id: str = "",
        limits: Limits = DEFAULT,
        codec: ValueCodec | None = None,
        alternatives: int = 0,
        entropy: Entropy | None = None,
    ) -> None:
        """Raises LocalProtocolError for arguments of wrong kinds."""
        check_text("name", name)
        check_text("cluster_id", cluster_id)
        check_kind("limits", limits, (Limits,))
        check_kind("alternatives", alternatives, (int,))
        if codec is not None and not isinstance(codec, ValueCodec):
            raise LocalProtocolError(f"codec={shown(codec)}: expected a ValueCodec")
        if entropy is not None and not callable(entropy):
            raise LocalProtocolError(f"entropy={shown(entropy)}: expected a function such as os.urandom")
        self._limits = limits
        self._alternatives = alternatives
        self._entropy = entropy
        self._budget = RetryBudget()
        self._timers = Timers()
        self._log: list[ClientEffect] = []
        self._own_log: list[Effect] = []
        self._pending: dict[int, _Pending] = {}
        self._unsent: dict[int, _Pending] = {}
        """The requests and queries that wait for a link or for credit."""
        self._order: list[int] = []
        """A heap of the numbers in `_unsent`, and of some that have left it: the order of submission."""
        self._window = _Window((0, 0))
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
        self._collect_effects(now)

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
        """Take the end of a transport: what was sent on it without an answer waits for the next link, to be repeated.

        Raises LocalProtocolError for a link that is not open; nothing has changed then.
        """
        if self.links.closed(link) is not None:
            self._let_go(link, now)
        self._collect_effects(now)

    def _let_go(self, link: LinkId, now: int | None) -> None:
        """End all that belonged to a link."""
        if link == self._link:
            self._link = None
            self.ready = False
        elif self._draining.pop(link, None) is None:
            return
        for number, pending in list(self._pending.items()):
            if pending.link == link:
                self._lose(number, pending, now)

    def _lose(self, number: int, pending: _Pending, now: int | None) -> None:
        """Repeat a request whose link was lost over the next link, or answer it with 1023.

        It is not repeated after a part of its results, after too many losses, and without a time (`now`): then its
        owner ends the link.
        """
        if now is None or pending.has_results or not pending.losses_left:
            self._settle(number, Result(number, fault=_lost(pending)))
            return
        pending.link = None
        pending.losses_left -= 1
        pending.again = pending.may_execute
        pending.view.clear()
        self._timers.set((TimerKind.LOST, number), now + self._limits.lost_link)
        self._send_soon(number, pending, now)

    def _send_soon(self, number: int, pending: _Pending, now: int) -> None:
        """Send a request that has no link: now, when the node has credit for it, or on the next link."""
        self._queue(number, pending)
        if self.ready and self._link is not None and not pending.may_execute:
            self._send(self._link, number, self._unsent.pop(number), now)
        else:
            self._send_unsent(now)

    @exclusive
    def wake(self, *, now: int) -> None:
        """Do what is due at `now`, if anything is."""
        for key in self._timers.due(now):
            if key[0] == TimerKind.LATE:
                self._deadline_exceeded(int(key[1]))
                self._send_unsent(now)
            elif key[0] == TimerKind.LOST:
                self._still_lost(int(key[1]), now)
                self._send_unsent(now)
            elif key[0] == TimerKind.RETRY:
                if (pending := self._pending.get(int(key[1]))) is not None:
                    self._send_soon(int(key[1]), pending, now)
            elif key[0] == TimerKind.DECODE:
                link = LinkId(int(key[1]))
                self._receive(link, self.links.continue_decoding(link, now), now)
            else:
                self.links.wake(key, now)
        self.links.quiet.clear()
        self._collect_effects(now)

    # -- commands -----------------------------------------------------------------------------------------------------

    @exclusive
    def submit(self, request: Request, *, now: int, retry: bool = False) -> int:
        """Send `request`, now or once there is a link; return the number that its `ReplyReceived` will carry.

        While the node closes its link, and between links, it waits for the next link. An error of a request that was
        never sent has `maybe_executed: False`. With `retry` it is sent again after a refusal (retries.py). Raises
        LocalProtocolError for something that is no `Request`, or that has a field of another type; nothing has changed
        then.
        """
        check_request(request)
        check_kind("retry", retry, (bool,))
        self._budget.add_call()
        span = self._limits.default_timeout if request.timeout is None else request.timeout
        number = self._next_id()
        return self._add_pending(number, msgspec.structs.replace(request, id=number), now + span, now, retry=retry)

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
    def drain_node(self, node: str, *, now: int) -> int:
        """Send the command that lets a member leave the cluster; return its number. The answer is a `DrainReply`.

        `node` is its name, the beginning of its id, or one of its addresses. Raises LocalProtocolError if it is no
        text.
        """
        check_text("node", node)
        number = self._next_id()
        return self._add_pending(number, Drain(number, node), now + self._limits.default_timeout, now)

    @exclusive
    def cancel(self, number: int, *, now: int) -> None:
        """Cancel a request: no answer comes. The node receives a `CancelRequest`, unless the request was never sent."""
        check_kind("the number of a request", number, (int,))
        pending = self._pending.get(number)
        if pending is not None:
            if pending.link is not None:
                self.links.send_or_close(pending.link, CancelRequest(number))
            self._forget(number)
            self._send_unsent(now)
            self._collect_effects(now)

    @exclusive
    def stop(self, number: int, *, now: int) -> None:
        """Cancel a request whose answer is still of use: it comes with 1021 and the calls that had started, if any.

        What has no link is answered at once. Nothing is sent again after this.
        """
        check_kind("the number of a request", number, (int,))
        pending = self._pending.get(number)
        if pending is None:
            return
        pending.retry, pending.losses_left, pending.retries_left = False, 0, 0
        if pending.link is not None:
            self.links.send_or_close(pending.link, CancelRequest(number))
        elif pending.again:
            self._settle(number, Result(number, fault=_lost(pending)))
        else:
            details = {"maybe_executed": False, "started": []}
            fault = Fault(ErrorCode.CANCELLED, "cancelled before a node had taken the request", details)
            self._settle(number, Result(number, fault=fault))
        self._send_unsent(now)
        self._collect_effects(now)

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
            self._collect_effects(now)

    @exclusive
    def close(self, *, now: int) -> None:
        """Hang up. No more answers to pending requests arrive: those that were sent end with 1023."""
        if self._link is not None:
            self.links.hang_up(self._link)
            self._collect_effects(None)

    @exclusive
    def unreachable(self, reason: str) -> None:
        """Record that no address answers for now: errors of requests that end before one answers include `reason`."""
        check_kind("reason", reason, (str,))
        self._unreachable = reason

    @exclusive
    def fail_all(self, fault: Fault) -> None:
        """Answer all that is pending with `fault`, because no link will open; what was lost with its link with 1023."""
        check_kind("fault", fault, (Fault,))
        for number, pending in list(self._pending.items()):
            self._settle(number, Result(number, fault=_lost(pending) if pending.again else fault))
        self._collect_effects(None)

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

    def _add_pending(self, number: int, message: Question, deadline: int, now: int, *, retry: bool = False) -> int:
        pending = self._pending[number] = _Pending(
            message, deadline, retries_left=self._alternatives, losses_left=self._limits.failovers, retry=retry
        )
        self._timers.set((TimerKind.LATE, number), min(deadline + _DEADLINE_MARGIN, FURTHEST))
        if self.ready and self._link is not None and not (self._unsent and pending.may_execute):
            self._send(self._link, number, pending, now)
            self._collect_effects(now)
        else:
            self._queue(number, pending)
        return number

    def _queue(self, number: int, pending: _Pending) -> None:
        """Keep it for the next link, or until the node has credit for it."""
        pending.was_queued = True
        self._unsent[number] = pending
        heappush(self._order, number)
        if len(self._order) > 2 * len(self._unsent) + _STALE:
            self._order = sorted(self._unsent)

    def _send_unsent(self, now: int) -> None:
        """Send what waits, in the order of submission, as far as the credit of the link goes."""
        order, unsent = self._order, self._unsent
        while order and (self.ready or order[0] not in unsent):
            pending = unsent.get(order[0])
            if pending is None:
                heappop(order)
                continue
            if pending.may_execute and not self._window.has_room(pending.size):
                return
            assert self._link is not None, "a link that is ready is open"
            number = heappop(order)
            del unsent[number]
            self._send(self._link, number, pending, now)
            if number in unsent:  # its link has ended, or it is longer than it was
                return

    def _send(self, link: LinkId, number: int, pending: _Pending, now: int) -> None:
        message = pending.message
        if not pending.may_execute:
            pass
        elif not self._window.has_room(pending.size):
            self._queue(number, pending)
            return
        elif pending.was_queued and isinstance(message, Request) and (message.timeout is None or message.timeout > 0):
            # It waited here, so less time is left. A timeout that is not valid stays as it is, for the node to refuse.
            if now >= pending.deadline:
                self._deadline_exceeded(number)
                return
            message = msgspec.structs.replace(message, timeout=pending.deadline - now)
        if pending.again and isinstance(message, Request):
            if not self.links.sessions[link].has(Feature.AGAIN):  # it would take it for a new request
                self._settle(number, Result(number, fault=_lost(pending)))
                return
            message = msgspec.structs.replace(message, again=True)
        if isinstance(message, Drain) and not self.links.sessions[link].has(Feature.DRAIN):
            text = "the node is of an older version, which cannot drain nodes: send SIGTERM to the process instead"
            self._settle(number, Result(number, fault=Fault(ErrorCode.VERSION_MISMATCH, text)))
            return
        try:
            body = self.links.encode(link, message)
            pending.size = 0 if body is None else len(body)
            too_long = pending.size > self.links.limit(link)
            if pending.may_execute and not too_long and not self._window.has_room(pending.size):
                self._queue(number, pending)
                return
            outcome = self.links.send(link, message, body)
        except (ValueError, OverflowError, TypeError, RecursionError) as error:  # UnicodeError is a ValueError
            fault = Fault(
                ErrorCode.INVALID_REQUEST, f"the request cannot be encoded: {error}", {"maybe_executed": False}
            )
            self._settle(number, Result(number, fault=fault))
            return
        match outcome:
            case Sent():
                pending.link = link
                if pending.may_execute:
                    self._window.take(number, pending.size)
                if pending.was_queued:
                    self._timers.cancel((TimerKind.LOST, number))
                self.links.watch(link, now)
            case TooLong():
                self._settle(number, Result(number, fault=outcome.fault(maybe_executed=pending.again)))
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
        self._collect_effects(now)

    def _on_message(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        match message:
            case Result() | Explanation() | View() | DrainReply():
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
        returned = isinstance(reply, Result) and reply.last and link == self._link and self._window.give_back(reply.id)
        self._handle_reply(link, reply, now)
        if returned and self._unsent:
            self._send_unsent(now)

    def _handle_reply(self, link: LinkId, reply: Reply, now: int) -> None:
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
        elif isinstance(reply, Result) and reply.fault is not None:
            if pending.retries_left and _refused_while_draining(reply.fault, again=pending.again):
                self._retry_unless_started(link, pending, reply, now)
            else:
                self._failed(pending, reply, reply.fault, now)
        elif isinstance(reply, pending.reply_type):
            self._settle(reply.id, reply)

    def _failed(self, pending: _Pending, result: Result, fault: Fault, now: int) -> None:
        """Answer a request with an error, or repeat it after a pause if that is asked for, safe, and in the budget."""
        if pending.again:
            fault = _of_repeat(pending, fault)
            result = msgspec.structs.replace(result, fault=fault)
        if pending.retry and not pending.has_results and is_repeatable(result):
            due = now + pause(fault, pending.repeats, self._fraction())
            if due < pending.deadline and self._budget.spend():
                left, pending.link = pending.link, None
                pending.was_queued = True
                pending.repeats += 1
                self._remove_from_draining(left, result.id)
                self._timers.set((TimerKind.RETRY, result.id), due)
                return
        if pending.repeats:
            result = msgspec.structs.replace(result, fault=fault.with_details(repeats=pending.repeats))
        self._settle(result.id, result)

    def _fraction(self) -> float:
        """Return a random number, 0 to 1; 1 without entropy."""
        return 1.0 if self._entropy is None else int.from_bytes(self._entropy(4), "big") / 2**32

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
        self._send_soon(number, pending, now)

    def _on_node_left(self, link: LinkId, now: int) -> None:
        """Retry or fail what a node that left has not answered: it answered all that it had accepted."""
        for number, pending in list(self._pending.items()):
            if pending.link == link and pending.retries_left and not pending.has_results:
                self._retry(number, pending, now)
            elif pending.link == link:
                text = "the node left the cluster before it took the request"
                fault = Fault(ErrorCode.DRAINING, text, {"maybe_executed": pending.again})
                self._failed(pending, Result(number, fault=fault), fault, now)

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
        self._window = _Window(theirs.credit)
        for number, pending in list(self._unsent.items()):
            if not pending.may_execute:  # queries need no credit
                del self._unsent[number]
                self._send(link, number, pending, now)
        self._send_unsent(now)

    def _settle(self, number: int, reply: Reply) -> None:
        if number in self._pending:
            self._forget(number)
            self._log.append(ReplyReceived(number, reply))

    def _forget(self, number: int) -> None:
        pending = self._pending.pop(number)
        self._remove_from_draining(pending.link, number)
        self._unsent.pop(number, None)
        self._timers.cancel((TimerKind.LATE, number))
        if pending.link is None:
            self._timers.cancel((TimerKind.LOST, number))
            self._timers.cancel((TimerKind.RETRY, number))

    def _still_lost(self, number: int, now: int) -> None:
        """Answer a request with 1023 whose link was lost, and for which no other was opened in time."""
        pending = self._pending.get(number)
        if pending is None or pending.link is not None:
            return
        if self.ready:  # it waits for credit
            self._timers.set((TimerKind.LOST, number), now + self._limits.lost_link)
        else:
            self._settle(number, Result(number, fault=_lost(pending)))

    def _deadline_exceeded(self, number: int) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        link = pending.link
        why = f" ({self._unreachable})" if self._unreachable else ""
        text = "no answer came by the deadline"
        if link is None and pending.again:
            pass
        elif link is None and self.ready:
            text = "the request was never sent: it waited for the node's credit until its deadline"
        elif link is None:
            text = f"the request was never sent: no node could be reached by the deadline{why}"
            if pending.repeats:
                text = f"no node took the request by the deadline{why}"
        maybe = pending.again or (link is not None and pending.may_execute)
        if link is not None:
            self.links.send_or_close(link, CancelRequest(number))
        self._settle(number, Result(number, fault=Fault(ErrorCode.DEADLINE_EXCEEDED, text, {"maybe_executed": maybe})))

    def _collect_effects(self, now: int | None) -> None:
        """Move the effects of the links into the one log, in order, and let go of links that were hung up.

        `now` is None if nothing of theirs may be repeated.
        """
        while True:
            self._log.extend(self._own_log)
            self._own_log.clear()
            if not self.links.ended:
                return
            session, _ = self.links.release()
            self._let_go(session.link, now)


def _refused_while_draining(fault: Fault, *, again: bool) -> bool:
    """Return whether a node that drains has refused a whole request, and started nothing of it.

    Of one that is sent `again`, an earlier node may have: the next node checks that.
    """
    started = fault.details.get("maybe_executed") is not False and not again
    return fault.code == ErrorCode.DRAINING and "call" not in fault.details and not started


def _of_repeat(pending: _Pending, fault: Fault) -> Fault:
    """Return what the error of a repeat means for the whole request, whose outcome at the first node is unknown.

    A refusal by a node that does not know all of its functions to be idempotent leaves it unknown.
    """
    if fault.code in _BAD_REQUEST:
        return fault.with_details(maybe_executed=True)
    if fault.code in _REFUSALS and fault.details.get("maybe_executed") is not False:
        return Fault(ErrorCode.OUTCOME_UNKNOWN, f"{_lost(pending).message}: {fault.message}", _lost(pending).details)
    return fault


def _lost(pending: _Pending) -> Fault:
    """Return 1023 for what was sent on a link that was lost."""
    may = "while the request may have been running" if pending.may_execute else "before it answered"
    text = f"the link to the node was lost {may}"
    return Fault(ErrorCode.OUTCOME_UNKNOWN, text, {"maybe_executed": pending.may_execute})


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
