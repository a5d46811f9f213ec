"""The watch over clients that have no node: the backoff between their rounds of dials, and that they find a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from mpreg_proto.limits import DEFAULT, SECOND
from tests.adapters.loops import now
from tests.adapters.network import SCHEME
from tests.adapters.plan import NOWHERE

if TYPE_CHECKING:
    from tests.adapters.network import FaultyLink
    from tests.adapters.world import World

SLACK = 1e-3
ROUND = 3.5
"""The seconds that a dial which is not answered takes."""
UNLUCKY = 17.0
"""The seconds for links that opened and carried no hello: at most one or two of the faults of a run hit one."""
HASTY = (8, 1.0)
"""So many pauses in a row are not shorter than so many seconds together, once a client has failed as often."""


class Reconnects:
    """The dials of all clients."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dials: dict[str, int] = {}
        """The dials of a client since it was ready for the last time."""
        self._ended: dict[str, float | None] = {}
        """The end of its last failed dial or of its link; None while it has or opens a link."""
        self._pauses: dict[str, list[float]] = {}
        self._were_ready: list[object] = []
        """The links that are known to have been ready: one that drains is in use beside the next ones."""
        network = world.network
        network.on_dial, network.on_failed_dial, network.on_closed = self.dials, self.failed, self.closed

    def begin(self, client: str) -> None:
        """Reset all: the client connects, by a connection of its own."""
        self._dials[client], self._ended[client], self._pauses[client] = 0, None, []

    def dials(self, client: str, target: str) -> None:
        """Check the time since the failure before."""
        if client not in self._dials:
            return
        self._note_ready(client)
        ended, self._ended[client] = self._ended[client], None
        urls = len(self._world.clients[client].urls)
        rounds = self._dials[client] // urls + 1
        if ended is not None:
            pause = now() - ended
            most = min(DEFAULT.dial_longest, DEFAULT.dial_first << min(rounds, 8)) / SECOND
            self._world.sometimes("a client dialled again after a pause", pause > SLACK)
            if pause > most + SLACK:
                self._world.violation(f"{client} dials {target} after {pause:.3f} s, at most {most} s")
            if pause > 0.0 or urls == 1:
                self._pauses[client].append(pause)
            many, least = HASTY
            if rounds > 2 * many and sum(self._pauses[client][-many:]) < least:
                self._world.violation(f"{client} dials {target} without a pause, {rounds} times")
        self._dials[client] += 1

    def failed(self, client: str, target: str) -> None:
        """Record a failed dial."""
        if client in self._dials:
            self._ended[client] = now()

    def linked(self, client: str) -> None:
        """Record an opened link."""
        if client in self._dials:
            self._ended[client] = None

    def closed(self, end: FaultyLink) -> None:
        """Record a closed link."""
        if end.host in self._dials:
            self._note_ready(end.host)
            others = [one for one in self._world.network.links(end.host) if one is not end]
            self._ended[end.host] = None if others else now()

    def _note_ready(self, client: str) -> None:
        for linked in self._world.clients[client]._connection._links.values():
            if linked.ready and linked not in self._were_ready:
                self._were_ready.append(linked)
                self._dials[client], self._pauses[client] = 0, []

    async def watch(self) -> None:
        """Check now and then that no client is without a node for long while one of its nodes can be reached."""
        world = self._world
        since: dict[tuple[str, str], float] = {}
        while not world.ending and not world.wrong:
            for name, client in world.clients.items():
                most = DEFAULT.dial_longest / SECOND + ROUND * len(client.urls) + UNLUCKY
                for target in (url.removeprefix(SCHEME) for url in client.urls):
                    usable = target != NOWHERE and world.nodes[target].accepts
                    usable = usable and (min(name, target), max(name, target)) not in world.network.cut
                    if not usable or not client.is_open or world.is_ready(name):
                        since.pop((name, target), None)
                    elif now() - since.setdefault((name, target), now()) > most:
                        world.violation(f"{name} has no node for {most:.1f} s, and {target} could be reached")
                        return
            await anyio.sleep(0.5)
