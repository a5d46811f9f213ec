"""What one machine wants, brought to whom it concerns: another machine, a link, or the log of effects.

Machines return actions and outs in the order of their causes; what follows from one comes after all that was there
before, so nothing re-enters a machine. The table at the end holds all that may be wanted but the effects, which go to
the log as they are. Nothing here reads bytes or decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, assert_never

from mpreg_proto.cluster.actions import (
    AbandonLink,
    AbortLink,
    CloseIfIdle,
    CloseLink,
    IdRetired,
    LinkSelected,
    MemberLost,
    OffersChanged,
    Output,
    SendMessage,
    SendPing,
)
from mpreg_proto.cluster.splitting import halves
from mpreg_proto.effects import Notify
from mpreg_proto.errors import CloseCode
from mpreg_proto.machines import Machines
from mpreg_proto.notices import GossipTooLong, LinkEndCause
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import (
    LOCAL,
    Action,
    CallFinished,
    CallSettled,
    CancelDispatch,
    Connect,
    Dispatch,
    SendReply,
)
from mpreg_proto.requests.relay import Forward
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.wire.messages import CancelRequest, GoodbyeReason, Request, Result

AnyAction = Action | Output | Forward
"""All that the machines may return."""


class ActionRunner:
    """See the module. It holds nothing of its own."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._links = machines.links
        self._replies = machines.replies
        self._worker = machines.worker
        self._log = machines.log

    def run(self, actions: Iterable[AnyAction], now: int) -> None:
        """Bring each action to whom it concerns; what follows from it comes after what was there before."""
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            handler = _ACTION_HANDLERS.get(type(action))
            if handler is None:
                self._log.append(action)  # type: ignore[arg-type]  # the table holds all but the effects
            elif more := handler(self, action, now):
                waiting.extend(more)

    def _dispatch(self, action: Dispatch, now: int) -> Iterable[AnyAction]:
        if action.link == LOCAL:
            return self._worker.accept(
                LOCAL, action.number, action.calls, action.inputs, deadline=action.deadline, now=now
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
        )
        outcome = self._links.send(action.link, request)
        match outcome:
            case Sent():
                return ()
            case LinkGone():
                return self._machines.coordinator.unsent(action.number, None, now)
            case TooLong():
                fault = outcome.fault(maybe_executed=False)
                return self._machines.coordinator.unsent(action.number, fault, now)
            case _:
                assert_never(outcome)

    def _forward(self, action: Forward, now: int) -> Iterable[AnyAction]:
        message = action.message
        if isinstance(message, Result):
            self._replies.forward(action.link, message)
            return ()
        if isinstance(message, CancelRequest):
            self._links.send_or_close(action.link, message)
            return ()
        outcome = self._links.send(action.link, message)
        match outcome:
            case Sent():
                return ()
            case LinkGone():  # it never left, so who waits for its answer has it
                return self._machines.relay.result(action.link, Result(message.id, fault=faults.no_route())) or ()
            case TooLong():
                refused = Result(message.id, fault=outcome.fault(maybe_executed=False))
                return self._machines.relay.result(action.link, refused) or ()
            case _:
                assert_never(outcome)

    def _cancel_dispatch(self, action: CancelDispatch, now: int) -> Iterable[AnyAction]:
        if action.link == LOCAL:
            return self._worker.cancel(LOCAL, action.number, now)
        self._links.send_or_close(action.link, CancelRequest(action.number))
        return ()

    def _send_reply(self, action: SendReply, now: int) -> Iterable[AnyAction]:
        self._replies.finish(action.link, action.result)
        return ()

    def _call_settled(self, action: CallSettled, now: int) -> Iterable[AnyAction]:
        self._replies.add(action.link, action.request, action.row, last=False)
        return ()

    def _call_finished(self, action: CallFinished, now: int) -> Iterable[AnyAction]:
        if action.link == LOCAL:
            return self._machines.coordinator.call_finished(action.request, action.row, now)
        self._replies.add(action.link, action.request, action.row, last=action.last)
        return ()

    def _connect(self, action: Connect, now: int) -> Iterable[AnyAction]:
        return self._machines.cluster.connect(action.member, now)

    def _send_message(self, action: SendMessage, now: int) -> Iterable[AnyAction]:
        """Send it, in several messages if need be. Of a link that is gone the cluster hears by its end."""
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

    def _close_link(self, action: CloseLink, now: int) -> Iterable[AnyAction]:
        self._links.goodbye(action.link, action.reason, now)
        return ()

    def _send_ping(self, action: SendPing, now: int) -> Iterable[AnyAction]:
        self._links.ping(action.link, now)
        return ()

    def _abort_link(self, action: AbortLink, now: int) -> Iterable[AnyAction]:
        cause, reason = LinkEndCause.MEMBER_DEAD, "its member is marked DEAD"
        self._links.hang_up(action.link, CloseCode.GOING_AWAY, cause=cause, reason=reason)
        return ()

    def _abandon_link(self, action: AbandonLink, now: int) -> Iterable[AnyAction]:
        """Goodbye, in case it is heard there, and the end: what is pending on that link goes elsewhere."""
        self._links.goodbye(action.link, GoodbyeReason.SILENT, now)
        cause, reason = LinkEndCause.UNRESPONSIVE, "nothing comes over it, though its member is alive"
        self._links.hang_up(action.link, CloseCode.GOING_AWAY, cause=cause, reason=reason)
        return ()

    def _close_if_idle(self, action: CloseIfIdle, now: int) -> Iterable[AnyAction]:
        """Close a link that nobody needs, unless a call went over it lately or its answer is to come."""
        if self._links.idle(action.link, now) and not self._machines.pending(action.link):
            self._links.goodbye(action.link, GoodbyeReason.IDLE, now)
            return self._machines.cluster.start_closing(action.link)
        return ()

    def _member_lost(self, action: MemberLost, now: int) -> Iterable[AnyAction]:
        return self._machines.coordinator.member_lost(action.member, now)

    def _id_retired(self, action: IdRetired, now: int) -> Iterable[AnyAction]:
        """The cluster has retired this node's id: go on under a new one (membership.md)."""
        self.run(self._machines.coordinator.end_all(), now)
        for link, session in list(self._links.sessions.items()):
            if session.member is not None or session.dialled is not None:
                self._links.hang_up(link)
        self.run(self._machines.retire_id(now), now)
        return ()

    def _link_selected(self, action: LinkSelected, now: int) -> Iterable[AnyAction]:
        return self._machines.coordinator.link_selected(action.member, now)

    def _offers_changed(self, action: OffersChanged, now: int) -> Iterable[AnyAction]:
        return self._machines.coordinator.offers_changed(now, functions=action.functions, members=action.members)


_ACTION_HANDLERS: dict[type, Callable[[ActionRunner, Any, int], Iterable[AnyAction]]] = {
    Dispatch: ActionRunner._dispatch,
    CancelDispatch: ActionRunner._cancel_dispatch,
    Forward: ActionRunner._forward,
    SendReply: ActionRunner._send_reply,
    CallSettled: ActionRunner._call_settled,
    CallFinished: ActionRunner._call_finished,
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
