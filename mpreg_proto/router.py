"""The router: it delivers each message to the machine that handles it, and each action to the one that carries it out.

`Machines` puts the machines of one node together: links, replies, worker, cluster, coordinator, relay. They return
actions in the order of their causes, and `ActionRunner` carries these out. What follows from one comes after all that
was queued before, so nothing re-enters a machine. A machine calls another only through the interfaces that
docs/explanation/architecture.md lists. `Router` delivers messages. Two tables, `_MESSAGE_HANDLERS` and
`_ACTION_HANDLERS`, hold every type of message and action; effects go to the log unchanged. Nothing here reads bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

import msgspec

from mpreg_proto.cluster.actions import (
    AbandonLink,
    AbortLink,
    CloseIfIdle,
    CloseLink,
    ClusterOutput,
    IdRetired,
    LinkSelected,
    MemberLost,
    OffersChanged,
    SendMessage,
    SendPing,
)
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster, ClusterMessage
from mpreg_proto.cluster.draining import drain_state, find_member
from mpreg_proto.cluster.splitting import halves
from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import Effect, Notify
from mpreg_proto.errors import CloseCode, ErrorCode, Fault
from mpreg_proto.ids import MEMBER_ID_BYTES, Address, LinkId, MemberId, show
from mpreg_proto.links import Links
from mpreg_proto.notices import DrainRequested, GossipTooLong, LinkEndCause, LinkOpened
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import (
    LOCAL,
    CallFinished,
    CallSettled,
    CancelDispatch,
    Connect,
    CreditReturned,
    Dispatch,
    RequestOutput,
    SendReply,
    SendUpdate,
)
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.relay import Forward, Relay
from mpreg_proto.requests.replies import Replies
from mpreg_proto.requests.scheduler import explain
from mpreg_proto.requests.worker import Worker
from mpreg_proto.rng import Entropy, Rng
from mpreg_proto.sending import LinkGone, Sent, TooLong, shorten_fault
from mpreg_proto.timers import LINK_TIMERS, REQUEST_TIMERS, TimerKind, Timers
from mpreg_proto.view import NodeView, build_view
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import Feature, hello
from mpreg_proto.wire.messages import (
    BucketHashes,
    Call,
    CallProgress,
    CancelRequest,
    Credit,
    DialBack,
    Digest,
    Drain,
    DrainReply,
    DrainState,
    Explain,
    Explanation,
    Failed,
    Fetch,
    GetView,
    Goodbye,
    GoodbyeReason,
    Gossip,
    Hello,
    IndirectAck,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Message,
    PingReq,
    Pong,
    Pull,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.session import Session, Stage
from mpreg_proto.wire.values import ValueCodec


class OpenLinks(Mapping[MemberId, LinkId]):
    """The links that calls for each member use, without those that this node has just closed.

    The cluster learns of such a close only when the transport ends.
    """

    __slots__ = ("_best", "_links")

    def __init__(self, best: Mapping[MemberId, LinkId], links: Links) -> None:
        self._best = best
        self._links = links

    def __getitem__(self, member: MemberId) -> LinkId:
        link = self._best[member]
        if not self._links.is_open(link):
            raise KeyError(member)
        return link

    def __contains__(self, member: object) -> bool:
        link = self._best.get(member)  # type: ignore[call-overload]  # of any kind, as for every mapping
        return link is not None and self._links.is_open(link)

    def __iter__(self) -> Iterator[MemberId]:
        return (member for member in self._best if member in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Machines:
    """The machines of one node. `log` is the one list of effects, in the order of their causes."""

    def __init__(self, config: NodeConfig, *, rng: Rng, entropy: Entropy, codec: ValueCodec) -> None:
        """`start_as` must follow: until then there is no cluster and no coordinator."""
        self.config = config
        self.entropy = entropy
        self.timers: Timers = Timers()
        self.log: list[Effect] = []
        self.draining = False
        """True if this node takes no new calls."""
        self.credit: tuple[int, int] = config.limits.credit
        self.offered: dict[str, FunctionSpec] = {}
        self.resources: tuple[str, ...] = config.resources
        self.addresses: tuple[Address, ...] = config.addresses
        self._rng = rng
        self.links: Links = Links(
            lambda: hello(cluster=config.cluster_id, member=self.me, name=config.name, credit=self.credit),
            codec=codec,
            timers=self.timers,
            limits=config.limits,
            log=self.log,
            busy_on=self.busy_on,
        )
        self.replies: Replies = Replies(self.links, self.log)
        self.worker: Worker = Worker(self.refusal, codec, config.limits, shown=lambda: self.shown, timers=self.timers)
        self.me: MemberId
        self.cluster: Cluster
        self.coordinator: Coordinator
        self.relay: Relay

    def start_as(self, me: MemberId, now: int, *, last_number: int) -> list[ClusterOutput]:
        """Become member `me`, at first or again, with an empty view and no requests. Return the first outputs.

        `last_number`: the newest dispatch under the former id; the worker may still run some of its calls.
        """
        self.me = me
        self.cluster = Cluster(
            me,
            name=self.config.name,
            addresses=self.addresses,
            seeds=self.config.seeds,
            resources=self.resources,
            timers=self.timers,
            rng=self._rng.child("cluster"),
            limits=self.config.limits,
            now=now,
            last_activity=self.links.last_activity,
        )
        self.coordinator = Coordinator(
            me,
            catalogue=self.cluster.index,
            links=OpenLinks(self.cluster.links, self.links),
            timers=self.timers,
            rng=self._rng.child("placement"),
            limits=self.config.limits,
            last_number=last_number,
            next_hop=self._next_hop,
            draw_number=lambda: int.from_bytes(self.entropy(3), "big") >> 1,
            silent=self.links.silent,
        )
        self.relay = Relay(me, number=self.coordinator.outstanding.next_number, limits=self.config.limits)
        out = self.cluster.start(now)
        for function in self.offered.values():
            out += self.cluster.offer(function, now)
        return out + self.cluster.drain(now) if self.draining else out

    def _next_hop(self, member: MemberId, avoiding: Collection[bytes]) -> LinkId | None:
        """Return the open link to a member's next hop; `avoiding` holds members that would not pass a call on."""
        link = self.cluster.routes.next_hop(member, avoiding=avoiding)
        return link if link is not None and self.links.is_open(link) else None

    def retire_id(self, now: int) -> list[ClusterOutput]:
        """Continue as another member; everything of the old one must have ended before."""
        self.timers.clear(keep=(*LINK_TIMERS, *REQUEST_TIMERS, TimerKind.REPORT, TimerKind.DRAIN_GRACE))
        last_number = self.coordinator.outstanding.last_number
        return self.start_as(MemberId(self.entropy(MEMBER_ID_BYTES)), now, last_number=last_number)

    @property
    def shown(self) -> str:
        """The name and id of this node, to show to users."""
        return show(self.config.name, self.me)

    def view(self, now: int) -> NodeView:
        """Return the view of the cluster and of this node."""
        return build_view(
            shown=self.shown,
            cluster_id=self.config.cluster_id,
            draining=self.draining,
            cluster=self.cluster,
            coordinator=self.coordinator,
            worker=self.worker,
            links=self.links,
            now=now,
        )

    # -- combined state of the machines -------------------------------------------------------------------------------

    def accept(
        self, link: LinkId, request: Request, now: int, *, size: int = 0, credit: tuple[int, int] | None = None
    ) -> Sequence[RequestOutput]:
        """Accept a request that this node coordinates, or refuse it while draining. See `Coordinator.submit`."""
        if self.draining:
            return [self.coordinator.refuse(request, link, faults.DRAINING)]
        session = self.links.sessions.get(link)
        client = link if session is None else session.client
        return self.coordinator.submit(request, link, now, client=client, size=size, credit=credit)

    def refusal(self, call: Call, assumed: bool) -> Fault | None:
        """Return why this node cannot run `call` now: 1001 if it is not offered here, 1024 if this node drains.

        With 1001 the sender's view is old. A call is also refused if the sender takes it for idempotent (`assumed`) and
        it is not: its coordinator would start it twice.
        """
        if self.draining and call.function in self.offered:
            return faults.DRAINING
        index = self.cluster.index
        for one in index.offers(call.function, call.resources, call.version):
            if one.member == self.me:
                return faults.not_idempotent(call) if assumed and not one.idempotent else None
        return faults.not_found(call, index.explain_no_match(call.function, call.resources, call.version))

    def busy_on(self, link: LinkId) -> bool:
        """Return whether a machine still expects or has to send something on `link`."""
        asked = self.worker.busy_on(link) or self.coordinator.busy_on(link)
        return asked or self.replies.busy_on(link) or self.relay.busy_on(link)

    @property
    def busy(self) -> bool:
        """True while a request, a call or a relayed request is in progress here."""
        return bool(self.coordinator.requests or self.worker.running or self.worker.queued or len(self.relay))


Output = RequestOutput | ClusterOutput | Forward
"""All outputs of the machines: actions, and events that another machine needs."""


class ActionRunner:
    """Carries out actions, by a table of their types. It holds no state."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._links = machines.links
        self._replies = machines.replies
        self._worker = machines.worker
        self._log = machines.log

    def run(self, actions: Iterable[Output], now: int) -> None:
        """Carry out actions in order; what follows from one is appended at the end."""
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            handler = _ACTION_HANDLERS.get(type(action))
            if handler is None:
                self._log.append(action)  # type: ignore[arg-type]  # the table holds all but the effects
            elif more := handler(self, action, now):
                waiting.extend(more)

    def start_draining(self, now: int) -> None:
        """Take no new calls from now on. The node leaves once nothing is in progress, or the grace is over."""
        machines = self._machines
        self._worker.take_all()
        self.run(machines.coordinator.keep_backlog(now), now)
        machines.draining = True
        self.run(machines.cluster.drain(now), now)
        machines.timers.set((TimerKind.DRAIN_GRACE, 0), now + machines.config.limits.drain_grace)

    def _dispatch(self, action: Dispatch, now: int) -> Iterable[Output]:
        if action.link == LOCAL:
            return self._worker.accept(
                LOCAL,
                action.number,
                action.calls,
                action.inputs,
                client=(b"", action.client),
                progress=action.progress,
                streams=action.streams,
                iterates=action.iterates,
                deadline=action.deadline,
                now=now,
            )
        request = Request(
            action.number,
            tuple(action.calls),
            timeout=action.deadline - now,
            here=tuple([call.name for call in action.calls]),
            idempotent=tuple(action.idempotent),
            inputs=action.inputs,
            partial=True,
            eager=True,
            to=action.to,
            client=action.client,
            progress=action.progress,
            streams=tuple(action.streams),
            iterates=action.iterates,
        )
        if action.iterates and _lacks_iterators(self._links, action.link):  # a relay that could not pass the items on
            refused = Result(action.number, fault=faults.no_route())
            return self._machines.coordinator.result_received(action.link, refused, now)
        outcome = self._links.send(action.link, request)
        match outcome:
            case Sent():
                self._links.watch(action.link, now)
                return ()
            case LinkGone():
                return self._machines.coordinator.unsent(action.number, None, now)
            case TooLong():
                fault = outcome.fault(maybe_executed=False)
                return self._machines.coordinator.unsent(action.number, fault, now)
            case _:
                assert_never(outcome)

    def _forward(self, action: Forward, now: int) -> Iterable[Output]:
        message = action.message
        if isinstance(message, Result):
            self._replies.forward(action.link, message)
            return ()
        if isinstance(message, (Items, InputItems)):
            return self._send_items(action.link, message, now)
        if isinstance(message, (CancelRequest, CallProgress, ItemsTaken, InputTaken)):
            self._links.send_or_close(action.link, message)
            return ()
        outcome = self._links.send(action.link, message)
        match outcome:
            case Sent():
                return ()
            case LinkGone():  # it was never sent: the sender gets the answer now
                return self._machines.relay.result(action.link, Result(message.id, fault=faults.no_route())) or ()
            case TooLong():
                refused = Result(message.id, fault=outcome.fault(maybe_executed=False))
                return self._machines.relay.result(action.link, refused) or ()
            case _:
                assert_never(outcome)

    def _cancel_dispatch(self, action: CancelDispatch, now: int) -> Iterable[Output]:
        if action.link == LOCAL:
            return self._worker.cancel(LOCAL, action.number, now)
        self._links.send_or_close(action.link, CancelRequest(action.number))
        return ()

    def _send_reply(self, action: SendReply, now: int) -> Iterable[Output]:
        self._replies.finish(action.link, action.result, started=action.started)
        return ()

    def _send_update(self, action: SendUpdate, now: int) -> Iterable[Output]:
        message = action.message
        if action.link == LOCAL:
            if isinstance(message, ItemsTaken):
                return self._worker.items_taken(LOCAL, message)
            if isinstance(message, InputItems):
                return self._worker.input_received(LOCAL, message)
            if isinstance(message, InputTaken):
                return self._machines.coordinator.input_taken(LOCAL, message)
            return self._machines.coordinator.update_received(LOCAL, message, now)
        if isinstance(message, (Items, InputItems)):
            return self._send_items(action.link, message, now)
        self._links.send_or_close(action.link, message)
        return ()

    def _send_items(self, link: LinkId, items: Items | InputItems, now: int) -> Iterable[Output]:
        """Send items, in several messages if needed. One that is longer than a message fails its call."""
        waiting: list[Items | InputItems] = [items]
        while waiting:
            items = waiting.pop()
            outcome = self._links.send(link, items)
            match outcome:
                case Sent() | LinkGone():
                    pass
                case TooLong() if len(items.values) > 1:
                    middle = len(items.values) // 2
                    waiting.append(msgspec.structs.replace(items, values=items.values[middle:]))
                    first = Items if isinstance(items, Items) else InputItems
                    waiting.append(first(items.id, items.call, items.values[:middle]))
                case TooLong():
                    return self._item_too_long(link, items, outcome, now)
                case _:
                    assert_never(outcome)
        return ()

    def _item_too_long(self, link: LinkId, items: Items | InputItems, outcome: TooLong, now: int) -> Iterable[Output]:
        fault = outcome.fault(maybe_executed=True)
        coordinator = self._machines.coordinator
        stopped: Sequence[RequestOutput] = ()
        if isinstance(items, InputItems):
            failed = coordinator.input_too_long(link, items, fault, now)
        else:
            failed = coordinator.item_too_long(link, items, fault, now)
            stopped = self._worker.item_too_long(link, items, fault)
        if not failed and not stopped:  # it is only relayed, so nothing here can fail its call
            self._links.close_too_long(link, items, outcome)
        return (*failed, *stopped)

    def _call_settled(self, action: CallSettled, now: int) -> Iterable[Output]:
        self._replies.add(action.link, action.request, action.row, last=False)
        return ()

    def _call_finished(self, action: CallFinished, now: int) -> Iterable[Output]:
        if action.link == LOCAL:
            return self._machines.coordinator.call_finished(action.request, action.row, now)
        self._replies.add(action.link, action.request, action.row, last=action.last)
        return ()

    def _credit_returned(self, action: CreditReturned, now: int) -> Iterable[Output]:
        if action.link == LOCAL:
            return self._machines.coordinator.credit_returned(self._machines.me, action.function, now)
        self._links.send_or_close(action.link, Credit(action.function))
        return ()

    def _connect(self, action: Connect, now: int) -> Iterable[Output]:
        return self._machines.cluster.connect(action.member, now)

    def _send_message(self, action: SendMessage, now: int) -> Iterable[Output]:
        """Send a message, in several parts if needed. The cluster learns of a closed link by `link_closed`."""
        waiting = [action.message]
        while waiting:
            message = waiting.pop()
            outcome = self._links.send(action.link, message)
            match outcome:
                case Sent() | LinkGone():
                    pass
                case TooLong():
                    if parts := halves(message):
                        waiting.extend(reversed(parts))
                    else:
                        kind = type(message).__name__
                        self._log.append(Notify(GossipTooLong(action.link, kind, outcome.size, outcome.limit)))
                case _:
                    assert_never(outcome)
        return ()

    def _close_link(self, action: CloseLink, now: int) -> Iterable[Output]:
        self._links.goodbye(action.link, action.reason, now)
        return ()

    def _send_ping(self, action: SendPing, now: int) -> Iterable[Output]:
        self._links.ping(action.link, now)
        return ()

    def _abort_link(self, action: AbortLink, now: int) -> Iterable[Output]:
        cause, reason = LinkEndCause.MEMBER_DEAD, "its member is marked DEAD"
        self._links.hang_up(action.link, CloseCode.GOING_AWAY, cause=cause, reason=reason)
        return ()

    def _abandon_link(self, action: AbandonLink, now: int) -> Iterable[Output]:
        """Send Goodbye, in case the peer can receive it, and end the link: calls on it go to another member or link."""
        self._links.goodbye(action.link, GoodbyeReason.SILENT, now)
        cause, reason = LinkEndCause.UNRESPONSIVE, "nothing comes over it, though its member is alive"
        self._links.hang_up(action.link, CloseCode.GOING_AWAY, cause=cause, reason=reason)
        return ()

    def _close_if_idle(self, action: CloseIfIdle, now: int) -> Iterable[Output]:
        """Close a link that is not needed, unless a call used it lately or an answer on it is outstanding."""
        if self._links.idle(action.link, now) and not self._machines.busy_on(action.link):
            self._links.goodbye(action.link, GoodbyeReason.IDLE, now)
            return self._machines.cluster.start_closing(action.link)
        return ()

    def _member_lost(self, action: MemberLost, now: int) -> Iterable[Output]:
        return self._machines.coordinator.member_lost(action.member, now)

    def _id_retired(self, action: IdRetired, now: int) -> Iterable[Output]:
        """Continue under a new id: the cluster has retired this node's id (membership.md)."""
        ended = self._machines.coordinator.end_all(now, started=faults.LOST_WITH_ID, waiting=faults.ID_RETIRED)
        self.run(ended, now)
        for link, session in list(self._links.sessions.items()):
            if session.member is not None or session.dialled is not None:
                self._links.hang_up(link)
        self.run(self._machines.retire_id(now), now)
        return ()

    def _link_selected(self, action: LinkSelected, now: int) -> Iterable[Output]:
        return self._machines.coordinator.link_selected(action.member, now)

    def _offers_changed(self, action: OffersChanged, now: int) -> Iterable[Output]:
        return self._machines.coordinator.offers_changed(now, functions=action.functions, members=action.members)


def _lacks_iterators(links: Links, link: LinkId) -> bool:
    """Return whether the peer of an open link cannot be sent the items of a call one by one."""
    session = links.sessions.get(link)
    return session is not None and not session.has(Feature.ITERATORS)


_ACTION_HANDLERS: dict[type, Callable[[ActionRunner, Any, int], Iterable[Output]]] = {
    Dispatch: ActionRunner._dispatch,
    CancelDispatch: ActionRunner._cancel_dispatch,
    Forward: ActionRunner._forward,
    SendReply: ActionRunner._send_reply,
    SendUpdate: ActionRunner._send_update,
    CallSettled: ActionRunner._call_settled,
    CallFinished: ActionRunner._call_finished,
    CreditReturned: ActionRunner._credit_returned,
    Connect: ActionRunner._connect,
    SendMessage: ActionRunner._send_message,
    SendPing: ActionRunner._send_ping,
    CloseLink: ActionRunner._close_link,
    AbortLink: ActionRunner._abort_link,
    AbandonLink: ActionRunner._abandon_link,
    CloseIfIdle: ActionRunner._close_if_idle,
    MemberLost: ActionRunner._member_lost,
    LinkSelected: ActionRunner._link_selected,
    OffersChanged: ActionRunner._offers_changed,
    IdRetired: ActionRunner._id_retired,
}


_json = msgspec.json.Encoder().encode
_VIEW_OVERHEAD = 32
"""The maximum number of bytes that a part of a view takes on the wire beside its text."""


class Router:
    """Delivers messages, by a table of their types. It holds no state and never raises for what a peer sent."""

    def __init__(self, machines: Machines, runner: ActionRunner) -> None:
        self._machines = machines
        self._links = machines.links
        self._replies = machines.replies
        self._worker = machines.worker
        self._log = machines.log
        self._run = runner.run
        self._start_draining = runner.start_draining

    def deliver(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        """Deliver one message that came in over `link`, which is still open."""
        _MESSAGE_HANDLERS[type(message)](self, link, message, now)

    def _on_hello(self, link: LinkId, message: Hello, now: int) -> None:
        session = self._links.sessions[link]
        member = session.member
        if member == self._machines.me:
            self._run(self._machines.cluster.reached_self(session.dialled, now), now)
            self._links.hang_up(link)
            return
        self._log.append(Notify(LinkOpened(link, message.name, member)))
        if member is not None:
            cluster = self._machines.cluster
            self._run(cluster.link_established(link, member, message.name, dialled=session.dialled, now=now), now)
            self._run(self._machines.coordinator.routes_changed(now), now)

    def _on_request(self, link: LinkId, request: Request, now: int) -> None:
        session = self._links.sessions[link]
        size, credit = session.request_sizes.popleft() if session.request_sizes else 0, None
        if session.stage is not Stage.OPEN:
            fault = Fault(ErrorCode.DRAINING, "this link is closing")
            self._replies.refuse(link, self._machines.coordinator.refuse(request, link, fault).result)
            return
        if session.member is None:
            if not session.classic:
                if session.backlog and self._refuses_more(session, request.id):
                    return
                credit = self._machines.credit
            if request.here or request.hops or request.caller or request.to or request.via:  # only nodes may set these
                request = msgspec.structs.replace(request, here=(), hops=0, caller="", to=b"", via=())
        elif request.to and request.to != self._machines.me:
            self._relay(link, request, session.member, now)
            return
        elif request.here and len(request.here) == len(request.calls):
            self._on_dispatch(link, request, now)
            return
        self._run(self._machines.accept(link, request, now, size=size, credit=credit), now)

    def _refuses_more(self, session: Session, number: int) -> bool:
        """Refuse a request or query if its native client leaves too much unread. Returns whether it was refused."""
        if not self._links.is_flooded(session):
            return False
        fault = faults.unread_answers(self._machines.config.limits.client_answers, session.backlog)
        self._replies.refuse(session.link, Result(number, fault=fault.with_details(maybe_executed=False)))
        return True

    def _relay(self, link: LinkId, request: Request, sender: MemberId, now: int) -> None:
        """Relay a dispatch for another node."""
        if self._machines.relay.has(link, request.id):
            fault = Fault(
                ErrorCode.INVALID_REQUEST,
                f"request {request.id} is already in progress on this link",
                {"maybe_executed": False},
            )
            self._replies.refuse(link, Result(request.id, fault=fault))
            return
        routes = self._machines.cluster.routes
        next_hop = (
            None if self._machines.draining else routes.next_hop(MemberId(request.to), via=(*request.via, sender))
        )
        if request.iterates and next_hop is not None and _lacks_iterators(self._links, next_hop):
            next_hop = None
        self._run(self._machines.relay.request(link, request, sender=sender, next_hop=next_hop, now=now), now)

    def _on_dispatch(self, link: LinkId, request: Request, now: int) -> None:
        """Give the worker the calls that a coordinator dispatched to this node."""
        names = dict.fromkeys(call.name for call in request.calls)
        error = ""
        if len(names) < len(request.calls) or dict.fromkeys(request.here) != names:
            error = "here names each call of the request once"
        elif self._worker.has(link, request.id):
            error = f"request {request.id} is already in progress on this link"
        if error:
            self._replies.refuse(
                link, Result(request.id, fault=Fault(ErrorCode.INVALID_REQUEST, error, {"maybe_executed": False}))
            )
            return
        limits = self._machines.config.limits
        span = min(limits.default_timeout if request.timeout is None else request.timeout, limits.longest_timeout)
        calls = list(request.calls)
        origin = request.via[0] if request.via else self._links.sessions[link].member or b""
        actions = self._worker.accept(
            link,
            request.id,
            calls,
            request.inputs,
            client=(origin, request.client),
            idempotent=request.idempotent,
            progress=request.progress,
            streams=request.streams,
            iterates=request.iterates,
            deadline=now + span,
            now=now,
        )
        if any(
            type(one) is CallFinished and type(one.row) is Failed and one.row.fault.code == ErrorCode.COMMAND_NOT_FOUND
            for one in actions
        ):
            self._run(self._machines.cluster.send_own_head(link), now)
        self._run(actions, now)

    def _on_bad_request(self, link: LinkId, message: BadRequest, now: int) -> None:
        self._replies.refuse(link, Result(message.id, fault=message.fault.with_details(maybe_executed=False)))

    def _on_result(self, link: LinkId, result: Result, now: int) -> None:
        if len(self._machines.relay) and (back := self._machines.relay.result(link, result)) is not None:
            self._run(back, now)
            return
        self._run(self._machines.coordinator.result_received(link, result, now), now)

    def _on_update(self, link: LinkId, message: CallProgress | Items | InputTaken, now: int) -> None:
        if len(self._machines.relay) and (back := self._machines.relay.update(link, message)) is not None:
            self._run(back, now)
        elif isinstance(message, InputTaken):
            self._run(self._machines.coordinator.input_taken(link, message), now)
        else:
            self._run(self._machines.coordinator.update_received(link, message, now), now)

    def _on_items_taken(self, link: LinkId, message: ItemsTaken, now: int) -> None:
        self._run(self._machines.coordinator.items_taken(link, message), now)
        self._run(self._worker.items_taken(link, message), now)
        self._run(self._machines.relay.onward(link, message), now)

    def _on_input_items(self, link: LinkId, message: InputItems, now: int) -> None:
        self._run(self._worker.input_received(link, message), now)
        self._run(self._machines.relay.onward(link, message), now)

    def _on_cancel(self, link: LinkId, message: CancelRequest, now: int) -> None:
        self._run(self._machines.coordinator.cancel(link, message.id, now), now)
        self._run(self._worker.cancel(link, message.id, now), now)
        self._run(self._machines.relay.cancel(link, message.id), now)

    def _on_credit(self, link: LinkId, message: Credit, now: int) -> None:
        member = self._links.sessions[link].member
        if member is None:
            self._links.refuse(link, Fault(ErrorCode.INVALID_REQUEST, "credit is for nodes only"))
            return
        self._run(self._machines.coordinator.credit_returned(member, message.function, now), now)

    def _on_explain(self, link: LinkId, message: Explain, now: int) -> None:
        if self._refuses_more(self._links.sessions[link], message.request.id):
            return
        machines = self._machines
        loads, limits = machines.coordinator.outstanding, machines.config.limits
        explanation = explain(message.request, machines.cluster.index, loads, limits, now)
        outcome = self._links.send(link, explanation)
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                fault = explanation.fault
                fault = outcome.fault(maybe_executed=False) if fault is None else shorten_fault(fault)
                self._links.send_or_close(link, Explanation(explanation.id, fault=fault))
            case _:
                assert_never(outcome)

    def _on_get_view(self, link: LinkId, message: GetView, now: int) -> None:
        """Answer with the view, in several messages if it is too long for one."""
        if self._refuses_more(self._links.sessions[link], message.id):
            return
        view = _json(self._machines.view(now))
        outcome = self._links.send(link, View(message.id, view))
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                size = max(1, outcome.limit - _VIEW_OVERHEAD)
                for begin in range(0, len(view), size):
                    part = View(message.id, view[begin : begin + size], last=begin + size >= len(view))
                    self._links.send_or_close(link, part)
            case _:
                assert_never(outcome)

    def _on_drain(self, link: LinkId, message: Drain, now: int) -> None:
        """Drain this node, or pass the command on. A client gets an answer."""
        session = self._links.sessions[link]
        if session.member is not None:
            member = MemberId(message.to)
            if member == self._machines.me:
                self._drain(link, session, now)
            else:
                self._pass_drain_on(member, (*message.via, session.member), now)
            return
        found = find_member(self._machines.cluster, message.node)
        if isinstance(found, Fault):
            self._links.send_or_close(link, DrainReply(message.id, fault=found))
            return
        is_me = found.id == self._machines.me
        state = drain_state(self._machines.cluster, found)
        if state is None:
            state = DrainState.SENT if is_me or self._pass_drain_on(found.id, (), now) else DrainState.CONNECTING
        shown = show(self._machines.cluster.name_of(found.id), found.id)
        self._links.send_or_close(link, DrainReply(message.id, found.id, shown, state))
        if is_me:
            self._drain(link, session, now)

    def _drain(self, link: LinkId, session: Session, now: int) -> None:
        """Begin to leave, once."""
        if not self._machines.draining:
            peer = session.remote_hello.name if session.remote_hello is not None else ""
            self._log.append(Notify(DrainRequested(link, peer)))
            self._start_draining(now)

    def _pass_drain_on(self, member: MemberId, via: tuple[bytes, ...], now: int) -> bool:
        """Send the command towards a member. Return False if no open link leads to it: one is opened if possible."""
        me, routes = self._machines.me, self._machines.cluster.routes
        next_hop = None if me in via else routes.next_hop(member, via=via)
        is_open = next_hop is not None and self._links.is_open(next_hop)
        if next_hop is not None and is_open and self._links.sessions[next_hop].has(Feature.DRAIN):
            self._links.send_or_close(next_hop, Drain(0, to=member, via=(*via, me)))
            return True
        if not via:
            self._run(self._machines.cluster.connect(member, now), now)
        return False

    def _on_pong(self, link: LinkId, message: Pong, now: int) -> None:
        self._run(self._machines.cluster.ack_received(link, now), now)

    def _on_membership_message(self, link: LinkId, message: ClusterMessage, now: int) -> None:
        if self._links.sessions[link].member is None:
            self._links.refuse(link, Fault(ErrorCode.INVALID_REQUEST, "membership messages are for nodes only"))
            return
        self._run(self._machines.cluster.received(link, message, now), now)

    def _on_goodbye(self, link: LinkId, message: Goodbye, now: int) -> None:
        """Move calls to another link.

        This link is in `Links.closing`; `Node` closes it once nothing is left to send or to receive on it.
        """
        self._run(self._machines.cluster.goodbye_received(link, now), now)

    def _on_refused(self, link: LinkId, message: Refused, now: int) -> None:
        """Do nothing: the link is being closed, and the failed dial follows from `link_closed`."""

    def _on_unexpected_reply(self, link: LinkId, message: Explanation | View | DrainReply, now: int) -> None:
        self._links.refuse(link, Fault(ErrorCode.INVALID_REQUEST, "a reply without a request"))


_MESSAGE_HANDLERS: dict[type, Callable[[Router, LinkId, Any, int], None]] = {
    Hello: Router._on_hello,
    Request: Router._on_request,
    BadRequest: Router._on_bad_request,
    Result: Router._on_result,
    CancelRequest: Router._on_cancel,
    CallProgress: Router._on_update,
    Items: Router._on_update,
    ItemsTaken: Router._on_items_taken,
    InputItems: Router._on_input_items,
    InputTaken: Router._on_update,
    Credit: Router._on_credit,
    Explain: Router._on_explain,
    GetView: Router._on_get_view,
    **dict.fromkeys(
        (Gossip, Digest, Fetch, BucketHashes, Pull, DialBack, PingReq, IndirectAck), Router._on_membership_message
    ),
    Pong: Router._on_pong,
    Goodbye: Router._on_goodbye,
    Refused: Router._on_refused,
    Explanation: Router._on_unexpected_reply,
    View: Router._on_unexpected_reply,
    Drain: Router._on_drain,
    DrainReply: Router._on_unexpected_reply,
}
