"""Requests that this node passes on for others, and their answers on the way back (docs/explanation/guarantees.md).

In: dispatches with a `to` that is not this node, what comes back for them, cancellations, lost links. Out: messages for
links. A relay never decodes what it carries, never places and never runs it; whoever sent it supervises it. A dispatch
gets a number of this node's own on its next link, so that answers find the way by what is written here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.wire.messages import CancelRequest, Request, Result

HOPS = 4
NOBODY = (LinkId(0), 0)
"""Where the answers of what was called off go, as who asked is gone."""


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Send this message on that link."""

    link: LinkId
    message: Request | Result | CancelRequest


class Relay:
    """What is passed on now, by the link and number that it came with and by those that it went with."""

    __slots__ = ("_back", "_limits", "_number", "_on", "me")

    def __init__(self, me: MemberId, *, number: Callable[[], int], limits: Limits) -> None:
        """`number`: the next number of a dispatch of this node, never the same twice."""
        self.me = me
        self._number = number
        self._limits = limits
        self._on: dict[tuple[LinkId, int], tuple[LinkId, int]] = {}
        self._back: dict[tuple[LinkId, int], tuple[LinkId, int]] = {}

    def __len__(self) -> int:
        return len(self._on)

    def has(self, link: LinkId, number: int) -> bool:
        """Whether that number of a link's peer is being passed on."""
        return (link, number) in self._on

    def origin(self, link: LinkId, number: int) -> tuple[LinkId, int] | None:
        """Where a dispatch of this node's own number came from, and its number there; None if it is none of these."""
        return self._back.get((link, number))

    def request(self, link: LinkId, request: Request, *, sender: MemberId, way: LinkId | None) -> list[Forward]:
        """Pass a dispatch on over `way`, or refuse it if there is none or it has come too far."""
        if way is None or request.hops >= HOPS or self.me in request.via or len(self._on) >= self._limits.requests:
            fault = Fault(1001, "no way to that node is left from here", {"maybe_executed": False})
            return [Forward(link, Result(request.id, fault=fault))]
        number = self._number()
        self._on[link, request.id] = (way, number)
        self._back[way, number] = (link, request.id)
        via = tuple(dict.fromkeys((*request.via, sender, self.me)))
        return [Forward(way, msgspec.structs.replace(request, id=number, hops=request.hops + 1, via=via))]

    def result(self, link: LinkId, result: Result) -> list[Forward] | None:
        """Pass an answer back; None if it is none to what was passed on here."""
        origin = self._back.get((link, result.id))
        if origin is None:
            return None
        if result.last:
            self._forget(link, result.id)
        if origin == NOBODY:
            return []
        return [Forward(origin[0], msgspec.structs.replace(result, id=origin[1]))]

    def cancel(self, link: LinkId, number: int) -> list[Forward]:
        """Pass a cancellation on."""
        onward = self._on.get((link, number))
        return [] if onward is None else [Forward(onward[0], CancelRequest(onward[1]))]

    def lost(self, link: LinkId) -> list[Forward]:
        """A link has ended: who sent over it is not answered any more, who waits for answers over it is told."""
        forwards: list[Forward] = []
        for (came, number), (went, mine) in list(self._on.items()):
            if link not in (came, went):
                continue
            self._forget(went, mine)
            if went != link:
                forwards.append(Forward(went, CancelRequest(mine)))
                self._back[went, mine] = NOBODY
            elif came != link:
                fault = faults.lost_on_the_way()
                forwards.append(Forward(came, Result(number, fault=fault)))
        for key in [key for key in self._back if key[0] == link]:
            del self._back[key]
        return forwards

    def pending(self, link: LinkId) -> bool:
        """Whether an answer is still to come or to go on `link`."""
        return any(key[0] == link for key in (*self._on, *self._back))

    def _forget(self, link: LinkId, number: int) -> None:
        origin = self._back.pop((link, number), None)
        if origin is not None:
            self._on.pop(origin, None)
