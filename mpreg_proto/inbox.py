"""Each message to the machine that it concerns.

`Links` gives out what is not about the link itself; here is who may say it, and who hears of it. What the machine then
wants is carried at once, before the next message is looked at. The table at the end holds every message there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from mpreg_proto.carrier import Carrier
from mpreg_proto.cluster.cluster import Said
from mpreg_proto.effects import Notify
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.machines import Machines
from mpreg_proto.notices import LinkOpened
from mpreg_proto.overview import overview
from mpreg_proto.requests.explain import explain
from mpreg_proto.requests.intents import Ended
from mpreg_proto.sending import LinkGone, Sent, TooLong, shortened
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import (
    Ask,
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

_json = msgspec.json.Encoder().encode
_AROUND_VIEW = 32
"""Bytes that a part of a view takes on the wire beside its text, at most."""


class Inbox:
    """See the module. It holds nothing of its own and never raises for what a peer said."""

    def __init__(self, machines: Machines, carrier: Carrier) -> None:
        self._machines = machines
        self._links = machines.links
        self._answers = machines.answers
        self._worker = machines.worker
        self._log = machines.log
        self._carry = carrier.carry

    def deliver(self, link: LinkId, message: Message | BadRequest, now: int) -> None:
        """One message that came in over `link`, which is not over."""
        _RECEIVERS[type(message)](self, link, message, now)

    def _hello_came(self, link: LinkId, message: Hello, now: int) -> None:
        session = self._links.sessions[link]
        member = session.member
        if member == self._machines.me:
            self._carry(self._machines.cluster.met_myself(session.dialled, now), now)
            self._links.hang_up(link)
            return
        self._log.append(Notify(LinkOpened(link, message.name, member)))
        if member is not None:
            cluster = self._machines.cluster
            self._carry(cluster.linked(link, member, message.name, dialled=session.dialled, now=now), now)
            self._carry(self._machines.coordinator.routes_changed(now), now)

    def _request_came(self, link: LinkId, request: Request, now: int) -> None:
        session = self._links.sessions[link]
        if session.closing:
            fault = Fault(1024, "this link is closing", {"maybe_executed": False})
            self._answers.refuse(link, Result(request.id, fault=fault))
            return
        if session.member is None:
            if request.here or request.hops or request.caller or request.to or request.via:  # for nodes alone to say
                request = msgspec.structs.replace(request, here=(), hops=0, caller="", to=b"", via=())
        elif request.to and request.to != self._machines.me:
            self._pass_on(link, request, session.member, now)
            return
        elif request.here and len(request.here) == len(request.calls):
            self._dispatch_came(link, request, now)
            return
        self._carry(self._machines.accept(link, request, now), now)

    def _pass_on(self, link: LinkId, request: Request, sender: MemberId, now: int) -> None:
        """A dispatch for another node, which this one can reach."""
        if self._machines.relay.has(link, request.id):
            fault = Fault(1010, f"request {request.id} is already in progress on this link", {"maybe_executed": False})
            self._answers.refuse(link, Result(request.id, fault=fault))
            return
        routes = self._machines.cluster.routes
        way = None if self._machines.draining else routes.way(MemberId(request.to), via=(*request.via, sender))
        self._carry(self._machines.relay.request(link, request, sender=sender, way=way, now=now), now)

    def _dispatch_came(self, link: LinkId, request: Request, now: int) -> None:
        """Calls that a coordinator chose this node for."""
        names = dict.fromkeys(call.name for call in request.calls)
        wrong = ""
        if len(names) < len(request.calls) or dict.fromkeys(request.here) != names:
            wrong = "here names each call of the request once"
        elif self._worker.has(link, request.id):
            wrong = f"request {request.id} is already in progress on this link"
        if wrong:
            self._answers.refuse(link, Result(request.id, fault=Fault(1010, wrong, {"maybe_executed": False})))
            return
        limits = self._machines.config.limits
        span = min(limits.default_timeout if request.timeout is None else request.timeout, limits.longest_timeout)
        calls = list(request.calls)
        wanted = self._worker.accept(
            link, request.id, calls, request.given, idempotent=request.idempotent, deadline=now + span, now=now
        )
        if any(type(one) is Ended and type(one.row) is Failed and one.row.fault.code == 1001 for one in wanted):
            self._carry(self._machines.cluster.remind(link), now)
        self._carry(wanted, now)

    def _bad_request_came(self, link: LinkId, message: BadRequest, now: int) -> None:
        self._answers.refuse(link, Result(message.id, fault=message.fault.saying(maybe_executed=False)))

    def _result_came(self, link: LinkId, result: Result, now: int) -> None:
        if len(self._machines.relay) and (back := self._machines.relay.result(link, result)) is not None:
            self._carry(back, now)
            return
        self._carry(self._machines.coordinator.answered(link, result, now), now)

    def _cancel_came(self, link: LinkId, message: CancelRequest, now: int) -> None:
        self._carry(self._machines.coordinator.cancel(link, message.id, now), now)
        self._carry(self._worker.cancel(link, message.id, now), now)
        self._carry(self._machines.relay.cancel(link, message.id), now)

    def _explain_came(self, link: LinkId, message: Explain, now: int) -> None:
        out = self._machines.coordinator.out
        out.now = now
        explanation = explain(message.request, self._machines.cluster.index, out, self._machines.config.limits)
        outcome = self._links.send(link, explanation)
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                fault = explanation.fault
                fault = outcome.fault(maybe_executed=False) if fault is None else shortened(fault)
                self._links.say(link, Explanation(explanation.id, fault=fault))
            case _:
                assert_never(outcome)

    def _ask_came(self, link: LinkId, message: Ask, now: int) -> None:
        """Answer with the view; one that is longer than a message goes in several."""
        view = _json(overview(self._machines, now=now))
        outcome = self._links.send(link, Told(message.id, view))
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                size = max(1, outcome.limit - _AROUND_VIEW)
                for begin in range(0, len(view), size):
                    part = Told(message.id, view[begin : begin + size], last=begin + size >= len(view))
                    self._links.say(link, part)
            case _:
                assert_never(outcome)

    def _pong_came(self, link: LinkId, message: Pong, now: int) -> None:
        self._carry(self._machines.cluster.answered(link, now), now)

    def _news_came(self, link: LinkId, message: Said, now: int) -> None:
        if self._links.sessions[link].member is None:
            self._links.refuse(link, Fault(1010, "only nodes speak of members"))
            return
        self._carry(self._machines.cluster.received(link, message, now), now)

    def _goodbye_came(self, link: LinkId, message: Goodbye, now: int) -> None:
        """Calls go over another link.

        This one is in `leaving` and closed by `_settle` when nothing is pending on it.
        """
        self._carry(self._machines.cluster.goodbye(link, now), now)

    def _refusal_came(self, link: LinkId, message: Refused, now: int) -> None:
        """The link is being hung up; that its end is a failed dial follows from `link_closed`."""

    def _stray_came(self, link: LinkId, message: Explanation | Told, now: int) -> None:
        self._links.refuse(link, Fault(1010, "an answer to a question that was never asked"))


_RECEIVERS: dict[type, Callable[[Inbox, LinkId, Any, int], None]] = {
    Hello: Inbox._hello_came,
    Request: Inbox._request_came,
    BadRequest: Inbox._bad_request_came,
    Result: Inbox._result_came,
    CancelRequest: Inbox._cancel_came,
    Explain: Inbox._explain_came,
    Ask: Inbox._ask_came,
    **dict.fromkeys((News, Digest, Fetch, Summary, Lack, DialMe, Check, Vouch), Inbox._news_came),
    Pong: Inbox._pong_came,
    Goodbye: Inbox._goodbye_came,
    Refused: Inbox._refusal_came,
    Explanation: Inbox._stray_came,
    Told: Inbox._stray_came,
}
