"""One node of the cluster, without a socket, a clock or a thread: inputs come as method calls, effects go out by
`drain()`.

`Node` only composes: links (wire), who is there (cluster), requests answered for (coordinator) and calls run here
(worker). These don't call each other; each returns what it wants done and `Node` carries it to whom it concerns. Not
thread-safe; never awaits; inputs run to completion and never raise for what a peer did. The loop that drives it is
docs/howto/embed.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mpreg_proto.answers import Answers
from mpreg_proto.cluster import outputs
from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.cluster.cluster import Cluster, Said
from mpreg_proto.cluster.outputs import (
    CloseLink,
    Drop,
    Gone,
    OffersChanged,
    Out,
    Probe,
    Surplus,
    TakeNewId,
    Tell,
    Usable,
)
from mpreg_proto.effects import Effect, Framing, HangUp, Notify, Outcome
from mpreg_proto.errors import Fault
from mpreg_proto.ids import Address, LinkId, MemberId, RequestId, RunId, show
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.links import Links
from mpreg_proto.notices import Left, LinkOpened
from mpreg_proto.requests import faults
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.explain import explain
from mpreg_proto.requests.graph import over
from mpreg_proto.requests.intents import LOCAL, Answer, Assign, Ended, Intent, Partly, WantLink, Withdraw
from mpreg_proto.requests.relay import Forward, Relay
from mpreg_proto.requests.worker import Worker
from mpreg_proto.rng import Entropy, Rng
from mpreg_proto.timers import Timers
from mpreg_proto.view import MemberRow, NodeView
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.handshake import MEMBER_ID_BYTES, hello
from mpreg_proto.wire.messages import (
    Ask,
    Call,
    CancelRequest,
    Check,
    DialMe,
    Digest,
    Explain,
    Explanation,
    Failed,
    Fetch,
    Goodbye,
    Hello,
    Lack,
    Message,
    News,
    Pong,
    Refused,
    Request,
    Result,
    Summary,
    Told,
    Vouch,
)
from mpreg_proto.wire.session import Stage
from mpreg_proto.wire.values import ValueCodec

_json = msgspec.json.Encoder().encode

_GOING_AWAY = 1001
"""The WebSocket close code of an endpoint that goes down (RFC 6455, section 7.4.1)."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told about itself at start."""

    name: str = "node"
    """For people; may repeat in a cluster."""
    cluster_id: str = "default-cluster"
    addresses: tuple[Address, ...] = ()
    """Where others can dial this node; may come later, with `advertise`."""
    seeds: tuple[Address, ...] = ()
    """Addresses that are dialled until somebody answers."""
    resources: tuple[str, ...] = ()
    limits: Limits = DEFAULT


class Node:
    """A member of the cluster. `me` and `entropy` must not be guessable; `rng` is seeded; all times are nanoseconds.

    Its machines, `links`, `cluster`, `coordinator` and `worker`, may be looked at (the simulator's invariants do),
    never used.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        me: MemberId,
        rng: Rng,
        entropy: Entropy,
        now: int,
        codec: ValueCodec | None = None,
    ) -> None:
        self.config = config
        self.left = False
        """Whether `leave` is over: the process may end."""
        self._entropy = entropy
        self._rng = rng
        self._codec = codec or ValueCodec()
        self._timers = Timers()
        self._log: list[Effect] = []
        self._offered: dict[str, FunctionSpec] = {}
        self._resources = config.resources
        self._addresses = config.addresses
        self.links = Links(
            lambda: hello(cluster=config.cluster_id, member=self.me, name=config.name),
            codec=self._codec,
            timers=self._timers,
            limits=config.limits,
            log=self._log,
        )
        self.answers = Answers(self.links, self._log)
        self.worker = Worker(self._refusal, self._codec)
        self._draining = False
        self._be(me, now, last_number=0)

    def _be(self, me: MemberId, now: int, *, last_number: int) -> None:
        """Be member `me`, at first or anew: know nobody, answer for nothing."""
        self.me = me
        self.shown = show(self.config.name, me)
        self.cluster = Cluster(
            me,
            name=self.config.name,
            addresses=self._addresses,
            seeds=self.config.seeds,
            resources=self._resources,
            timers=self._timers,
            rng=self._rng.child("cluster"),
            limits=self.config.limits,
            now=now,
            heard=self.links.heard,
        )
        self.coordinator = Coordinator(
            me,
            catalogue=self.cluster.index,
            links=self.cluster.links,
            timers=self._timers,
            rng=self._rng.child("placement"),
            limits=self.config.limits,
            last_number=last_number,
            way=self.cluster.routes.way,
        )
        self.relay = Relay(me, number=self.coordinator.next_number, limits=self.config.limits)
        self.worker.shown = self.shown
        self._carry(self.cluster.start(now), now)
        for function in self._offered.values():
            self._carry(self.cluster.offer(function, now), now)
        if self._draining:
            self._carry(self.cluster.drain(now), now)

    # -- inputs from the world: never raise for what a peer did ------------------------------------------------------

    def link_opened(self, link: LinkId, *, framing: Framing, dialled: Address | None, now: int) -> None:
        """A transport stands; `dialled` is the address of a `Dial`, None for an accepted one.

        Raises LocalProtocolError if `link` is open already; nothing has changed then.
        """
        if self.left:  # its dial was under way, or its peer has not heard yet
            self._log.append(HangUp(link, _GOING_AWAY))
            return
        self.links.opened(link, framing=framing, dialled=dialled, now=now)

    def receive(self, link: LinkId, data: bytes | bytearray | memoryview | str, *, now: int) -> None:
        """Bytes of a stream, or one whole message of a link that keeps their borders."""
        self._take(link, self.links.receive(link, data, now), now)

    def handle(self, link: LinkId, message: Message, *, now: int) -> None:
        """One message of a link with Framing.OBJECTS, as it was in `Send.message` at the other end."""
        self._take(link, self.links.handle(link, message, now), now)

    def _take(self, link: LinkId, messages: Iterable[Message | BadRequest], now: int) -> None:
        for message in messages:
            if self.links.is_over(link):  # what came before has ended the link: nothing after it is looked at
                break
            _HANDLERS[type(message)](self, link, message, now)
        self._settle(now)

    def link_closed(self, link: LinkId, *, now: int) -> None:
        """The transport is gone, for whatever reason; comes exactly once a link."""
        clean = link in self.links.leaving
        session = self.links.closed(link)
        if session is None:
            return
        self.answers.forget(link)
        if session.member is not None:
            self._carry(self.cluster.unlinked(link, clean=clean, now=now), now)
        elif session.dialled is not None:
            self._carry(self.cluster.dial_failed(session.dialled, now), now)
        self._carry(self.coordinator.link_lost(link, now), now)
        self._carry(self.worker.link_lost(link), now)
        self._carry(self.relay.lost(link), now)
        self._settle(now)

    def dial_failed(self, address: Address, *, now: int) -> None:
        """A `Dial` came to nothing."""
        self._carry(self.cluster.dial_failed(address, now), now)
        self._settle(now)

    def backlog(self, link: LinkId, queued: int, *, now: int) -> None:
        """So many bytes of what was to be sent wait to leave on a link; 0 once all has left. An adapter may say so."""
        self.cluster.backlog(link, queued)

    def finished(self, run: RunId, outcome: Outcome, *, now: int, began: int | None = None) -> None:
        """A `Run` has ended, by itself or after a `Cancel`; comes exactly once a run.

        `began` is when its body really began, if that was later than its `Run`: placement reckons with how long calls
        take.
        """
        self._carry(self.worker.finished(run, outcome, now, began=began), now)
        self._settle(now)

    def wake(self, *, now: int) -> None:
        """Time has passed: do what is due. A no-op when nothing is."""
        for key in self._timers.due(now):
            owner = _OWNERS.get(str(key[0]))
            if owner == "links":
                self.links.wake(key, now)
            elif owner == "coordinator":
                self._carry(self.coordinator.wake(key, now), now)
            elif key[0] == "grace":
                self._finish(now)
            else:
                self._carry(self.cluster.wake(key, now), now)
        self._settle(now)

    # -- commands from the process: may raise LocalProtocolError, then nothing has changed ---------------------------

    def submit(self, request: Request, *, now: int) -> RequestId:
        """Answer `request` as if a client had sent it; the result comes as `Notify(Answered(id, result))`."""
        number = int.from_bytes(self._entropy(6), "big")
        own = msgspec.structs.replace(request, id=number, here=())
        self._carry(self._accept(LOCAL, own, now), now)
        self._settle(now)
        return RequestId(number)

    def cancel(self, request: RequestId, *, now: int) -> None:
        """Stop a submitted request; it is still answered, with 1021 unless it is over already."""
        self._carry(self.coordinator.cancel(LOCAL, request, now), now)
        self._settle(now)

    def offer(self, function: FunctionSpec, *, now: int) -> None:
        """Offer a function from now on, in place of any earlier one of that name."""
        wanted = self.cluster.offer(function, now)
        self._offered[function.name] = function
        self._carry(self.worker.concurrency(function.name, function.concurrency, now), now)
        self._carry(wanted, now)
        self._settle(now)

    def withdraw(self, function: str, *, now: int) -> None:
        """Offer it no longer. Running calls go on; queued ones are refused."""
        wanted = self.cluster.withdraw(function, now)
        self._offered.pop(function, None)
        self._carry(wanted, now)
        self._carry(self.worker.withdrawn(function), now)
        self._settle(now)

    def hold(self, resources: tuple[str, ...], *, now: int) -> None:
        """The node's own resources are these from now on."""
        wanted = self.cluster.hold(resources, now)
        self._resources = resources
        self._carry(wanted, now)
        self._settle(now)

    def advertise(self, addresses: tuple[Address, ...], *, now: int) -> None:
        """Where others can dial this node."""
        self._addresses = addresses
        self._carry(self.cluster.advertise(addresses, now), now)
        self._settle(now)

    def leave(self, *, now: int) -> None:
        """Drain, then go: refuse what is new, finish what runs (10 s), say goodbye. Again: skip the grace."""
        if self._draining:
            self._finish(now)
            return
        self._draining = True
        self._carry(self.cluster.drain(now), now)
        self._timers.set(("grace", 0), now + self.config.limits.drain_grace)
        self._settle(now)

    # -- outputs: legal at any time ----------------------------------------------------------------------------------

    def drain(self) -> list[Effect]:
        """All effects since the last `drain`, in the order of their causes."""
        self.answers.flush(self.worker.queued)
        self._close_links()
        log, self._log[:] = self._log[:], []
        return log

    @property
    def draining(self) -> bool:
        """Whether `leave` was called."""
        return self._draining

    def next_timeout(self) -> int | None:
        """When `wake` should be called at the latest, or None."""
        return self._timers.next()

    def view(self, *, now: int) -> NodeView:
        """How this node sees the cluster and itself."""
        return NodeView(
            id=self.me.hex(),
            shown=self.shown,
            cluster=self.config.cluster_id,
            draining=self._draining,
            synced=self.cluster.synced(),
            requests=len(self.coordinator.requests),
            running=self.worker.running,
            queued=self.worker.queued,
            links=len(self.links.sessions),
            members=tuple(self._member_row(row, now) for row in self.cluster.people()),
            functions=self.cluster.index.table(),
        )

    def _member_row(self, row: outputs.MemberRow, now: int) -> MemberRow:
        member = MemberId(bytes.fromhex(row.id))
        return MemberRow(
            id=row.id,
            shown=row.shown,
            name=row.name,
            standing=row.standing,
            incarnation=row.incarnation,
            since=now - row.since,
            addresses=row.addresses,
            catalogue=row.version,
            functions=row.functions,
            resources=row.resources,
            linked=row.linked,
            me=member == self.me,
            waiting=self.coordinator.out.waiting(member),
            lag=row.lag,
            trip=self.links.trip(self.cluster.links.get(member)),
            observers=row.observers,
            accusers=row.accusers,
        )

    # -- messages ----------------------------------------------------------------------------------------------------

    def _hello_came(self, link: LinkId, message: Hello, now: int) -> None:
        session = self.links.sessions[link]
        member = session.member
        if member == self.me:
            self._carry(self.cluster.met_myself(session.dialled, now), now)
            self.links.hang_up(link)
            return
        self._log.append(Notify(LinkOpened(link, message.name, member)))
        if member is not None:
            self._carry(self.cluster.linked(link, member, message.name, dialled=session.dialled, now=now), now)
            self._carry(self.coordinator.offers_changed(now), now)

    def _request_came(self, link: LinkId, request: Request, now: int) -> None:
        session = self.links.sessions[link]
        if session.member is None:
            if request.here or request.hops or request.caller or request.to or request.via:  # for nodes alone to say
                request = msgspec.structs.replace(request, here=(), hops=0, caller="", to=b"", via=())
        elif session.closing:
            fault = Fault(1024, "this link is closing", {"maybe_executed": False})
            self.links.send(link, Result(request.id, fault=fault))
            return
        elif request.to and request.to != self.me:
            self._relay(link, request, session.member, now)
            return
        elif request.here and len(request.here) == len(request.calls):
            self._dispatch_came(link, request, now)
            return
        self._carry(self._accept(link, request, now), now)

    def _relay(self, link: LinkId, request: Request, sender: MemberId, now: int) -> None:
        """A dispatch for another node, which this one can reach."""
        if self.relay.has(link, request.id):
            fault = Fault(1010, f"request {request.id} is already in progress on this link", {"maybe_executed": False})
            self.links.send(link, Result(request.id, fault=fault))
            return
        way = None if self._draining else self.cluster.routes.way(MemberId(request.to), via=(*request.via, sender))
        self._carry(self.relay.request(link, request, sender=sender, way=way), now)

    def _dispatch_came(self, link: LinkId, request: Request, now: int) -> None:
        """Calls that a coordinator chose this node for."""
        names = dict.fromkeys(call.name for call in request.calls)
        wrong = ""
        if len(names) < len(request.calls) or dict.fromkeys(request.here) != names:
            wrong = "here names each call of the request once"
        elif self.worker.has(link, request.id):
            wrong = f"request {request.id} is already in progress on this link"
        if wrong:
            self.links.send(link, Result(request.id, fault=Fault(1010, wrong, {"maybe_executed": False})))
            return
        limits = self.config.limits
        span = min(limits.default_timeout if request.timeout is None else request.timeout, limits.longest_timeout)
        calls = list(request.calls)
        wanted = self.worker.accept(
            link, request.id, calls, request.given, idempotent=request.idempotent, deadline=now + span, now=now
        )
        if any(type(one) is Ended and type(one.row) is Failed and one.row.fault.code == 1001 for one in wanted):
            self._carry(self.cluster.remind(link), now)
        self._carry(wanted, now)

    def _accept(self, link: LinkId, request: Request, now: int) -> Iterable[Wanted]:
        if self._draining:
            return [Answer(link, Result(request.id, fault=faults.DRAINING.saying(maybe_executed=False)))]
        return self.coordinator.submit(request, link, now)

    def _bad_request_came(self, link: LinkId, message: BadRequest, now: int) -> None:
        self.links.send(link, Result(message.id, fault=message.fault.saying(maybe_executed=False)))

    def _result_came(self, link: LinkId, result: Result, now: int) -> None:
        if len(self.relay) and (back := self.relay.result(link, result)) is not None:
            self._carry(back, now)
            return
        self._carry(self.coordinator.answered(link, result, now), now)

    def _cancel_came(self, link: LinkId, message: CancelRequest, now: int) -> None:
        self._carry(self.coordinator.cancel(link, message.id, now), now)
        self._carry(self.worker.cancel(link, message.id), now)
        self._carry(self.relay.cancel(link, message.id), now)

    def _explain_came(self, link: LinkId, message: Explain, now: int) -> None:
        out = self.coordinator.out
        out.now = now
        explanation = explain(message.request, self.cluster.index, out, self.config.limits)
        size = self.links.send(link, explanation)
        if size is not None:
            fault = over("message", self.links.limit(link), size).saying(maybe_executed=False)
            self.links.send(link, Explanation(explanation.id, fault=fault))

    def _ask_came(self, link: LinkId, message: Ask, now: int) -> None:
        self.links.send(link, Told(message.id, _json(self.view(now=now))))

    def _pong_came(self, link: LinkId, message: Pong, now: int) -> None:
        self._carry(self.cluster.answered(link, now), now)

    def _news_came(self, link: LinkId, message: Said, now: int) -> None:
        if self.links.sessions[link].member is None:
            self.links.refuse(link, Fault(1010, "only nodes speak of members"))
            return
        self._carry(self.cluster.received(link, message, now), now)

    def _goodbye_came(self, link: LinkId, message: Goodbye, now: int) -> None:
        """Calls go over another link.

        This one is in `leaving` and closed by `_settle` when nothing is pending on it.
        """
        self._carry(self.cluster.goodbye(link, now), now)

    def _refusal_came(self, link: LinkId, message: Refused, now: int) -> None:
        """The link is being hung up; that its end is a failed dial follows from `link_closed`."""

    def _stray_came(self, link: LinkId, message: Explanation | Told, now: int) -> None:
        self.links.refuse(link, Fault(1010, "an answer to a question that was never asked"))

    # -- what the machines want done ----------------------------------------------------------------------------------

    def _carry(self, wanted: Iterable[Wanted], now: int) -> None:
        """Bring each intent to whom it concerns; what follows from it comes after what was there before."""
        waiting = deque(wanted)
        while waiting:
            intent = waiting.popleft()
            carrier = _CARRIERS.get(type(intent))
            if carrier is None:
                self._log.append(intent)  # type: ignore[arg-type]  # the table holds all but the effects
            elif more := carrier(self, intent, now):
                waiting.extend(more)

    def _assign(self, intent: Assign, now: int) -> Iterable[Wanted]:
        if intent.link == LOCAL:
            return self.worker.accept(
                LOCAL, intent.number, intent.calls, intent.given, deadline=intent.deadline, now=now
            )
        request = Request(
            intent.number,
            tuple(intent.calls),
            timeout=intent.deadline - now,
            here=tuple([call.name for call in intent.calls]),
            idempotent=tuple(intent.idempotent),
            given=intent.given,
            partial=True,
            eager=True,
            to=intent.to,
        )
        size = self.links.send(intent.link, request)
        if size is None:
            return ()
        fault = over("message", self.links.limit(intent.link), size)
        failed = tuple([Failed(call.name, fault, refused=True) for call in intent.calls])  # they never left
        return self.coordinator.answered(intent.link, Result(intent.number, failed=failed), now)

    def _forward(self, intent: Forward, now: int) -> Iterable[Wanted]:
        size = self.links.send(intent.link, intent.message)
        if size is None or isinstance(intent.message, CancelRequest):
            return ()
        fault = over("message", self.links.limit(intent.link), size)
        if isinstance(intent.message, Request):  # it never left, so what waits for its answer has it
            refused = Result(intent.message.id, fault=fault.saying(maybe_executed=False))
            return self.relay.result(intent.link, refused) or ()
        self.links.send(intent.link, Result(intent.message.id, fault=fault.saying(maybe_executed=True)))
        return ()

    def _withdraw(self, intent: Withdraw, now: int) -> Iterable[Wanted]:
        if intent.link == LOCAL:
            return self.worker.cancel(LOCAL, intent.number)
        self.links.send(intent.link, CancelRequest(intent.number))
        return ()

    def _answer(self, intent: Answer, now: int) -> Iterable[Wanted]:
        self.answers.finish(intent.link, intent.result)
        return ()

    def _partly(self, intent: Partly, now: int) -> Iterable[Wanted]:
        self.answers.add(intent.link, intent.request, intent.row, last=False)
        return ()

    def _ended(self, intent: Ended, now: int) -> Iterable[Wanted]:
        if intent.link == LOCAL:
            return self.coordinator.ended(intent.request, intent.row, now)
        self.answers.add(intent.link, intent.request, intent.row, last=intent.last)
        return ()

    def _want_link(self, intent: WantLink, now: int) -> Iterable[Wanted]:
        return self.cluster.want_link(intent.member, now)

    def _tell(self, intent: Tell, now: int) -> Iterable[Wanted]:
        self.links.send(intent.link, intent.message)
        return ()

    def _close_link(self, intent: CloseLink, now: int) -> Iterable[Wanted]:
        self.links.goodbye(intent.link, intent.reason, now)
        return ()

    def _probe(self, intent: Probe, now: int) -> Iterable[Wanted]:
        self.links.ping(intent.link, now)
        return ()

    def _drop(self, intent: Drop, now: int) -> Iterable[Wanted]:
        self.links.hang_up(intent.link, _GOING_AWAY, why="it is held for dead")
        return ()

    def _surplus(self, intent: Surplus, now: int) -> Iterable[Wanted]:
        """Close a link that nobody needs, unless a call went over it lately or its answer is to come."""
        if self.links.idle(intent.link, now) and not self._pending(intent.link):
            self.links.goodbye(intent.link, "idle", now)
            return self.cluster.closing(intent.link)
        return ()

    def _gone(self, intent: Gone, now: int) -> Iterable[Wanted]:
        return self.coordinator.gone(intent.member, now)

    def _take_new_id(self, intent: TakeNewId, now: int) -> Iterable[Wanted]:
        """The cluster holds this member for dead for good: go on as another one (membership.md)."""
        self._carry(self.coordinator.end_all(), now)
        for link, session in list(self.links.sessions.items()):
            if session.member is not None or session.dialled is not None:
                self.links.hang_up(link)
        self._timers.clear(keep=(*_OWNERS, "grace"))
        self._be(MemberId(self._entropy(MEMBER_ID_BYTES)), now, last_number=self.coordinator.last_number)
        return ()

    def _offers_changed(self, intent: Usable | OffersChanged, now: int) -> Iterable[Wanted]:
        return self.coordinator.offers_changed(now)

    def _refusal(self, call: Call, assumed: bool) -> Fault | None:
        """Why this node cannot run `call` now: 1024, 1001 for what is not offered here (the sender's view is old).

        What is taken for idempotent (`assumed`) and is not is refused too: its coordinator would start it twice.
        """
        if self._draining:
            return faults.DRAINING
        index = self.cluster.index
        for one in index.offers(call.function, call.resources, call.version):
            if one.member == self.me:
                return faults.not_idempotent(call) if assumed and not one.idempotent else None
        return faults.not_found(call, index.lacking(call.function, call.resources, call.version))

    # -- leaving ------------------------------------------------------------------------------------------------------

    def _settle(self, now: int) -> None:
        """After each input: close links on which all is said, and end draining once nothing is left to do."""
        self._close_links()
        busy = self.coordinator.requests or self.worker.running or self.worker.queued or len(self.relay)
        if self._draining and not busy:
            self._finish(now)

    def _close_links(self) -> None:
        for link in list(self.links.leaving) if self.links.leaving else ():
            if self.links.sessions[link].stage is Stage.BOTH_LEAVE and not self._pending(link):
                self.links.hang_up(link)

    def _pending(self, link: LinkId) -> bool:
        asked = self.worker.pending(link) or self.coordinator.pending(link)
        return asked or self.answers.pending(link) or self.relay.pending(link)

    def _finish(self, now: int) -> None:
        """The end of draining: answer what is open, stop what runs, say that we have left, close all links."""
        if self.left:
            return
        self.left = True
        self._timers.cancel(("grace", 0))
        self._carry(self.coordinator.end_all(), now)
        self._carry(self.worker.stop_all(), now)
        self.answers.flush(self.worker.queued)
        self._carry(self.cluster.leave(now), now)
        for link in list(self.links.sessions):
            self.links.goodbye(link, "leaving", now)
            self.links.hang_up(link)
        self._log.append(Notify(Left()))


Wanted = Intent | Out | Forward
"""All that the machines may return."""

_HANDLERS: dict[type, Callable[[Node, LinkId, Any, int], None]] = {
    Hello: Node._hello_came,
    Request: Node._request_came,
    BadRequest: Node._bad_request_came,
    Result: Node._result_came,
    CancelRequest: Node._cancel_came,
    Explain: Node._explain_came,
    Ask: Node._ask_came,
    **dict.fromkeys((News, Digest, Fetch, Summary, Lack, DialMe, Check, Vouch), Node._news_came),
    Pong: Node._pong_came,
    Goodbye: Node._goodbye_came,
    Refused: Node._refusal_came,
    Explanation: Node._stray_came,
    Told: Node._stray_came,
}
_CARRIERS: dict[type, Callable[[Node, Any, int], Iterable[Wanted]]] = {
    Assign: Node._assign,
    Withdraw: Node._withdraw,
    Forward: Node._forward,
    Answer: Node._answer,
    Partly: Node._partly,
    Ended: Node._ended,
    WantLink: Node._want_link,
    Tell: Node._tell,
    Probe: Node._probe,
    CloseLink: Node._close_link,
    Drop: Node._drop,
    Surplus: Node._surplus,
    Gone: Node._gone,
    Usable: Node._offers_changed,
    OffersChanged: Node._offers_changed,
    TakeNewId: Node._take_new_id,
}
_OWNERS = {
    "handshake": "links",
    "ping": "links",
    "goodbye": "links",
    "deadline": "coordinator",
    "wait": "coordinator",
    "link": "coordinator",
}
"""Whose timer a key is, by its first part; all others are the cluster's."""
