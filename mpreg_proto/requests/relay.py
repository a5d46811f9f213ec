"""Requests that this node relays for others, and their answers (docs/explanation/guarantees.md).

Inputs are dispatches with a `to` that is not this node, their answers, cancellations and lost links. Outputs are
messages for links. A relay never decodes, places or runs what it carries; the sender supervises it. On its next link a
dispatch gets a number of this node, and the tables here lead its answers back.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS, Limits
from mpreg_proto.requests import faults
from mpreg_proto.wire.messages import (
    CallProgress,
    CancelRequest,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Request,
    Result,
)

NO_ORIGIN = (LinkId(0), 0)
"""The origin of a cancelled dispatch whose sender has disconnected: its answers are dropped."""


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Send this message on that link."""

    link: LinkId
    message: Request | Result | CancelRequest | CallProgress | Items | ItemsTaken | InputItems | InputTaken


_Key = tuple[LinkId, int]


class Relay:
    """The relayed dispatches, by link and number on both sides.

    A row ends with the last answer or with one of its links. A full table drops the rows whose deadline has passed.
    """

    __slots__ = ("_by_link", "_expires", "_forwarded", "_limits", "_next_purge", "_number", "_origins", "me")

    def __init__(self, me: MemberId, *, number: Callable[[], int], limits: Limits) -> None:
        """`number` returns the next dispatch number of this node, never the same twice."""
        self.me: MemberId = me
        self._number = number
        self._limits = limits
        self._forwarded: dict[_Key, _Key] = {}
        self._origins: dict[_Key, _Key] = {}
        self._expires: dict[_Key, int] = {}
        """For each row of `_origins`: the time after which no answer to it is of use."""
        self._by_link: dict[LinkId, dict[_Key, None]] = {}
        """The rows of `_origins` by both of their links."""
        self._next_purge = 0

    def __len__(self) -> int:
        return len(self._forwarded)

    def has(self, link: LinkId, number: int) -> bool:
        """Return whether a dispatch with that number from that link is being relayed."""
        return (link, number) in self._forwarded

    def origin(self, link: LinkId, number: int) -> tuple[LinkId, int] | None:
        """Return the link and number that a relayed dispatch came with; None if this node did not relay it."""
        return self._origins.get((link, number))

    def request(
        self, link: LinkId, request: Request, *, sender: MemberId, next_hop: LinkId | None, now: int = 0
    ) -> list[Forward]:
        """Relay a dispatch over `next_hop`, or refuse it if there is none or the hops are used up."""
        if next_hop is None or request.hops >= MAX_HOPS or self.me in request.via:
            return [Forward(link, Result(request.id, fault=faults.no_route()))]
        if len(self._origins) >= self._limits.requests:
            self._purge(now)
            if len(self._origins) >= self._limits.requests:
                return [Forward(link, Result(request.id, fault=faults.relay_full(self._limits.requests)))]
        number = self._number()
        span = self._limits.default_timeout if request.timeout is None else request.timeout
        self._forwarded[link, request.id] = (next_hop, number)
        self._origins[next_hop, number] = (link, request.id)
        self._expires[next_hop, number] = now + min(span, self._limits.longest_timeout) + self._limits.drain_grace
        for end in (link, next_hop):
            self._by_link.setdefault(end, {})[next_hop, number] = None
        via = tuple(dict.fromkeys((*request.via, sender, self.me)))
        return [Forward(next_hop, msgspec.structs.replace(request, id=number, hops=request.hops + 1, via=via))]

    def result(self, link: LinkId, result: Result) -> list[Forward] | None:
        """Return an answer to its origin; None if it answers nothing that was relayed here."""
        origin = self._origins.get((link, result.id))
        if origin is None:
            return None
        if result.last:
            self._forget((link, result.id))
        if origin == NO_ORIGIN:
            return []
        return [Forward(origin[0], msgspec.structs.replace(result, id=origin[1]))]

    def update(self, link: LinkId, message: CallProgress | Items | InputTaken) -> list[Forward] | None:
        """Relay news of a call to its origin; None if it belongs to nothing that was relayed here."""
        origin = self._origins.get((link, message.id))
        if origin is None:
            return None
        return [] if origin == NO_ORIGIN else [Forward(origin[0], msgspec.structs.replace(message, id=origin[1]))]

    def onward(self, link: LinkId, message: ItemsTaken | InputItems) -> list[Forward]:
        """Relay the credit for more items, or items for a call."""
        onward = self._forwarded.get((link, message.id))
        return [] if onward is None else [Forward(onward[0], msgspec.structs.replace(message, id=onward[1]))]

    def cancel(self, link: LinkId, number: int) -> list[Forward]:
        """Relay a cancellation."""
        onward = self._forwarded.get((link, number))
        return [] if onward is None else [Forward(onward[0], CancelRequest(onward[1]))]

    def link_lost(self, link: LinkId) -> list[Forward]:
        """Handle the end of a link: cancel what came over it, and answer what went over it with 1023."""
        forwards: list[Forward] = []
        for key in list(self._by_link.get(link, ())):
            went, mine = key
            origin = self._origins[key]
            if went == link:
                self._forget(key)
                if origin[0] not in (link, NO_ORIGIN[0]):
                    forwards.append(Forward(origin[0], Result(origin[1], fault=faults.LOST_IN_RELAY)))
            else:
                self._forwarded.pop(origin, None)
                self._origins[key] = NO_ORIGIN
                forwards.append(Forward(went, CancelRequest(mine)))
        self._by_link.pop(link, None)
        return forwards

    def busy_on(self, link: LinkId) -> bool:
        """Return whether an answer is still expected or owed on `link`."""
        return link in self._by_link

    def _forget(self, key: _Key) -> None:
        origin = self._origins.pop(key)
        del self._expires[key]
        self._forwarded.pop(origin, None)
        for end in (origin[0], key[0]):
            rows = self._by_link.get(end)
            if rows is not None:
                rows.pop(key, None)
                if not rows:
                    del self._by_link[end]

    def _purge(self, now: int) -> None:
        """Forget the rows that have expired; do nothing before the next one can have."""
        if now < self._next_purge:
            return
        for key in [key for key, until in self._expires.items() if until <= now]:
            self._forget(key)
        self._next_purge = min(self._expires.values(), default=0)
