"""The suspicion timeout, from SUSPECT to DEAD: long with one accuser, shorter the more observers agree.

The detector tells of each suspicion that rises, is joined or ends; a timer says when the verdict is due, and the
detector judges then. Nothing here reads links or accuses. The more observers agree the sooner they are believed, and a
node that is slow itself multiplies all this by its `health_multiplier` (Lifeguard, Dadgar et al. 2018, sections IV-A
and B). With up to three observers agreement proves little, as a pause of the suspect looks the same to all of them:
silence then has one fixed time. The end of a link without Goodbye proves more, and keeps the shortest.
"""

from __future__ import annotations

from math import ceil, log

from mpreg_proto.cluster.members import Member
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.timers import TimerKind, Timers

MAX_TIMEOUT = 6 * SECOND
MIN_TIMEOUT = SECOND
"""An observer's suspicion becomes death after `MAX_TIMEOUT` if nobody agrees, after `MIN_TIMEOUT` if enough do."""
CONFIRMATIONS = 3
SMALL_CLUSTER = 3
"""Up to so many observers, which is a cluster of four, silence is suspected for `SMALL_CLUSTER_TIMEOUT`."""
SMALL_CLUSTER_TIMEOUT = 4500 * MILLISECOND
"""A probe fails a second or more after a pause began; so an event loop that stands still for 5 s is not DEAD, and a
member that hangs is DEAD within 8 s."""
UNOBSERVED_TIMEOUT = 12 * SECOND
"""The same for whoever is no observer, should these not say more themselves."""


class _Suspicion:
    """A SUSPECT member: since when, and, for its observers, who they were when it began."""

    __slots__ = ("observers", "started")

    def __init__(self, started: int) -> None:
        self.started = started
        self.observers: tuple[MemberId, ...] = ()


def confirmations_needed(observers: int) -> int:
    """How many accusers make the shortest suspicion."""
    return min(CONFIRMATIONS, max(1, ceil(observers / 3)))


def suspicion_timeout(accusers: int, observers: int, *, health_multiplier: int = 1) -> int:
    """How long an observer suspects who is silent before it says DEAD (Lifeguard, section IV-B)."""
    return SMALL_CLUSTER_TIMEOUT if observers <= SMALL_CLUSTER else health_multiplier * _agreed(accusers, observers)


def _agreed(accusers: int, observers: int) -> int:
    needed = confirmations_needed(observers)
    if accusers >= needed:
        return MIN_TIMEOUT
    return (
        MAX_TIMEOUT if accusers <= 1 else MAX_TIMEOUT - int((MAX_TIMEOUT - MIN_TIMEOUT) * log(accusers) / log(needed))
    )


class Suspicions:
    """Everybody who is SUSPECT here. Timer keys: (TimerKind.SUSPICION, member)."""

    __slots__ = ("_by_member", "_timers")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._by_member: dict[MemberId, _Suspicion] = {}

    def add_unobserved(self, member: Member, now: int, *, health_multiplier: int) -> None:
        """A member that this node does not watch is SUSPECT: its observers have the first word."""
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
        """A member that this node watches, as one of `observers`, is SUSPECT, or has more accusers.

        `ended`: when its last link here ended without Goodbye, or another answered at its address. Returns whether that
        is new to it as an observer.
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
        """Begin a suspicion anew: what it was waited for until now proves nothing. `observers`: 0 for no observer."""
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
        """It is SUSPECT no longer."""
        if self._by_member.pop(member, None) is not None:
            self._timers.cancel((TimerKind.SUSPICION, member))

    def stop(self) -> None:
        """No verdict comes any more."""
        for member in self._by_member:
            self._timers.cancel((TimerKind.SUSPICION, member))

    def since(self, member: MemberId) -> int | None:
        """When its suspicion began, or began anew; None if there is none."""
        suspicion = self._by_member.get(member)
        return None if suspicion is None else suspicion.started

    def all(self) -> list[MemberId]:
        """Everybody who is SUSPECT here, longest first."""
        return list(self._by_member)

    def unobserved(self) -> list[MemberId]:
        """Those of whom this node was no observer when it heard."""
        return [member for member, suspicion in self._by_member.items() if not suspicion.observers]

    def _get_or_add(self, member: MemberId, now: int) -> _Suspicion:
        suspicion = self._by_member.get(member)
        if suspicion is None:
            suspicion = self._by_member[member] = _Suspicion(now)
        return suspicion

    def _set_timer(self, member: MemberId, at: int) -> None:
        self._timers.set((TimerKind.SUSPICION, member), at)
