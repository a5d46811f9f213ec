"""Requests that this node passes on for others, and their answers on the way back (docs/explanation/guarantees.md).

In: dispatches with a `to` that is not this node, what comes back for them, cancellations, lost links. Out: messages for
links. A relay never decodes what it carries, never places and never runs it; whoever sent it supervises it. A dispatch
gets a number of this node's own on its next link, so that answers find the way by what is written here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS, Limits
from mpreg_proto.requests import faults
from mpreg_proto.wire.messages import CancelRequest, Request, Result

NO_ORIGIN = (LinkId(0), 0)
"""Where the answers of what was called off go, as who asked is gone."""


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Send this message on that link."""

    link: LinkId
    message: Request | Result | CancelRequest


_Key = tuple[LinkId, int]


class Relay:
    """What is passed on now, by the link and number that it came with and by those that it went with.

    A row ends with its last answer or with a link of it. Of a full table those go that nobody can want any more.
    """

    __slots__ = ("_by_link", "_expires", "_forwarded", "_limits", "_next_purge", "_number", "_origins", "me")

    def __init__(self, me: MemberId, *, number: Callable[[], int], limits: Limits) -> None:
        """`number`: the next number of a dispatch of this node, never the same twice."""
        self.me = me
        self._number = number
        self._limits = limits
        self._forwarded: dict[_Key, _Key] = {}
        self._origins: dict[_Key, _Key] = {}
        self._expires: dict[_Key, int] = {}
        """For each row of `_origins`: from when on no answer to it is of any use."""
        self._by_link: dict[LinkId, dict[_Key, None]] = {}
        """The rows of `_origins` by the links that they came and went over."""
        self._next_purge = 0

    def __len__(self) -> int:
        return len(self._forwarded)

    def has(self, link: LinkId, number: int) -> bool:
        """Whether that number of a link's peer is being passed on."""
        return (link, number) in self._forwarded

    def origin(self, link: LinkId, number: int) -> tuple[LinkId, int] | None:
        """Where a dispatch of this node's own number came from, and its number there; None if it is none of these."""
        return self._origins.get((link, number))

    def request(
        self, link: LinkId, request: Request, *, sender: MemberId, next_hop: LinkId | None, now: int = 0
    ) -> list[Forward]:
        """Pass a dispatch on over `next_hop`, or refuse it if there is none or it has come too far."""
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
        """Pass an answer back; None if it is none to what was passed on here."""
        origin = self._origins.get((link, result.id))
        if origin is None:
            return None
        if result.last:
            self._forget((link, result.id))
        if origin == NO_ORIGIN:
            return []
        return [Forward(origin[0], msgspec.structs.replace(result, id=origin[1]))]

    def cancel(self, link: LinkId, number: int) -> list[Forward]:
        """Pass a cancellation on."""
        onward = self._forwarded.get((link, number))
        return [] if onward is None else [Forward(onward[0], CancelRequest(onward[1]))]

    def link_lost(self, link: LinkId) -> list[Forward]:
        """A link has ended: who sent over it is not answered any more, who waits for answers over it is told."""
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
        """Whether an answer is still to come or to go on `link`."""
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
        """Forget what nobody can want any more; not looked for again before something else is due."""
        if now < self._next_purge:
            return
        for key in [key for key, until in self._expires.items() if until <= now]:
            self._forget(key)
        self._next_purge = min(self._expires.values(), default=0)
