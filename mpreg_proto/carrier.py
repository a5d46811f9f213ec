"""What one machine wants, brought to whom it concerns: another machine, a link, or the log of effects.

Machines return intents and outs in the order of their causes; what follows from one comes after all that was there
before, so nothing re-enters a machine. The table at the end holds all that may be wanted but the effects, which go to
the log as they are. Nothing here reads bytes or decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, assert_never

from mpreg_proto.cluster.outputs import (
    Abandon,
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
from mpreg_proto.cluster.splitting import halves
from mpreg_proto.effects import Notify
from mpreg_proto.machines import Machines
from mpreg_proto.notices import NotTold
from mpreg_proto.requests import faults
from mpreg_proto.requests.intents import LOCAL, Answer, Assign, Ended, Intent, Partly, WantLink, Withdraw
from mpreg_proto.requests.relay import Forward
from mpreg_proto.sending import LinkGone, Sent, TooLong
from mpreg_proto.wire.messages import CancelRequest, Request, Result

GOING_AWAY = 1001
"""The WebSocket close code of an endpoint that goes down (RFC 6455, section 7.4.1)."""

Wanted = Intent | Out | Forward
"""All that the machines may return."""


class Carrier:
    """See the module. It holds nothing of its own."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._links = machines.links
        self._answers = machines.answers
        self._worker = machines.worker
        self._log = machines.log

    def carry(self, wanted: Iterable[Wanted], now: int) -> None:
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
            return self._worker.accept(
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
        outcome = self._links.send(intent.link, request)
        match outcome:
            case Sent():
                return ()
            case LinkGone():
                return self._machines.coordinator.unsent(intent.number, None, now)
            case TooLong():
                fault = outcome.fault(maybe_executed=False)
                return self._machines.coordinator.unsent(intent.number, fault, now)
            case _:
                assert_never(outcome)

    def _forward(self, intent: Forward, now: int) -> Iterable[Wanted]:
        message = intent.message
        if isinstance(message, Result):
            self._answers.pass_on(intent.link, message)
            return ()
        if isinstance(message, CancelRequest):
            self._links.say(intent.link, message)
            return ()
        outcome = self._links.send(intent.link, message)
        match outcome:
            case Sent():
                return ()
            case LinkGone():  # it never left, so who waits for its answer has it
                return self._machines.relay.result(intent.link, Result(message.id, fault=faults.no_route())) or ()
            case TooLong():
                refused = Result(message.id, fault=outcome.fault(maybe_executed=False))
                return self._machines.relay.result(intent.link, refused) or ()
            case _:
                assert_never(outcome)

    def _withdraw(self, intent: Withdraw, now: int) -> Iterable[Wanted]:
        if intent.link == LOCAL:
            return self._worker.cancel(LOCAL, intent.number, now)
        self._links.say(intent.link, CancelRequest(intent.number))
        return ()

    def _answer(self, intent: Answer, now: int) -> Iterable[Wanted]:
        self._answers.finish(intent.link, intent.result)
        return ()

    def _partly(self, intent: Partly, now: int) -> Iterable[Wanted]:
        self._answers.add(intent.link, intent.request, intent.row, last=False)
        return ()

    def _ended(self, intent: Ended, now: int) -> Iterable[Wanted]:
        if intent.link == LOCAL:
            return self._machines.coordinator.ended(intent.request, intent.row, now)
        self._answers.add(intent.link, intent.request, intent.row, last=intent.last)
        return ()

    def _want_link(self, intent: WantLink, now: int) -> Iterable[Wanted]:
        return self._machines.cluster.want_link(intent.member, now)

    def _tell(self, intent: Tell, now: int) -> Iterable[Wanted]:
        """Send it, in several messages if need be. Of a link that is gone the cluster hears by its end."""
        waiting = [intent.message]
        while waiting:
            message = waiting.pop()
            outcome = self._links.send(intent.link, message)
            match outcome:
                case Sent() | LinkGone():
                    pass
                case TooLong():
                    if parts := halves(message):
                        waiting.extend(reversed(parts))
                    else:
                        kind = type(message).__name__
                        self._log.append(Notify(NotTold(intent.link, kind, outcome.size, outcome.limit)))
                case _:
                    assert_never(outcome)
        return ()

    def _close_link(self, intent: CloseLink, now: int) -> Iterable[Wanted]:
        self._links.goodbye(intent.link, intent.reason, now)
        return ()

    def _probe(self, intent: Probe, now: int) -> Iterable[Wanted]:
        self._links.ping(intent.link, now)
        return ()

    def _drop(self, intent: Drop, now: int) -> Iterable[Wanted]:
        self._links.hang_up(intent.link, GOING_AWAY, why="it is held for dead")
        return ()

    def _abandon(self, intent: Abandon, now: int) -> Iterable[Wanted]:
        """Goodbye, in case it is heard there, and the end: what is pending on that link goes elsewhere."""
        self._links.goodbye(intent.link, "silent", now)
        self._links.hang_up(intent.link, GOING_AWAY, why="nothing comes over it, though its member is alive")
        return ()

    def _surplus(self, intent: Surplus, now: int) -> Iterable[Wanted]:
        """Close a link that nobody needs, unless a call went over it lately or its answer is to come."""
        if self._links.idle(intent.link, now) and not self._machines.pending(intent.link):
            self._links.goodbye(intent.link, "idle", now)
            return self._machines.cluster.closing(intent.link)
        return ()

    def _gone(self, intent: Gone, now: int) -> Iterable[Wanted]:
        return self._machines.coordinator.gone(intent.member, now)

    def _take_new_id(self, intent: TakeNewId, now: int) -> Iterable[Wanted]:
        """The cluster holds this member for dead for good: go on as another one (membership.md)."""
        self.carry(self._machines.coordinator.end_all(), now)
        for link, session in list(self._links.sessions.items()):
            if session.member is not None or session.dialled is not None:
                self._links.hang_up(link)
        self.carry(self._machines.take_new_id(now), now)
        return ()

    def _usable(self, intent: Usable, now: int) -> Iterable[Wanted]:
        return self._machines.coordinator.link_stands(intent.member, now)

    def _offers_changed(self, intent: OffersChanged, now: int) -> Iterable[Wanted]:
        return self._machines.coordinator.offers_changed(now, functions=intent.functions, members=intent.members)


_CARRIERS: dict[type, Callable[[Carrier, Any, int], Iterable[Wanted]]] = {
    Assign: Carrier._assign,
    Withdraw: Carrier._withdraw,
    Forward: Carrier._forward,
    Answer: Carrier._answer,
    Partly: Carrier._partly,
    Ended: Carrier._ended,
    WantLink: Carrier._want_link,
    Tell: Carrier._tell,
    Probe: Carrier._probe,
    CloseLink: Carrier._close_link,
    Drop: Carrier._drop,
    Abandon: Carrier._abandon,
    Surplus: Carrier._surplus,
    Gone: Carrier._gone,
    Usable: Carrier._usable,
    OffersChanged: Carrier._offers_changed,
    TakeNewId: Carrier._take_new_id,
}
