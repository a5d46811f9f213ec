"""The network of a simulation: ordered byte streams between hosts, with delays, bandwidth, cuts and resets.

A `Wire` is one connection, as TCP makes it: what was sent arrives in order or not at all, but re-chunked, late, or
never if the other side was cut off; an end arrives after what was sent before it. Nothing here knows what the bytes
mean, and time is given in. Lost packets are delays here: TCP sends again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from mpreg_proto.ids import LinkId
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.durations import SECOND, Duration, constant

_STEP = SECOND // 4
"""What a narrow way carries in so long is there together: as TCP hands on what has arrived, whole messages or not."""


Arrivals = list[tuple[int, object]]
"""Pieces of a write, each with the time at which it is there."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How one direction between two hosts behaves."""

    delay: Duration = constant(0.001)
    bandwidth: int = 0
    """Bytes a second; 0 is no bound."""
    reset: float = 0.0
    """Chance that a write breaks the connection, with all that is on its way."""
    rechunk: float = 0.0
    """Chance that a write arrives in pieces, cut anywhere."""


class Endpoint(Protocol):
    """A host as the network sees it."""

    name: str
    life: int
    alive: bool
    stalled_until: int
    wires: dict[LinkId, tuple[Wire[Any], int]]

    def backlog(self, link: LinkId, queued: int) -> None: ...
    def progress(self, link: LinkId) -> None: ...


AnyHost = TypeVar("AnyHost", bound=Endpoint)


class WireEnd(Generic[AnyHost]):
    """One end of a wire: the host and life it belongs to, and the link's number there."""

    __slots__ = ("closed", "host", "life", "link", "opened")

    def __init__(self, host: AnyHost, link: LinkId) -> None:
        self.host = host
        self.life = host.life
        self.link = link
        self.opened = False
        self.closed = False

    @property
    def is_open(self) -> bool:
        """Whether the process that it belongs to is there and has not closed it."""
        return not self.closed and self.host.alive and self.host.life == self.life


class Wire(Generic[AnyHost]):
    """One connection; side 0 dialled, side 1 accepted. `last` is when the latest thing sent by a side arrives."""

    __slots__ = ("blocked", "ends", "free", "last", "number")

    def __init__(self, number: int, dialler: WireEnd[AnyHost], acceptor: WireEnd[AnyHost]) -> None:
        self.number = number
        self.ends = (dialler, acceptor)
        self.last = [0, 0]
        self.free = [0, 0]
        self.blocked: tuple[list[object], list[object]] = ([], [])
        """What a side has sent while the way was cut, in order; bytes, or None for the end."""


def _is_responsive(end: WireEnd[Any], now: int) -> bool:
    """Whether a process is there to learn something of its link: it runs, and does not stand still."""
    return end.is_open and end.host.stalled_until <= now


class Network:
    """Profiles and cuts between hosts by name, and the rules by which what is sent arrives."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._cuts: dict[tuple[str, str], None] = {}
        self.default = Profile()
        self.rechunked = 0
        """Writes that arrived in pieces."""
        self.broken = 0
        """Connections that broke with something on its way."""
        self.waited = 0
        """Times that a sender learned that more waits than a way carries in a second."""

    def profile(self, source: str, target: str) -> Profile:
        """How the way from `source` to `target` behaves."""
        return self._profiles.get((source, target), self.default) if self._profiles else self.default

    def set(self, source: str, target: str, profile: Profile) -> None:
        """From now on it behaves like this; what is on its way already is not touched."""
        self._profiles[source, target] = profile

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more."""
        self._cuts[source, target] = None

    def heal(self) -> None:
        """All ways are open again."""
        self._cuts.clear()

    @property
    def has_bandwidth_limit(self) -> bool:
        """Whether any way has a bandwidth, so that content may wait on it."""
        return bool(self.default.bandwidth) or any(profile.bandwidth for profile in self._profiles.values())

    def has_backlog(self, hosts: Iterable[Endpoint], now: int) -> bool:
        """Whether something that one of `hosts` has sent still waits to leave, as its way is narrow."""
        return any(wire.free[side] > now for host in hosts for wire, side in host.wires.values())

    def clear_resets(self) -> None:
        """No way breaks connections any more; delays and bandwidths stay."""
        for way, profile in list(self._profiles.items()):
            self._profiles[way] = msgspec.structs.replace(profile, reset=0.0)
        self.default = msgspec.structs.replace(self.default, reset=0.0)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether what `source` sends does not reach `target`."""
        return bool(self._cuts) and (source, target) in self._cuts

    @property
    def cuts(self) -> tuple[tuple[str, str], ...]:
        """All ways that are cut."""
        return tuple(self._cuts)

    def latency(self, source: str, target: str) -> int:
        """How long something small takes now."""
        return self._delay(self.profile(source, target), source, target)

    def _delay(self, profile: Profile, source: str, target: str) -> int:
        """One draw, of which each way has a stream of its own."""
        delay = profile.delay
        if delay.kind == "constant":  # mostly: then no stream need be named
            return delay.low
        return delay.draw(self._chooser.fraction, f"~delay {source} {target}")

    def report_backlog(self, wire: Wire[Any], side: int, now: int) -> None:
        """Tell the sender how many bytes wait to leave; without a bandwidth none do."""
        end, target = wire.ends[side], wire.ends[1 - side].host.name
        waiting = max(0, wire.free[side] - now) * self.profile(end.host.name, target).bandwidth // SECOND
        if _is_responsive(end, now):
            self.waited += wire.free[side] - now > SECOND
            end.host.backlog(end.link, waiting)

    def report_progress(self, wire: Wire[Any], side: int, now: int) -> None:
        """Tell the sender that the peer has taken some of what waited, if it is there and says so, and what waits."""
        mine, other = wire.ends[side], wire.ends[1 - side]
        ways = ((mine.host.name, other.host.name), (other.host.name, mine.host.name))
        if _is_responsive(mine, now) and other.is_open and not any(self.is_cut(*way) for way in ways):
            mine.host.progress(mine.link)
        self.report_backlog(wire, side, now)

    def departures(self, wire: Wire[Any], side: int, begun: int) -> list[int]:
        """When each step of what was written since `begun` has left: then the sender learns how much still waits."""
        return [*range(begun + _STEP, wire.free[side], _STEP), wire.free[side]]

    def arrivals(
        self, wire: Wire[Any], side: int, data: object, size: int, now: int
    ) -> list[tuple[int, object]] | None:
        """Each piece of what `side` sends now, and when it is there; None if the write breaks the connection."""
        source, target = wire.ends[side].host.name, wire.ends[1 - side].host.name
        profile = self.profile(source, target)
        chooser = self._chooser
        if chooser.chance("~reset", profile.reset):
            return None
        if profile.bandwidth and isinstance(data, bytes) and size > self._step(profile):
            return self._paced(wire, side, data, profile, now)
        at = now
        if profile.bandwidth:
            at = max(at, wire.free[side]) + size * SECOND // profile.bandwidth
            wire.free[side] = at
        at = max(at + self._delay(profile, source, target), wire.last[side])
        pieces: Arrivals = []
        if isinstance(data, bytes) and size > 1 and chooser.chance("~rechunk", profile.rechunk):
            self.rechunked += 1
            start = 0
            for _ in range(1 + chooser.below("~pieces", 4)):
                end = start + 1 + chooser.below("~cut", size - start)
                pieces.append((at, data[start:end]))
                start = end
                if start >= size:
                    break
                at += self._delay(profile, source, target) // 8
            if start < size:
                pieces.append((at, data[start:]))
        else:
            pieces.append((at, data))
        wire.last[side] = at
        return pieces

    def _paced(self, wire: Wire[Any], side: int, data: bytes, profile: Profile, now: int) -> Arrivals:
        """A write that takes the way longer than a step arrives step by step."""
        source, target = wire.ends[side].host.name, wire.ends[1 - side].host.name
        delay = self._delay(profile, source, target)
        at, last = max(now, wire.free[side]), wire.last[side]
        step = self._step(profile)
        pieces: Arrivals = []
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            at += len(piece) * SECOND // profile.bandwidth
            last = max(last, at + delay)
            pieces.append((last, piece))
        wire.free[side], wire.last[side] = at, last
        return pieces

    def _step(self, profile: Profile) -> int:
        return max(1, profile.bandwidth * _STEP // SECOND)
