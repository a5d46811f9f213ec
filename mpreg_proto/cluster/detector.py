"""Who no longer answers (MEMBERSHIP.md, Detecting failure), in its first form: ends of streams and dials in vain.

`Cluster` tells it of links that ended and dials that failed; what it accuses comes back as members that rose, to be
spread as news. A stream that ends without Goodbye is suspicion at once, never death: DEAD needs a dial in vain, or
time. After a Goodbye there is no suspicion until the member cannot be dialled. It sends no probe and times no
answer: that, co-observers and local health come here, between `lost` and `wake`, and change nothing outside.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.overlay import Overlay
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.timers import Key, Timers

OWN_VERDICT = 2 * SECOND
"""From this node's own suspicion until DEAD, if no link stands by then and the member has not refuted."""
HEARD_VERDICT = 12 * SECOND
"""The same for a suspicion that others spread, should they not say more themselves."""
UNREACHED = 20 * SECOND
"""How long a member that others call alive may be dialled in vain before it is suspected, or is so again: its last
witness may be gone too. If it is not, the refutation comes by way of others, which costs one incarnation."""


class Detector:
    """This node's doubts. It writes to `members` by accusing alone."""

    def __init__(self, members: Members, overlay: Overlay, links: Mapping[MemberId, LinkId], *, timers: Timers) -> None:
        self._members = members
        self._overlay = overlay
        self._links = links
        self._timers = timers
        self._accused: dict[MemberId, int] = {}
        """Whom this node itself suspects, and since when."""
        self._parted: dict[MemberId, int] = {}
        """Whose last link closed on purpose, and when."""
        self._unreached: dict[MemberId, int] = {}
        """Who is not linked, and since when it is known, or was last suspected for that."""
        self._displaced: dict[MemberId, None] = {}
        """At whose address another member answered."""
        self._stopped = False

    def stop(self) -> None:
        """This process is leaving: it judges nobody any more."""
        self._stopped = True
        for member in (*self._accused, *(held.id for held in self._members.all())):
            self._timers.cancel(("cluster", "verdict", member))

    # -- links ----------------------------------------------------------------------------------------------------

    def linked(self, member: MemberId) -> None:
        """A link to a member stands; if it was suspected, it hears so from the digest and refutes."""
        self._accused.pop(member, None)
        self._parted.pop(member, None)
        self._unreached.pop(member, None)

    def lost(self, member: MemberId, now: int) -> list[Member]:
        """Its last link ended without Goodbye: SUSPECT."""
        if not self._members.routable(member):
            return []
        return self._suspect(member, now, OWN_VERDICT)

    def parted(self, member: MemberId, now: int) -> None:
        """Its last link closed on purpose: no suspicion, as long as it can be dialled."""
        if self._members.routable(member):
            self._parted[member] = now

    def failed(self, address: Address, now: int) -> list[Member]:
        """A dial came to nothing: what that means for those who are said to be there."""
        risen: list[Member] = []
        for member in self._overlay.awaited(address):
            if member in self._links or not self._members.routable(member) or self._stopped:
                continue
            accused, parted = self._accused.get(member), self._parted.get(member)
            if accused is not None:
                if self._overlay.unanswered(member, accused):
                    risen += self._give_up(member, now)
            elif parted is not None:
                # Its LEFT may still be on the way over others.
                if parted + OWN_VERDICT <= now and self._overlay.unanswered(member, parted):
                    risen += self._suspect(member, now, OWN_VERDICT)
            else:
                since = self._unreached.get(member)
                if since is not None and since + UNREACHED <= now:
                    self._unreached[member] = now
                    risen += self._suspect(member, now, HEARD_VERDICT)
        return risen

    def displaced(self, member: MemberId, now: int) -> list[Member]:
        """Another member answered where this one should be: SUSPECT; RETIRED once it is DEAD. Evidence, no hearsay."""
        if member == self._members.me or self._stopped:
            return []
        if self._members.standing(member) is Standing.DEAD:
            return self._accuse(member, Standing.RETIRED, now)
        if not self._members.routable(member):
            return []
        self._displaced[member] = None
        accused = self._accused.get(member)
        if accused is not None and self._overlay.unanswered(member, accused):
            return self._give_up(member, now)
        return self._suspect(member, now, OWN_VERDICT)

    # -- news and time --------------------------------------------------------------------------------------------

    def heard(self, member: Member, now: int) -> list[Member]:
        """A member rose, by whatever cause. What follows from it, to be spread as well."""
        if member.id == self._members.me or self._stopped:
            return []
        if member.standing is Standing.SUSPECT:
            key = ("cluster", "verdict", member.id)
            undiallable = member.id not in self._accused and self._overlay.leads_here(member.addresses)
            if key not in self._timers or undiallable:  # the latter may have one from when it was ALIVE
                self._timers.set(key, now + HEARD_VERDICT)
            return []
        self._timers.cancel(("cluster", "verdict", member.id))
        self._accused.pop(member.id, None)
        if member.standing is Standing.ALIVE:
            self._displaced.pop(member.id, None)
            if member.id not in self._links:
                self._unreached.setdefault(member.id, now)
                if self._overlay.leads_here(member.addresses):  # an earlier life of mine: no dial will ever fail
                    self._timers.set(("cluster", "verdict", member.id), now + UNREACHED)
            return []
        self._parted.pop(member.id, None)
        self._unreached.pop(member.id, None)
        displaced = self._was_displaced(member.id)
        if displaced and member.standing is Standing.DEAD:
            return self._accuse(member.id, Standing.RETIRED, now)
        return []

    def wake(self, key: Key, now: int) -> list[Member]:
        """A suspicion is old enough: DEAD, unless a link stands, over which the suspect will refute.

        Or a member that nobody can dial from here is not linked either: SUSPECT.
        """
        member = MemberId(bytes(key[2])) if len(key) == 3 and isinstance(key[2], bytes) else None
        if member is None or not self._members.routable(member) or self._stopped:
            return []
        if self._members.standing(member) is Standing.ALIVE:
            return [] if member in self._links else self._suspect(member, now, HEARD_VERDICT)
        if member in self._links:
            self._timers.set(key, now + HEARD_VERDICT)
            return []
        return self._give_up(member, now)

    # -- accusing -------------------------------------------------------------------------------------------------

    def _suspect(self, member: MemberId, now: int, verdict: int) -> list[Member]:
        self._accused[member] = now
        self._timers.set(("cluster", "verdict", member), now + verdict)
        return self._accuse(member, Standing.SUSPECT, now)

    def _give_up(self, member: MemberId, now: int) -> list[Member]:
        self._accused.pop(member, None)
        self._timers.cancel(("cluster", "verdict", member))
        standing = Standing.RETIRED if self._was_displaced(member) else Standing.DEAD
        return self._accuse(member, standing, now)

    def _was_displaced(self, member: MemberId) -> bool:
        known = member in self._displaced
        self._displaced.pop(member, None)
        return known

    def _accuse(self, member: MemberId, standing: Standing, now: int) -> list[Member]:
        held = self._members.accuse(member, standing, now)
        return [] if held is None else [held]
