"""The topology: five rings of ids, which give observers, and routes over them (docs/explanation/membership.md).

Ring r orders the ids by hash(r, id); a member's neighbours are the one before it and the one after it on each ring, so
that the overlay is a random regular graph of degree 10: an expander, with few hops between any two and no few members
whose loss cuts it (Rapid, 2018). It is a pure function of the view; nobody negotiates. The relation is symmetric: a
member observes its observers. `Routes` finds the next hop to a member that has no link to here, from rings and links
alone, so that each hop decides by its own view. Nothing here sends or dials.
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
"""Below so many members everybody is everybody's neighbour."""
_WHOLE = 1 << 64
_unpack = Struct(f">{RINGS}Q").unpack


def places(member: MemberId) -> bytes:
    """Where a member stands on the five rings: 8 bytes each, slices of one BLAKE2b of its id."""
    return blake2b(member, digest_size=8 * RINGS).digest()


class Rings:
    """The view as rings. `neighbours` are my own; it keeps its order and is read, never written, by others."""

    __slots__ = ("_after", "_before", "_mine", "_orders", "_places", "changes", "me", "neighbours")

    def __init__(self, me: MemberId) -> None:
        self.me = me
        self.neighbours: dict[MemberId, None] = {}
        self.changes = 0
        """Grows whenever `neighbours` changed."""
        self._places: dict[MemberId, bytes] = {me: places(me)}
        self._mine: tuple[int, ...] = _unpack(self._places[me])
        self._before: list[tuple[int, MemberId]] = []
        """By ring: how far ahead of me, going round, the one just before me is; and who that is."""
        self._after: list[tuple[int, MemberId]] = []
        self._orders: list[list[tuple[int, MemberId]]] = []

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, member: MemberId) -> bool:
        return member in self._places

    def ids(self) -> Iterable[MemberId]:
        """Everybody in the view, myself included, in the order in which they came."""
        return self._places

    def enter(self, member: MemberId) -> None:
        """A member is in the view from now on. Nothing happens if it is already."""
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
        """A member is in the view no more. Nothing happens if it is not, or if it is me."""
        if member == self.me or self._places.pop(member, None) is None:
            return
        self._orders = []
        if member in self.neighbours or len(self._places) < MESH:
            self._renew()

    def observers_of(self, member: MemberId) -> tuple[MemberId, ...]:
        """The neighbours of any member, who are its observers; as if it were in the view, if it is not."""
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
        """Which of `candidates`, in its order, is closest to a member along the overlay; None beyond `depth` steps.

        A search in breadth from the member outward, through neither it nor me again.
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
        """My neighbours from scratch."""
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
"""So far the overlay is searched around the target; a relay further away is not used."""


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
