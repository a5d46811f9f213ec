"""Each message to the machine that it concerns.

`Links` gives out what is not about the link itself; here is who may say it, and who hears of it. What the machine then
wants is carried at once, before the next message is looked at. The table at the end holds every message there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from mpreg_proto.carrier import ActionRunner
from mpreg_proto.cluster.cluster import ClusterMessage
from mpreg_proto.effects import Notify
from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.machines import Machines
from mpreg_proto.notices import LinkOpened
from mpreg_proto.overview import build_view
from mpreg_proto.requests.actions import CallFinished
from mpreg_proto.requests.explain import explain
from mpreg_proto.sending import LinkGone, Sent, TooLong, shorten_fault
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import (
    BucketHashes,
    CancelRequest,
    DialBack,
    Digest,
    Explain,
    Explanation,
    Failed,
    Fetch,
    GetView,
    Goodbye,
    Gossip,
    Hello,
    IndirectAck,
    Message,
    PingReq,
    Pong,
    Pull,
    Refused,
    Request,
    Result,
    View,
)

_json = msgspec.json.Encoder().encode
_AROUND_VIEW = 32
"""Bytes that a part of a view takes on the wire beside its text, at most."""


class Router:
    """See the module. It holds nothing of its own and never raises for what a peer said."""

    def __init__(self, machines: Machines, runner: ActionRunner) -> None:
        self._machines = machines
        self._links = machines.links
        self._replies = machines.replies
        self._worker = machines.worker
        self._log = machines.log
        self._run = runner.run

    def deliver(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        """One message that came in over `link`, which is not over."""
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
        if session.closing:
            fault = Fault(ErrorCode.DRAINING, "this link is closing", {"maybe_executed": False})
            self._replies.refuse(link, Result(request.id, fault=fault))
            return
        if session.member is None:
            if request.here or request.hops or request.caller or request.to or request.via:  # for nodes alone to say
                request = msgspec.structs.replace(request, here=(), hops=0, caller="", to=b"", via=())
        elif request.to and request.to != self._machines.me:
            self._relay(link, request, session.member, now)
            return
        elif request.here and len(request.here) == len(request.calls):
            self._on_dispatch(link, request, now)
            return
        self._run(self._machines.accept(link, request, now), now)

    def _relay(self, link: LinkId, request: Request, sender: MemberId, now: int) -> None:
        """A dispatch for another node, which this one can reach."""
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
        self._run(self._machines.relay.request(link, request, sender=sender, next_hop=next_hop, now=now), now)

    def _on_dispatch(self, link: LinkId, request: Request, now: int) -> None:
        """Calls that a coordinator chose this node for."""
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
        actions = self._worker.accept(
            link, request.id, calls, request.inputs, idempotent=request.idempotent, deadline=now + span, now=now
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

    def _on_cancel(self, link: LinkId, message: CancelRequest, now: int) -> None:
        self._run(self._machines.coordinator.cancel(link, message.id, now), now)
        self._run(self._worker.cancel(link, message.id, now), now)
        self._run(self._machines.relay.cancel(link, message.id), now)

    def _on_explain(self, link: LinkId, message: Explain, now: int) -> None:
        out = self._machines.coordinator.outstanding
        out.now = now
        explanation = explain(message.request, self._machines.cluster.index, out, self._machines.config.limits)
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
        """Answer with the view; one that is longer than a message goes in several."""
        view = _json(build_view(self._machines, now=now))
        outcome = self._links.send(link, View(message.id, view))
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                size = max(1, outcome.limit - _AROUND_VIEW)
                for begin in range(0, len(view), size):
                    part = View(message.id, view[begin : begin + size], last=begin + size >= len(view))
                    self._links.send_or_close(link, part)
            case _:
                assert_never(outcome)

    def _on_pong(self, link: LinkId, message: Pong, now: int) -> None:
        self._run(self._machines.cluster.ack_received(link, now), now)

    def _on_membership_message(self, link: LinkId, message: ClusterMessage, now: int) -> None:
        if self._links.sessions[link].member is None:
            self._links.refuse(link, Fault(ErrorCode.INVALID_REQUEST, "only nodes speak of members"))
            return
        self._run(self._machines.cluster.received(link, message, now), now)

    def _on_goodbye(self, link: LinkId, message: Goodbye, now: int) -> None:
        """Calls go over another link.

        This one is in `leaving` and closed by `_settle` when nothing is pending on it.
        """
        self._run(self._machines.cluster.goodbye_received(link, now), now)

    def _on_refused(self, link: LinkId, message: Refused, now: int) -> None:
        """The link is being hung up; that its end is a failed dial follows from `link_closed`."""

    def _on_unexpected_reply(self, link: LinkId, message: Explanation | View, now: int) -> None:
        self._links.refuse(link, Fault(ErrorCode.INVALID_REQUEST, "an answer to a question that was never asked"))


_MESSAGE_HANDLERS: dict[type, Callable[[Router, LinkId, Any, int], None]] = {
    Hello: Router._on_hello,
    Request: Router._on_request,
    BadRequest: Router._on_bad_request,
    Result: Router._on_result,
    CancelRequest: Router._on_cancel,
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
}
