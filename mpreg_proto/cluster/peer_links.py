"""The open links to nodes, and the choice among several to one member (docs/explanation/membership.md).

Of two links to one member the one dialled by the smaller id is kept, of two by the same side the later. Only the
dialler of the other one closes it, so that both sides agree without a message. Nothing here sends or closes.
"""

from __future__ import annotations

from mpreg_proto.cluster.actions import LinkSelected
from mpreg_proto.ids import LinkId, MemberId


class PeerLink:
    """An open link to a node."""

    __slots__ = ("closing", "corrected", "dialler", "link", "member", "name")

    def __init__(self, link: LinkId, member: MemberId, name: str, *, dialler: MemberId) -> None:
        self.link: LinkId = link
        self.member: MemberId = member
        self.name: str = name
        self.dialler: MemberId = dialler
        self.closing: bool = False
        """True if one side has sent Goodbye, or is about to: nothing new uses it."""
        self.corrected: dict[MemberId, None] = {}
        """The RETIRED members that the peer sent with another standing, and for which it got a correction."""


class PeerLinks:
    """The links by number and by member. `preferred` is the one that calls use; others read it."""

    def __init__(self) -> None:
        self.preferred: dict[MemberId, LinkId] = {}
        self._by_link: dict[LinkId, PeerLink] = {}
        self._by_member: dict[MemberId, list[PeerLink]] = {}

    def __len__(self) -> int:
        return len(self._by_link)

    def get(self, link: LinkId) -> PeerLink | None:
        """Return an open link, or None."""
        return self._by_link.get(link)

    def to_member(self, member: MemberId) -> tuple[PeerLink, ...]:
        """Return all links to a member, closing ones included, the oldest first."""
        return tuple(self._by_member.get(member, ()))

    def closing(self, member: MemberId) -> list[LinkId]:
        """Return the links to a member that are closing: they finish the calls on them."""
        return [peer_link.link for peer_link in self._by_member.get(member, ()) if peer_link.closing]

    def add(self, peer_link: PeerLink) -> list[LinkSelected]:
        """Add an open link."""
        self._by_link[peer_link.link] = peer_link
        self._by_member.setdefault(peer_link.member, []).append(peer_link)
        return self.choose(peer_link.member)

    def remove(self, link: LinkId) -> PeerLink | None:
        """Remove a link that has ended and return it; None if it is unknown. `choose` must follow."""
        peer_link = self._by_link.pop(link, None)
        if peer_link is not None:
            rest = self._by_member[peer_link.member]
            rest.remove(peer_link)
            if not rest:
                del self._by_member[peer_link.member]
        return peer_link

    def choose(self, member: MemberId) -> list[LinkSelected]:
        """Let calls use the best link that is not closing. Returns `LinkSelected` if the choice has changed."""
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
