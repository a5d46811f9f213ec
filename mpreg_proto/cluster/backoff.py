"""How an address has done so far, and how long to wait before it is dialled again.

`Dialer` keeps the rows, dials, and asks here after each failure. Pauses double with full jitter, so that many nodes
do not come back at one moment (Brooker 2015, "Exponential Backoff And Jitter"); those of seeds and of the dead are
shared by all that are alive, so that a cluster of any size tries them as often together as one node does alone.
"""

from __future__ import annotations

from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.rng import Rng

MIN_LINK_AGE = 5 * SECOND
"""A link that lasted shorter is not dialled again at once, or two that cannot agree would do nothing else."""
RARELY_FROM = 600 * SECOND
RARE_INTERVAL = 30 * SECOND
"""How often, in the whole cluster, a seed's or a dead member's address is tried once it is silent for `RARELY_FROM`."""


RARELY_AFTER = 8
"""What led to this process itself so often in a row is tried rarely as well; once, if it is not alone."""


class AddressRow:
    """One address: for whom it is dialled, whom it led to, and how it has failed since then."""

    __slots__ = (
        "due",
        "failures",
        "flaps",
        "interested",
        "last_member",
        "own_hits",
        "rare",
        "reached",
        "seed",
        "silent",
        "silent_since",
        "tried",
    )

    def __init__(self) -> None:
        self.seed = False
        self.due: int | None = None
        self.interested: dict[MemberId, None] = {}
        self.last_member: MemberId | None = None
        self.own_hits = 0
        """How often in a row it led to this very process."""
        self.reached = 0
        """When a handshake there was last done."""
        self.flaps = 0
        """How many links in a row lasted shorter than `MIN_LINK_AGE`."""
        self.failures = 0
        self.silent = False
        self.silent_since = 0
        self.rare = False
        """Whether it is tried rarely by now."""
        self.tried = -1
        """When it last failed."""


class Backoff:
    """Pauses in nanoseconds. It draws from `rng` and writes to the row that it is given, to nothing else."""

    __slots__ = ("_limits", "_rings", "_rng")

    def __init__(self, rings: Rings, rng: Rng, limits: Limits) -> None:
        self._rings = rings
        self._rng = rng
        self._limits = limits

    def after_failure(self, row: AddressRow, now: int, *, dead: bool) -> int:
        """Until the next dial; `dead`: for nobody who is alive."""
        own = row.own_hits >= RARELY_AFTER or (row.own_hits > 0 and len(self._rings) > 1)
        if not own and (not dead or now - row.silent_since < RARELY_FROM):
            return self.pause(row.failures - 1, dead=dead)
        whole = RARE_INTERVAL * len(self._rings)
        if row.rare:
            return whole
        # At first some time within the round, or the whole cluster would try at one time and then not at all.
        row.rare = True
        return int(whole * self._rng.fraction())

    def flap_delay(self, row: AddressRow, member: MemberId, now: int) -> int:
        """Until a link that was lost is dialled again: nothing, unless it lasted too short a while."""
        if row.last_member != member or row.reached + MIN_LINK_AGE <= now:
            row.flaps = 0
            return 0
        row.flaps += 1
        return self.pause(row.flaps - 1, dead=False)

    def pause(self, failures: int, *, dead: bool) -> int:
        """Doubled from `dial_first`, with full jitter; for seeds and the dead it is shared by all that are alive.

        Of these the first is some time within the round, as all find out at one time that nobody answers there. Who is
        alone dials them soon at first, as nothing else is to be done.
        """
        longest = self._limits.dial_longest
        pause = min(longest, self._limits.dial_first << min(failures, 32))
        if dead and (pause == longest or len(self._rings) > 2):
            least = longest // 2 if failures else 0
            return (least + int((longest - least) * self._rng.fraction())) * len(self._rings) + 1
        return int(pause * self._rng.fraction()) + 1
