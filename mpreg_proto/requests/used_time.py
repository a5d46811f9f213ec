"""The time that clients have used of one function, by which the next one is chosen (weighted fair queueing).

All clients that wait are served as if at once, each at its share (Demers, Keshav and Shenker, SIGCOMM 1989). The
virtual time is what a client has used that always waits. A client that comes starts there, so its absence is no
advantage; and a stream of new clients does not stop the time of those that stay. The coordinator's backlog and the
queues of a worker use this.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Generic, TypeVar

Client = TypeVar("Client")

_KEPT: Final = 64
"""The clients that do not wait whose used time is kept, beside as many as wait."""


class UsedTime(Generic[Client]):
    """The time that each client has used, in ns, counted from the virtual time when it came."""

    __slots__ = ("_used", "_virtual_time")

    def __init__(self) -> None:
        self._used: dict[Client, int] = {}
        self._virtual_time = 0

    def __getitem__(self, client: Client) -> int:
        return self._used[client]

    def __contains__(self, client: object) -> bool:
        return client in self._used

    def __len__(self) -> int:
        return len(self._used)

    def enter(self, client: Client, waiting: Collection[Client]) -> None:
        """Begin to count for a client that did not wait, beside those that are `waiting`."""
        start = self._virtual_time
        if waiting:  # after one turn of each at most: all of them may have used less than the virtual time
            start = min(start, 1 + max(map(self._used.__getitem__, waiting)))
        self._used[client] = max(self._used.get(client, 0), start)
        if len(self._used) > 2 * len(waiting) + _KEPT:
            self._used = {one: self._used[one] for one in (*waiting, client)}

    def take_turn(self, client: Client, span: int, waiting: int) -> None:
        """Count `span` as used by a client whose turn it is, one of so many that wait."""
        time = self._virtual_time
        self._virtual_time = max(time + span // waiting, min(self._used[client], time + span))
        self.charge(client, span)

    def charge(self, client: Client, span: int) -> None:
        """Add to the time that a client has used, if it counts; negative for less than was counted at its turn."""
        if client in self._used:
            self._used[client] += span
