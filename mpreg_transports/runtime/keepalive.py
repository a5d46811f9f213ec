"""Keepalive for the links of JSON clients, whose messages have no ping: the link itself requests a sign of life."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from contextlib import suppress

import anyio

from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import LinkId
from mpreg_transports.links.base import Link, LinkEnded

log = logging.getLogger(__name__)


class _Watched:
    """A link and its last sign of life."""

    __slots__ = ("seen", "silent", "transport")

    def __init__(self, transport: Link) -> None:
        self.transport = transport
        self.seen = 0
        """The time of the last activity."""
        self.silent = 0
        """The nanoseconds without a sign of life, in whole intervals."""


class Keepalive:
    """Sends keepalives on the links of one driver that were silent for an interval, and closes links that stay silent.

    One task serves all links: a task for each would use 5 KiB for each idle connection. `spawn(start, *args)` starts a
    task. `last_activity` returns when a link last moved a byte in either direction, pongs included. A paused link is
    never silent, because no pong is read from it. A link that has no keepalive is never silent either. `every` and
    `gone_after` are nanoseconds.
    """

    def __init__(
        self,
        spawn: Callable[..., None],
        *,
        every: int,
        gone_after: int,
        last_activity: Callable[[LinkId], int],
        paused: Container[LinkId],
    ) -> None:
        self._spawn = spawn
        self._every = every
        self._gone_after = gone_after
        self._last_activity = last_activity
        self._paused = paused
        self._links: dict[LinkId, _Watched] = {}
        self._scope: anyio.CancelScope | None = None
        """The cancel scope of the task, while there is one."""

    def add(self, link: LinkId, transport: Link) -> None:
        """Watch a link until `discard`."""
        self._links[link] = _Watched(transport)
        if self._scope is None:
            self._scope = anyio.CancelScope()
            self._spawn(self._run, self._scope)

    def discard(self, link: LinkId) -> None:
        """Stop watching a link, if it is watched. After the last one the task ends."""
        self._links.pop(link, None)
        if not self._links and self._scope is not None:
            self._scope.cancel()
            self._scope = None

    async def _run(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                await anyio.sleep(self._every / 1e9)
                for link, watched in list(self._links.items()):
                    self._look(link, watched)

    def _look(self, link: LinkId, watched: _Watched) -> None:
        last = self._last_activity(link)
        if last != watched.seen or link in self._paused:
            watched.seen, watched.silent = last, 0
            return
        watched.silent += self._every
        if watched.silent < self._gone_after:
            self._spawn(self._ask, link, watched.transport)
        else:
            self.discard(link)
            log.info("%s: silent for %g s, hung up", watched.transport.peer, watched.silent / 1e9)
            self._spawn(watched.transport.close, CloseCode.GOING_AWAY)

    async def _ask(self, link: LinkId, transport: Link) -> None:
        try:
            with suppress(LinkEnded), anyio.move_on_after(self._every / 1e9):
                if not await transport.keepalive():
                    self.discard(link)
        except Exception:  # it ends this link, not the node
            log.exception("%s: a defect while asking it for a sign of life", transport.peer)
            await transport.close(CloseCode.INTERNAL_ERROR)
