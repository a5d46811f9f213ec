"""Named deadlines: a table with a heap, and the only timers of the core.

A timer is a row, not a callback. `set` writes it, `cancel` removes it, and `due` returns the keys whose time has come.
The machine that owns a key decides what to do then. Deletion is lazy, and the heap is rebuilt once more than half of it
is stale, so that a million cancelled deadlines cost no memory (quinn-proto's timer table, with a heap for thousands).
"""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import Final

Key = tuple[str | int | bytes, ...]
"""The key of a deadline: its kind first, such as `(TimerKind.DEADLINE, 7)`."""


class TimerKind(StrEnum):
    """The kind of a deadline. The text of each begins with the parts that follow it in the key."""

    HANDSHAKE = "handshake"
    """link: no hello has arrived."""
    PING = "ping"
    """link: it may be silent."""
    GOODBYE = "goodbye"
    """link: the peer has not closed it."""
    DECODE = "decode"
    """link: a long message is decoded further."""
    STALLED = "stalled"
    """link: the peer has taken nothing of what waits to be sent."""
    DEADLINE = "deadline"
    """request: it ends now."""
    OFFER_WAIT = "offer_wait"
    """request, call: no node offers its function."""
    LINK_WAIT = "link_wait"
    """request, call: no link to its node was opened."""
    RETRY = "retry"
    """request, call: it is started again after a loss. request, of a client: it is sent again after a refusal."""
    BACKLOG = "backlog"
    """function: members that refuse its calls are tried again."""
    PLACE = "place"
    """0: more calls of a request with many ready ones are placed."""
    REPORT = "report"
    """run: its progress is sent again."""
    DRAIN_GRACE = "drain_grace"
    """0: a draining node ends the calls that still run."""
    LATE = "late"
    """request, of a client: its node has not answered."""
    LOST = "lost"
    """request, of a client: its link was lost, and no other was opened."""
    TICK = "tick"
    """One round of probes and gossip."""
    PROBE = "probe"
    """member: it has not answered."""
    SUSPICION = "suspicion"
    """member: it has not refuted."""
    GOSSIP = "gossip"
    """New state is sent to other members."""
    DIAL = "dial"
    """address: it is dialled again."""
    DIAL_TIMEOUT = "dial_timeout"
    """address: its dial had no answer."""
    ANTI_ENTROPY = "anti_entropy"
    """State is compared with a neighbour."""
    MEMBER_LOST = "member_lost"
    """member: no refutation of its death has come."""
    COLLECT = "collect"
    """Members that were DEAD or LEFT for long are retired, and members that were RETIRED for long are forgotten."""


LINK_TIMERS: Final = (TimerKind.HANDSHAKE, TimerKind.PING, TimerKind.GOODBYE, TimerKind.DECODE, TimerKind.STALLED)
REQUEST_TIMERS: Final = (
    TimerKind.DEADLINE,
    TimerKind.OFFER_WAIT,
    TimerKind.LINK_WAIT,
    TimerKind.RETRY,
    TimerKind.BACKLOG,
    TimerKind.PLACE,
)

_SLACK = 64


class Timers:
    """Deadlines by key, in integer nanoseconds. Rows due at the same time come in the order in which they were set."""

    __slots__ = ("_at", "_heap", "_sequence")

    def __init__(self) -> None:
        self._at: dict[Key, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._sequence = 0

    def set(self, key: Key, at: int) -> None:
        """Make `key` due at `at`, in place of any earlier time it had."""
        self._sequence += 1
        self._at[key] = (at, self._sequence)
        heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(when, number, row) for row, (when, number) in self._at.items()]
            heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Remove `key`; do nothing if it has no deadline."""
        self._at.pop(key, None)

    def clear(self, keep: Container[str | int | bytes]) -> None:
        """Remove all keys except those whose first part is in `keep`."""
        for key in [key for key in self._at if key[0] not in keep]:
            del self._at[key]

    def next(self) -> int | None:
        """Return the time of the earliest deadline, or None."""
        heap, rows = self._heap, self._at
        while heap:
            at, number, key = heap[0]
            if rows.get(key) == (at, number):
                return at
            heappop(heap)
        return None

    def due(self, now: int) -> list[Key]:
        """Remove and return the keys whose time has come, earliest first."""
        keys: list[Key] = []
        while (at := self.next()) is not None and at <= now:
            key = heappop(self._heap)[2]
            del self._at[key]
            keys.append(key)
        return keys

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)
