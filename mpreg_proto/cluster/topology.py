"""The topology: five rings of ids, which give observers, and routes over them (docs/explanation/membership.md).

Ring r orders the ids by hash(r, id). A member's neighbours are the one before it and the one after it on each ring. So
the overlay is a random regular graph of degree 10: an expander, with few hops between any two members, which the loss
of a few members does not cut (Rapid, 2018). It is a pure function of the view, without negotiation. The relation is
symmetric: a member observes its observers. `Routes` finds the next hop to a member without a direct link, from rings
and links alone, so that each hop decides by its own view. Nothing here sends or dials.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from struct import Struct

from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MAX_HOPS

RINGS = 5
MESH = 12
"""Below this number of members all are neighbours of each other."""
_WHOLE = 1 << 64
_unpack = Struct(f">{RINGS}Q").unpack


def places(member: MemberId) -> bytes:
    """Return the places of a member on the five rings: 8 bytes each, slices of one BLAKE2b of its id."""
    return blake2b(member, digest_size=8 * RINGS).digest()


class Rings:
    """The view as rings. `neighbours` are the own ones; the dict keeps its order, and others only read it."""

    __slots__ = ("_after", "_before", "_mine", "_orders", "_places", "changes", "me", "neighbours")

    def __init__(self, me: MemberId) -> None:
        self.me: MemberId = me
        self.neighbours: dict[MemberId, None] = {}
        self.changes: int = 0
        """A counter that grows with each change of `neighbours`."""
        self._places: dict[MemberId, bytes] = {me: places(me)}
        self._mine: tuple[int, ...] = _unpack(self._places[me])
        self._before: list[tuple[int, MemberId]] = []
        """By ring: the distance to the member just before the local one, measured forwards around the ring, and that
        member."""
        self._after: list[tuple[int, MemberId]] = []
        self._orders: list[list[tuple[int, MemberId]]] = []

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, member: MemberId) -> bool:
        return member in self._places

    def ids(self) -> Iterable[MemberId]:
        """Return all members in the view, the local one included, in the order in which they entered."""
        return self._places

    def enter(self, member: MemberId) -> None:
        """Add a member to the view. Does nothing if it is in the view already."""
        if member in self._places:
            return
        where = self._places[member] = places(member)
        self._orders = []
        if len(self._places) <= MESH:
            self._renew()
            return
        closer = False
        for ring, place in enumerate(_unpack(where)):
            here = ((place - self._mine[ring]) % _WHOLE, member)
            if here < self._after[ring]:
                self._after[ring], closer = here, True
            if here > self._before[ring]:
                self._before[ring], closer = here, True
        if closer:
            self._take(row[1] for pair in zip(self._before, self._after, strict=True) for row in pair)

    def depart(self, member: MemberId) -> None:
        """Remove a member from the view. Does nothing if it is not in the view, or is the local one."""
        if member == self.me or self._places.pop(member, None) is None:
            return
        self._orders = []
        if member in self.neighbours or len(self._places) < MESH:
            self._renew()

    def observers_of(self, member: MemberId) -> tuple[MemberId, ...]:
        """Return the neighbours of any member, which are its observers; as if it were in the view, if it is not."""
        if len(self._places) - (member in self._places) < MESH - 1:
            return tuple(other for other in self._places if other != member)
        if not self._orders:
            self._sort()
        found: dict[MemberId, None] = {}
        for ring, place in enumerate(_unpack(self._places.get(member) or places(member))):
            order = self._orders[ring]
            at = bisect_left(order, (place, member))
            after = at + 1 if at < len(order) and order[at][1] == member else at
            found[order[at - 1][1]] = None
            found[order[after % len(order)][1]] = None
        return tuple(found)

    def closest_to(self, member: MemberId, candidates: Iterable[MemberId], *, depth: int) -> MemberId | None:
        """Return the candidate closest to a member, the first of equal ones; None beyond `depth` steps.

        This is a breadth-first search over the overlay from the member, which does not pass through it or the local
        member.
        """
        wanted = list(candidates)
        found: dict[MemberId, None] = {member: None, self.me: None}
        layer = [member]
        for _ in range(depth):
            following: dict[MemberId, None] = {}
            for one in layer:
                for other in self.observers_of(one):
                    if other not in found:
                        found[other] = following[other] = None
            for one in wanted:
                if one in following:
                    return one
            layer = list(following)
        return None

    def _sort(self) -> None:
        placed = [(_unpack(where), member) for member, where in self._places.items()]
        self._orders = [sorted((where[ring], member) for where, member in placed) for ring in range(RINGS)]

    def _renew(self) -> None:
        """Compute the own neighbours from scratch."""
        others = list(islice(self._places.items(), 1, None))
        if len(self._places) < MESH:
            self._take(other for other, _ in others)
            return
        self._before, self._after = [(-1, self.me)] * RINGS, [(_WHOLE, self.me)] * RINGS
        for other, where in others:
            for ring, place in enumerate(_unpack(where)):
                here = ((place - self._mine[ring]) % _WHOLE, other)
                if here < self._after[ring]:
                    self._after[ring] = here
                if here > self._before[ring]:
                    self._before[ring] = here
        self._take(row[1] for pair in zip(self._before, self._after, strict=True) for row in pair)

    def _take(self, members: Iterable[MemberId]) -> None:
        found = dict.fromkeys(members)
        if found.keys() != self.neighbours.keys():
            self.neighbours.clear()
            self.neighbours.update(found)
            self.changes += 1


_DEPTH = 3
"""The depth to which the overlay is searched around the target; a relay further away is not used."""


class Routes:
    """The next hop to a member. `links` is read, never written."""

    __slots__ = ("_cache", "_links", "_rings")

    def __init__(self, rings: Rings, links: Mapping[MemberId, LinkId]) -> None:
        self._rings = rings
        self._links = links
        self._cache: dict[MemberId, LinkId | None] = {}
        """The routes for messages that begin here, until a change: a search takes long, and each call needs one."""

    def changed(self) -> None:
        """Drop the routes: links or the view have changed."""
        self._cache.clear()

    def next_hop(
        self, member: MemberId, *, via: Collection[bytes] = (), avoiding: Collection[bytes] = ()
    ) -> LinkId | None:
        """Return the link to a member, or to the linked member closest to it that is not in `via` or `avoiding`.

        None if there is none, or if the message has already made `MAX_HOPS` hops.
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
        # Neighbours come first: links that only calls need may close at any time.
        known = [*(one for one in self._rings.neighbours if one in self._links), *self._links]
        relay = self._rings.closest_to(member, [one for one in known if one not in via], depth=_DEPTH)
        return None if relay is None else self._links[relay]
