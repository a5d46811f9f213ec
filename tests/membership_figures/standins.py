"""Those of a large cluster who only pass news of one member on: arrays in place of 10,000 nodes with a view each.

They share one view. A stand-in does with a claim what a node does that neither watches the member nor is linked to it:
it takes the maximum, joins accusers, tells all its neighbours but those it heard it from, at once or 50 ms after its
last telling (gossip.py), and says DEAD itself when the observers have not for 12 s (suspicion.py). It probes nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpreg_proto.cluster.gossip import FLUSH_INTERVAL
from mpreg_proto.cluster.members import MAX_ACCUSERS
from mpreg_proto.cluster.suspicion import UNOBSERVED_TIMEOUT
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

SUSPECT, DEAD = int(Standing.SUSPECT), int(Standing.DEAD)


class StandIns:
    """What each member, by its number, holds of the one that dies. `later(after, act, *args)` has something done.

    `tell(sender, receivers, claim)` puts a claim on its way.
    """

    def __init__(
        self,
        near: Sequence[Sequence[int]],
        *,
        later: Callable[..., None],
        tell: Callable[[int, list[int], Claim], None],
    ) -> None:
        self._near = near
        self._later = later
        self._tell = tell
        self._held: dict[int, Claim] = {}
        self._tellers: dict[int, list[int]] = {}
        """Who has news to tell, and who told it."""
        self._next: dict[int, int] = {}
        """When each may tell again at once."""

    def hear(self, who: int, sender: int, claim: Claim, now: int) -> bool:
        """A claim came to `who` from `sender`. Whether the member is DEAD to `who` from now on, and was not before."""
        held = self._held.get(who)
        rose = held is None or (held.incarnation, held.standing) < (claim.incarnation, claim.standing)
        if held is not None and not rose:
            joined = tuple(sorted({*held.accusers, *claim.accusers}))[:MAX_ACCUSERS]
            same = (held.incarnation, held.standing) == (claim.incarnation, claim.standing)
            if not same or claim.standing != SUSPECT or joined == held.accusers:
                return False
            claim = Claim(claim.member, claim.incarnation, claim.standing, claim.card, joined)
        self._held[who] = claim
        self._tellers.setdefault(who, []).append(sender)
        if held is None:
            self._later(UNOBSERVED_TIMEOUT, self._give_up, who, claim)
        self.flush(who, now)
        return rose and claim.standing == DEAD

    def flush(self, who: int, now: int) -> None:
        """Tell what is to be told, unless that was just done: then it is due a little later."""
        due = self._next.get(who, 0)
        if now < due:
            self._later(due - now, self._due, who)
        elif who in self._tellers:
            self._next[who] = now + FLUSH_INTERVAL
            tellers = self._tellers.pop(who)
            self._tell(who, [one for one in self._near[who] if one not in tellers], self._held[who])

    def _due(self, now: int, who: int) -> None:
        if who in self._tellers:
            self.flush(who, now)

    def _give_up(self, now: int, who: int, claim: Claim) -> None:
        if self._held[who].standing == SUSPECT:
            self.hear(who, who, Claim(claim.member, claim.incarnation, DEAD, claim.card), now)
