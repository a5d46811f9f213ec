"""The suspicion timeout, from SUSPECT to DEAD: long with one accuser, shorter the more observers agree.

The detector reports each suspicion that begins, gets an accuser or ends. A timer marks the end of the timeout, and the
detector decides then. Nothing here reads links or accuses. The more observers agree, the shorter the timeout; a node
that is slow itself multiplies it by its `health_multiplier` (Lifeguard, Dadgar et al. 2018, sections IV-A and B). With
up to three observers agreement proves little, as a pause of the suspect looks the same to all of them: silence then has
one fixed timeout. The end of a link without Goodbye proves more, and keeps the shortest.
"""

from __future__ import annotations

from math import ceil, log

from mpreg_proto.cluster.members import Member
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.timers import TimerKind, Timers

MAX_TIMEOUT = 6 * SECOND
MIN_TIMEOUT = SECOND
"""An observer's suspicion becomes DEAD after `MAX_TIMEOUT` if no other agrees, after `MIN_TIMEOUT` if enough do."""
CONFIRMATIONS = 3
SMALL_CLUSTER = 3
"""Up to this number of observers, a cluster of four, a silent member is suspected for `SMALL_CLUSTER_TIMEOUT`."""
SMALL_CLUSTER_TIMEOUT = 4500 * MILLISECOND
"""A probe fails a second or more after a pause began. So a member whose event loop is blocked for 5 s is not DEAD, and
a member that hangs is DEAD within 8 s."""
UNOBSERVED_TIMEOUT = 12 * SECOND
"""The timeout of a node that is no observer, if the observers declare nothing more before."""


class _Suspicion:
    """A SUSPECT member: since when, and, if this node observes it, its observers at the beginning."""

    __slots__ = ("observers", "started")

    def __init__(self, started: int) -> None:
        self.started = started
        self.observers: tuple[MemberId, ...] = ()


def confirmations_needed(observers: int) -> int:
    """Return the number of accusers with which a suspicion is shortest."""
    return min(CONFIRMATIONS, max(1, ceil(observers / 3)))


def suspicion_timeout(accusers: int, observers: int, *, health_multiplier: int = 1) -> int:
    """Return how long an observer suspects a silent member before it declares DEAD (Lifeguard, section IV-B)."""
    return SMALL_CLUSTER_TIMEOUT if observers <= SMALL_CLUSTER else health_multiplier * _agreed(accusers, observers)


def _agreed(accusers: int, observers: int) -> int:
    needed = confirmations_needed(observers)
    if accusers >= needed:
        return MIN_TIMEOUT
    return (
        MAX_TIMEOUT if accusers <= 1 else MAX_TIMEOUT - int((MAX_TIMEOUT - MIN_TIMEOUT) * log(accusers) / log(needed))
    )


class Suspicions:
    """All members that are SUSPECT here. Timer keys: (TimerKind.SUSPICION, member)."""

    __slots__ = ("_by_member", "_timers")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._by_member: dict[MemberId, _Suspicion] = {}

    def add_unobserved(self, member: Member, now: int, *, health_multiplier: int) -> None:
        """Add a SUSPECT member that this node does not observe: its observers decide first."""
        suspicion = self._get_or_add(member.id, now)
        if not suspicion.observers:
            self._set_timer(member.id, suspicion.started + UNOBSERVED_TIMEOUT * health_multiplier)

    def observe(
        self,
        member: Member,
        observers: tuple[MemberId, ...],
        now: int,
        *,
        health_multiplier: int,
        ended: int | None = None,
    ) -> bool:
        """Update a SUSPECT member that this node observes, as one of `observers`: it is new, or has more accusers.

        `ended`: when its last link here ended without Goodbye, or another member answered at its address. Returns
        whether this node observes the suspicion for the first time.
        """
        suspicion = self._get_or_add(member.id, now)
        first = not suspicion.observers
        if first:
            suspicion.observers = observers
        counted = [one for one in member.accusers if one in suspicion.observers or one in observers]
        due = suspicion.started + suspicion_timeout(len(counted), len(observers), health_multiplier=health_multiplier)
        if ended is not None and len(observers) <= SMALL_CLUSTER:
            due = min(due, max(suspicion.started, ended) + MIN_TIMEOUT)
        self._set_timer(member.id, max(now, due))
        return first

    def restart(self, member: MemberId, now: int, *, health_multiplier: int, observers: int) -> None:
        """Restart a suspicion, as silence before now proves nothing. `observers`: 0 if this node is no observer."""
        self._by_member[member].started = now
        self._set_timer(
            member,
            now
            + (
                suspicion_timeout(0, observers, health_multiplier=health_multiplier)
                if observers
                else UNOBSERVED_TIMEOUT * health_multiplier
            ),
        )

    def forget(self, member: MemberId) -> None:
        """Forget a member that is no longer SUSPECT."""
        if self._by_member.pop(member, None) is not None:
            self._timers.cancel((TimerKind.SUSPICION, member))

    def stop(self) -> None:
        """Stop all timers: no suspicion ends any more."""
        for member in self._by_member:
            self._timers.cancel((TimerKind.SUSPICION, member))

    def since(self, member: MemberId) -> int | None:
        """Return when its suspicion began or was restarted; None if there is none."""
        suspicion = self._by_member.get(member)
        return None if suspicion is None else suspicion.started

    def all(self) -> list[MemberId]:
        """Return all members that are SUSPECT here, longest first."""
        return list(self._by_member)

    def unobserved(self) -> list[MemberId]:
        """Return the suspects that this node did not observe when they were added."""
        return [member for member, suspicion in self._by_member.items() if not suspicion.observers]

    def _get_or_add(self, member: MemberId, now: int) -> _Suspicion:
        suspicion = self._by_member.get(member)
        if suspicion is None:
            suspicion = self._by_member[member] = _Suspicion(now)
        return suspicion

    def _set_timer(self, member: MemberId, at: int) -> None:
        self._timers.set((TimerKind.SUSPICION, member), at)
