"""The queue of a function at a worker: among its clients the one that has used the least time is next.

This is the rule of the coordinator's backlog (backlog.py) for the few calls that wait at a node. Without it, a client
would wait there behind all calls that another one has brought. The calls of one client keep their order, as their
coordinators have put them in order. The queue ends when it is empty, and forgets what was used: then nobody waited for
another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from mpreg_proto.requests.used_time import UsedTime

Item = TypeVar("Item")
Client = tuple[bytes, int]
"""The coordinator, and the number that it has for the client; b"" for the node's own coordinator."""


class FairQueue(Generic[Item]):
    """Waiting items by client. Each item is in it once."""

    __slots__ = ("_clients", "_count", "_used")

    def __init__(self) -> None:
        self._clients: dict[Client, dict[Item, None]] = {}
        self._used: UsedTime[Client] = UsedTime()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        return (item for items in self._clients.values() for item in items)

    def add(self, item: Item, client: Client) -> None:
        """Add an item behind the others of its client."""
        items = self._clients.get(client)
        if items is None:
            self._used.enter(client, self._clients)
            items = self._clients[client] = {}
        items[item] = None
        self._count += 1

    def remove(self, item: Item, client: Client) -> None:
        """Remove an item, which must be in it."""
        items = self._clients[client]
        del items[item]
        self._count -= 1
        if not items:
            del self._clients[client]

    def first(self) -> Item:
        """Return the item that is next; it stays. There must be one."""
        client = min(self._clients, key=self._used.__getitem__) if len(self._clients) > 1 else next(iter(self._clients))
        return next(iter(self._clients[client]))

    def take_turn(self, client: Client, span: int) -> None:
        """Count `span`, in ns, as used by a client whose item is about to start and is still in the queue."""
        self._used.take_turn(client, span, len(self._clients))

    def charge(self, client: Client, span: int) -> None:
        """Add to the time that a client has used, in ns; negative for less than was counted at its turn."""
        self._used.charge(client, span)
