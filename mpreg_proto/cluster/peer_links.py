"""The open links to nodes, and which of several to one member is kept (docs/explanation/membership.md).

Of two links to one member the one dialled by the smaller id is kept, of two by the same side the later; the other is
closed by its dialler alone, so that both sides agree without asking. Nothing here sends or closes.
"""

from __future__ import annotations

from mpreg_proto.cluster.actions import LinkSelected
from mpreg_proto.ids import LinkId, MemberId


class PeerLink:
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


class PeerLinks:
    """Links by their number and by member. `preferred` is the one that calls go over; others read it."""

    def __init__(self) -> None:
        self.preferred: dict[MemberId, LinkId] = {}
        self._by_link: dict[LinkId, PeerLink] = {}
        self._by_member: dict[MemberId, list[PeerLink]] = {}

    def __len__(self) -> int:
        return len(self._by_link)

    def get(self, link: LinkId) -> PeerLink | None:
        """A link that is open, or None."""
        return self._by_link.get(link)

    def to_member(self, member: MemberId) -> tuple[PeerLink, ...]:
        """All links to a member, closing ones too, the oldest first."""
        return tuple(self._by_member.get(member, ()))

    def closing(self, member: MemberId) -> list[LinkId]:
        """The links to a member that finish what is on them."""
        return [peer_link.link for peer_link in self._by_member.get(member, ()) if peer_link.closing]

    def add(self, peer_link: PeerLink) -> list[LinkSelected]:
        """A link has opened."""
        self._by_link[peer_link.link] = peer_link
        self._by_member.setdefault(peer_link.member, []).append(peer_link)
        return self.choose(peer_link.member)

    def remove(self, link: LinkId) -> PeerLink | None:
        """A link has ended; what it was, or None if it was none. `choose` comes next."""
        peer_link = self._by_link.pop(link, None)
        if peer_link is not None:
            rest = self._by_member[peer_link.member]
            rest.remove(peer_link)
            if not rest:
                del self._by_member[peer_link.member]
        return peer_link

    def choose(self, member: MemberId) -> list[LinkSelected]:
        """Let calls go over the best link that is not closing. Says so if that is another one than before."""
        best: PeerLink | None = None
        for peer_link in self._by_member.get(member, ()):
            if not peer_link.closing and (best is None or peer_link.dialler <= best.dialler):
                best = peer_link
        if best is None:
            self.preferred.pop(member, None)
            return []
        if self.preferred.get(member) == best.link:
            return []
        self.preferred[member] = best.link
        return [LinkSelected(member, best.link)]
