"""How long a member is SUSPECT before it is DEAD: longer if one accuses, shorter the more observers agree.

The detector tells of each suspicion that rises, is joined or ends; a timer says when the verdict is due, and the
detector judges then. Nothing here reads links or accuses. The more observers agree the sooner they are believed, and a
node that is slow itself, by its `health`, multiplies all this (Lifeguard, Dadgar et al. 2018, sections IV-A and B).
With up to three observers agreement proves little, as a pause of the suspect looks the same to all of them: silence
then has one fixed time. The end of a link without Goodbye proves more, and keeps the shortest.
"""

from __future__ import annotations

from math import ceil, log

from mpreg_proto.cluster.members import Member
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.timers import Timers

LONGEST = 6 * SECOND
SHORTEST = SECOND
"""An observer's suspicion becomes death after `LONGEST` if it is alone with it, after `SHORTEST` if enough agree."""
AGREEING = 3
SMALL = 3
"""Up to so many observers, which is a cluster of four, silence is suspected for `PAUSE`, whoever agrees."""
PAUSE = 4500 * MILLISECOND
"""A probe fails a second or more after a pause began; so an event loop that stands still for 5 s is not DEAD, and a
member that hangs is DEAD within 8 s."""
HEARD_VERDICT = 12 * SECOND
"""The same for whoever is no observer, should these not say more themselves."""


class _Suspicion:
    """A SUSPECT member: since when, and, for its observers, who they were when it began."""

    __slots__ = ("observers", "started")

    def __init__(self, started: int) -> None:
        self.started = started
        self.observers: tuple[MemberId, ...] = ()


def enough(observers: int) -> int:
    """How many accusers make the shortest suspicion."""
    return min(AGREEING, max(1, ceil(observers / 3)))


def patience(accusers: int, observers: int, *, health: int = 1) -> int:
    """How long an observer suspects who is silent before it says DEAD (Lifeguard, section IV-B)."""
    return PAUSE if observers <= SMALL else health * _agreed(accusers, observers)


def _agreed(accusers: int, observers: int) -> int:
    needed = enough(observers)
    if accusers >= needed:
        return SHORTEST
    return LONGEST if accusers <= 1 else LONGEST - int((LONGEST - SHORTEST) * log(accusers) / log(needed))


class Suspicions:
    """Everybody who is SUSPECT here. Timer keys: ("cluster", "verdict", member)."""

    __slots__ = ("_held", "_timers")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._held: dict[MemberId, _Suspicion] = {}

    def hear(self, member: Member, now: int, *, health: int) -> None:
        """A member that this node does not watch is SUSPECT: its observers have the first word."""
        held = self._of(member.id, now)
        if not held.observers:
            self._due(member.id, held.started + HEARD_VERDICT * health)

    def observe(
        self, member: Member, observers: tuple[MemberId, ...], now: int, *, health: int, ended: int | None = None
    ) -> bool:
        """A member that this node watches, as one of `observers`, is SUSPECT, or has more accusers.

        `ended`: when its last link here ended without Goodbye, or another answered at its address. Returns whether that
        is new to it as an observer.
        """
        held = self._of(member.id, now)
        first = not held.observers
        if first:
            held.observers = observers
        counted = [one for one in member.accusers if one in held.observers or one in observers]
        due = held.started + patience(len(counted), len(observers), health=health)
        if ended is not None and len(observers) <= SMALL:
            due = min(due, max(held.started, ended) + SHORTEST)
        self._due(member.id, max(now, due))
        return first

    def again(self, member: MemberId, now: int, *, health: int, observers: int) -> None:
        """Begin a suspicion anew: what it was waited for until now proves nothing. `observers`: 0 for no observer."""
        self._held[member].started = now
        self._due(member, now + (patience(0, observers, health=health) if observers else HEARD_VERDICT * health))

    def forget(self, member: MemberId) -> None:
        """It is SUSPECT no longer."""
        if self._held.pop(member, None) is not None:
            self._timers.cancel(("cluster", "verdict", member))

    def stop(self) -> None:
        """No verdict comes any more."""
        for member in self._held:
            self._timers.cancel(("cluster", "verdict", member))

    def since(self, member: MemberId) -> int | None:
        """When its suspicion began, or began anew; None if there is none."""
        held = self._held.get(member)
        return None if held is None else held.started

    def all(self) -> list[MemberId]:
        """Everybody who is SUSPECT here, longest first."""
        return list(self._held)

    def unobserved(self) -> list[MemberId]:
        """Those of whom this node was no observer when it heard."""
        return [member for member, held in self._held.items() if not held.observers]

    def _of(self, member: MemberId, now: int) -> _Suspicion:
        held = self._held.get(member)
        if held is None:
            held = self._held[member] = _Suspicion(now)
        return held

    def _due(self, member: MemberId, at: int) -> None:
        self._timers.set(("cluster", "verdict", member), at)
