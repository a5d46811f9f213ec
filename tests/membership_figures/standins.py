"""The members of a large cluster that only pass on gossip about one member: arrays in place of 10,000 nodes.

They share one view. A stand-in handles a claim as a node does that neither observes the member nor is linked to it. It
takes the maximum, joins accusers, and sends to all its neighbours except those it received it from, at once or 50 ms
after its last gossip (gossip.py). It declares DEAD itself if the observers have not for 12 s (suspicion.py). It probes
no member.
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
    """The claim that each member, by its number, has about the dying one. `later(after, act, *args)` schedules a call.

    `send(sender, receivers, claim)` sends a claim.
    """

    def __init__(
        self,
        near: Sequence[Sequence[int]],
        *,
        later: Callable[..., None],
        send: Callable[[int, list[int], Claim], None],
    ) -> None:
        self._near = near
        self._later = later
        self._send = send
        self._held: dict[int, Claim] = {}
        self._sources: dict[int, list[int]] = {}
        """The members with gossip to send, and the sources of each."""
        self._next: dict[int, int] = {}
        """The time from which each may send at once again."""

    def receive(self, node: int, sender: int, claim: Claim, now: int) -> bool:
        """Handle a claim that `node` receives from `sender`; return whether this makes the member DEAD to `node`."""
        held = self._held.get(node)
        rose = held is None or (held.incarnation, held.standing) < (claim.incarnation, claim.standing)
        if held is not None and not rose:
            joined = tuple(sorted({*held.accusers, *claim.accusers}))[:MAX_ACCUSERS]
            same = (held.incarnation, held.standing) == (claim.incarnation, claim.standing)
            if not same or claim.standing != SUSPECT or joined == held.accusers:
                return False
            claim = Claim(claim.member, claim.incarnation, claim.standing, claim.card, joined)
        self._held[node] = claim
        self._sources.setdefault(node, []).append(sender)
        if held is None:
            self._later(UNOBSERVED_TIMEOUT, self._give_up, node, claim)
        self.flush(node, now)
        return rose and claim.standing == DEAD

    def flush(self, node: int, now: int) -> None:
        """Send the pending gossip, or schedule it if the last one was just sent."""
        due = self._next.get(node, 0)
        if now < due:
            self._later(due - now, self._due, node)
        elif node in self._sources:
            self._next[node] = now + FLUSH_INTERVAL
            sources = self._sources.pop(node)
            self._send(node, [one for one in self._near[node] if one not in sources], self._held[node])

    def _due(self, now: int, node: int) -> None:
        if node in self._sources:
            self.flush(node, now)

    def _give_up(self, now: int, node: int, claim: Claim) -> None:
        if self._held[node].standing == SUSPECT:
            self.receive(node, node, Claim(claim.member, claim.incarnation, DEAD, claim.card), now)
