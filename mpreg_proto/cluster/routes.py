"""Over whom a member can be reached that has no link to here (docs/explanation/membership.md).

It reads rings and links and answers from them alone, so that each hop decides anew by its own view. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import LinkId, MemberId

MAX_HOPS = 4
"""Nodes that one message may be passed on by."""
_DEPTH = 3
"""So far the overlay is searched around the target; a relay that is further away is no way."""


class Routes:
    """The next step to a member. `links` is read, never written."""

    __slots__ = ("_cache", "_links", "_rings")

    def __init__(self, rings: Rings, links: Mapping[MemberId, LinkId]) -> None:
        self._rings = rings
        self._links = links
        self._cache: dict[MemberId, LinkId | None] = {}
        """Answers for those who begin, until something changes: a search takes long, and each call asks."""

    def changed(self) -> None:
        """Links or the view are other than they were."""
        self._cache.clear()

    def next_hop(
        self, member: MemberId, *, via: Collection[bytes] = (), avoiding: Collection[bytes] = ()
    ) -> LinkId | None:
        """The link to a member, or to whoever of the linked is closest to it and neither in `via` nor in `avoiding`.

        None where there is none, or where the message was passed on too often already.
        """
        direct = self._links.get(member)
        if direct is not None:
            return direct
        if len(via) >= MAX_HOPS or member == self._rings.me:
            return None
        if via or avoiding:
            return self._search(member, (*via, *avoiding))
        if member not in self._cache:
            self._cache[member] = self._search(member, ())
        return self._cache[member]

    def _search(self, member: MemberId, via: Collection[bytes]) -> LinkId | None:
        # Neighbours come first: those that are linked for calls alone may close at any time.
        known = [*(one for one in self._rings.neighbours if one in self._links), *self._links]
        relay = self._rings.closest_to(member, [one for one in known if one not in via], depth=_DEPTH)
        return None if relay is None else self._links[relay]
