"""The network of a simulation: ordered links between hosts, with delays, bandwidth limits, cuts and resets.

A `Wire` is one connection with the guarantees of TCP: data arrives in order or not at all. It may be late, or lost if
the other side was cut off. A byte stream may be re-chunked; messages and objects arrive whole. The end of a stream
arrives after the data sent before it. Packet loss appears as delay, because TCP sends again. The network does not
depend on the meaning of the bytes, and takes the time as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from mpreg_proto.effects import Framing
from mpreg_proto.ids import LinkId
from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.durations import SECOND, Duration, constant

_STEP = SECOND // 4
"""The time step of a path with a bandwidth limit. The bytes that the path carries in one step arrive together, as whole
messages or not, as with TCP."""


Arrivals = list[tuple[int, object]]
"""The pieces of a write, each with its time of arrival."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of one path: one direction between two hosts."""

    delay: Duration = constant(0.001)
    bandwidth: int = 0
    """Bytes per second; 0 is no limit."""
    reset: float = 0.0
    """The chance that a write breaks the connection, with all data in transit."""
    rechunk: float = 0.0
    """The chance that a write to a byte stream arrives in pieces, cut at random places."""
    hangs: float = 0.0
    """The chance that a dial gets no answer, neither a link nor a refusal."""


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
    """One end of a wire: its host and life, and the number of the link there."""

    __slots__ = ("closed", "host", "life", "link", "opened", "unread")

    def __init__(self, host: AnyHost, link: LinkId) -> None:
        self.host: AnyHost = host
        self.life: int = host.life
        self.link: LinkId = link
        self.opened: bool = False
        self.closed: bool = False
        """True once the transport has ended here, though its host may not have learned it (drivers.py)."""
        self.unread: list[tuple[Any, ...]] | None = None
        """The deliveries since the host stopped reading, in order; None while it reads."""

    @property
    def is_open(self) -> bool:
        """True if the process of this end runs and has not closed the link."""
        return not self.closed and self.host.alive and self.host.life == self.life


class Wire(Generic[AnyHost]):
    """One connection; side 0 dialled, side 1 accepted. `last` is when the latest data of a side arrives."""

    __slots__ = ("blocked", "died", "ends", "framing", "free", "last", "number")

    def __init__(self, number: int, framing: Framing, dialler: WireEnd[AnyHost], acceptor: WireEnd[AnyHost]) -> None:
        self.number: int = number
        self.framing: Framing = framing
        self.ends: tuple[WireEnd[AnyHost], WireEnd[AnyHost]] = (dialler, acceptor)
        self.last: list[int] = [0, 0]
        self.free: list[int] = [0, 0]
        self.blocked: tuple[list[object], list[object]] = ([], [])
        """The data that each side sent while its path was cut, in order: bytes, or None for the end."""
        self.died: int | None = None
        """The time since when it carries nothing, in either direction, though both ends believe that it is open."""


def _is_responsive(end: WireEnd[Any], now: int) -> bool:
    """Return whether the process of an end can learn something about its link: it runs, and is not stalled."""
    return end.is_open and end.host.stalled_until <= now


class Network:
    """The profiles and cuts of paths between hosts, by name, and the rules by which data arrives."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._cuts: dict[tuple[str, str], None] = {}
        self.default: Profile = Profile()
        self.rechunked: int = 0
        """The number of writes that arrived in pieces."""
        self.broken = 0
        """The number of connections that broke with data in transit."""
        self.hung: int = 0
        """The number of dials without an answer."""
        self.paused: int = 0
        """The number of times that a host stopped reading a link."""
        self.halved: int = 0
        """The number of connections that died without a word beside another one of the same hosts."""
        self.hung_until: int = 0
        """The time until which a dial is open that has hung, though its target runs."""
        self.dead: list[Wire[Any]] = []
        """The connections that have died without a word."""
        self.waited: int = 0
        """The number of reports to a sender that its backlog is more than a path carries in a second."""

    def profile(self, source: str, target: str) -> Profile:
        """Return the profile of the path from `source` to `target`."""
        return self._profiles.get((source, target), self.default) if self._profiles else self.default

    def set(self, source: str, target: str, profile: Profile) -> None:
        """Set the profile of a path from now on. Data in transit is not affected."""
        self._profiles[source, target] = profile

    def cut(self, source: str, target: str) -> None:
        """Cut the path from `source` to `target`."""
        self._cuts[source, target] = None

    def heal(self) -> None:
        """Open all paths again."""
        self._cuts.clear()

    @property
    def has_bandwidth_limit(self) -> bool:
        """True if any path has a bandwidth limit, so that data may be queued on it."""
        return bool(self.default.bandwidth) or any(profile.bandwidth for profile in self._profiles.values())

    def has_backlog(self, hosts: Iterable[Endpoint], now: int) -> bool:
        """Return whether any data of one of `hosts` is still queued because of a bandwidth limit."""
        wires = ((wire, side) for host in hosts for wire, side in host.wires.values())
        return any(wire.free[side] > now and not wire.ends[side].closed for wire, side in wires)

    @property
    def is_faulty(self) -> bool:
        """True if any path is cut, breaks connections, or lets dials hang."""
        if self._cuts or self.default.reset or self.default.hangs:
            return True
        return any(profile.reset or profile.hangs for profile in self._profiles.values())

    def clear_faults(self) -> None:
        """Let no path break connections or let dials hang any more; delays and bandwidth limits stay."""
        for way, profile in list(self._profiles.items()):
            self._profiles[way] = msgspec.structs.replace(profile, reset=0.0, hangs=0.0)
        self.default = msgspec.structs.replace(self.default, reset=0.0, hangs=0.0)

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether the path from `source` to `target` is cut."""
        return bool(self._cuts) and (source, target) in self._cuts

    @property
    def cuts(self) -> tuple[tuple[str, str], ...]:
        """All paths that are cut."""
        return tuple(self._cuts)

    def latency(self, source: str, target: str) -> int:
        """Return how long a small message takes now, in nanoseconds."""
        return self._delay(self.profile(source, target), source, target)

    def _delay(self, profile: Profile, source: str, target: str) -> int:
        """Return one drawn delay; each path has a random stream of its own."""
        delay = profile.delay
        if delay.kind == "constant":  # the usual case needs no name of a stream
            return delay.low
        return delay.draw(self._chooser.fraction, f"~delay {source} {target}")

    def report_backlog(self, wire: Wire[Any], side: int, now: int) -> None:
        """Report the backlog to the sender, in bytes. Without a bandwidth limit it is 0."""
        end, target = wire.ends[side], wire.ends[1 - side].host.name
        waiting = max(0, wire.free[side] - now) * self.profile(end.host.name, target).bandwidth // SECOND
        if _is_responsive(end, now):
            self.waited += wire.free[side] - now > SECOND
            end.host.backlog(end.link, waiting)

    def report_progress(self, wire: Wire[Any], side: int, now: int) -> None:
        """Report to the sender that the peer has taken some bytes, and report the backlog.

        The progress is reported only if the peer is there and no path between them is cut.
        """
        mine, other = wire.ends[side], wire.ends[1 - side]
        ways = ((mine.host.name, other.host.name), (other.host.name, mine.host.name))
        reached = wire.died is None and other.is_open
        if _is_responsive(mine, now) and reached and not any(self.is_cut(*way) for way in ways):
            mine.host.progress(mine.link)
        self.report_backlog(wire, side, now)

    def departures(self, wire: Wire[Any], side: int, begun: int) -> list[int]:
        """Return when each step of the data written since `begun` has left.

        At these times the sender learns its backlog.
        """
        return [*range(begun + _STEP, wire.free[side], _STEP), wire.free[side]]

    def arrivals(
        self, wire: Wire[Any], side: int, data: object, size: int, now: int
    ) -> list[tuple[int, object]] | None:
        """Return each piece of the data that `side` sends now, with its time of arrival.

        Return None if the write breaks the connection.
        """
        source, target = wire.ends[side].host.name, wire.ends[1 - side].host.name
        profile = self.profile(source, target)
        chooser = self._chooser
        if chooser.chance("~reset", profile.reset):
            return None
        stream = wire.framing is Framing.STREAM
        if profile.bandwidth and stream and isinstance(data, bytes) and size > self._step(profile):
            return self._paced(wire, side, data, profile, now)
        at = now
        if profile.bandwidth:
            at = max(at, wire.free[side]) + size * SECOND // profile.bandwidth
            wire.free[side] = at
        at = max(at + self._delay(profile, source, target), wire.last[side])
        pieces: Arrivals = []
        if stream and isinstance(data, bytes) and size > 1 and chooser.chance("~rechunk", profile.rechunk):
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
        """Return the pieces of a write that takes longer than one step; it arrives step by step."""
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
