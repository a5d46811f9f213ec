"""The open links to nodes, and which of several to one member is kept (docs/explanation/membership.md).

Of two links to one member the one dialled by the smaller id is kept, of two by the same side the later; the other is
closed by its dialler alone, so that both sides agree without asking. Nothing here sends or closes.
"""

from __future__ import annotations

from mpreg_proto.cluster.outputs import Usable
from mpreg_proto.ids import LinkId, MemberId


class Tie:
    """An open link to a node."""

    __slots__ = ("closing", "corrected", "dialler", "link", "member", "name")

    def __init__(self, link: LinkId, member: MemberId, name: str, *, dialler: MemberId) -> None:
        self.link = link
        self.member = member
        self.name = name
        self.dialler = dialler
        self.closing = False
        """One side said Goodbye, or is about to: nothing new goes over it."""
        self.corrected: dict[MemberId, None] = {}
        """RETIRED members of whom the peer spoke as if they were not, and was told."""


class Linked:
    """Links by their number and by member. `best` is the one that calls go over; others read it."""

    def __init__(self) -> None:
        self.best: dict[MemberId, LinkId] = {}
        self._ties: dict[LinkId, Tie] = {}
        self._by_member: dict[MemberId, list[Tie]] = {}

    def __len__(self) -> int:
        return len(self._ties)

    def get(self, link: LinkId) -> Tie | None:
        """A link that is open, or None."""
        return self._ties.get(link)

    def of(self, member: MemberId) -> tuple[Tie, ...]:
        """All links to a member, closing ones too, the oldest first."""
        return tuple(self._by_member.get(member, ()))

    def closing(self, member: MemberId) -> list[LinkId]:
        """The links to a member that finish what is on them."""
        return [tie.link for tie in self._by_member.get(member, ()) if tie.closing]

    def add(self, tie: Tie) -> list[Usable]:
        """A link has opened."""
        self._ties[tie.link] = tie
        self._by_member.setdefault(tie.member, []).append(tie)
        return self.choose(tie.member)

    def remove(self, link: LinkId) -> Tie | None:
        """A link has ended; what it was, or None if it was none. `choose` comes next."""
        tie = self._ties.pop(link, None)
        if tie is not None:
            rest = self._by_member[tie.member]
            rest.remove(tie)
            if not rest:
                del self._by_member[tie.member]
        return tie

    def choose(self, member: MemberId) -> list[Usable]:
        """Let calls go over the best link that is not closing. Says so if that is another one than before."""
        best: Tie | None = None
        for tie in self._by_member.get(member, ()):
            if not tie.closing and (best is None or tie.dialler <= best.dialler):
                best = tie
        if best is None:
            self.best.pop(member, None)
            return []
        if self.best.get(member) == best.link:
            return []
        self.best[member] = best.link
        return [Usable(member, best.link)]
