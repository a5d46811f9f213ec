"""The log lines of a node on the logger `mpreg`: notices of its core, failed functions, the listening address.

The core and the driver report facts. This module turns them into log lines and limits repeated lines. Text of peers and
functions is escaped so that it cannot control a terminal. Nothing here makes decisions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mpreg_proto.effects import Raised
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.notices import (
    CardsDiffer,
    DrainRequested,
    GossipTooLong,
    LinkClosed,
    LinkEndCause,
    LinkOpened,
    MemberChanged,
    Notice,
    PeerUnreachable,
    Standing,
)
from mpreg_transports.runtime import logs

log: logs.NodeLog = logs.get("mpreg")

_TEXT_LIMIT = 200
"""The characters of a peer's text that a log line holds."""
_REMEMBERED = 1_000
"""Refused links that are logged once. Beyond that they are forgotten and logged again."""
_MEMBERS = 32_768
"""Members whose logged standing is remembered: more than a node has at one time (Limits.members)."""
_STANDINGS = {
    Standing.ALIVE: "is ALIVE",
    Standing.SUSPECT: "is suspected",
    Standing.DEAD: "is marked DEAD",
    Standing.LEFT: "has left",
    Standing.RETIRED: "is retired",
}


class LogObserver:
    """The log lines of one node, `me`."""

    def __init__(self, me: MemberId) -> None:
        self._reachable: dict[MemberId, Standing] = {me: Standing.ALIVE}
        """The members last logged as ALIVE or SUSPECT. The own node is logged by `ready_line`."""
        self._open: dict[LinkId, None] = {}
        self._logged: dict[tuple[str, str], None] = {}

    def observe(self, notice: Notice) -> None:
        """Log a notice of the core. A link that never opened is logged once for each address and reason."""
        match notice:
            case PeerUnreachable(address):
                log.warning("%s does not answer; trying again until it does", printable(address))
            case CardsDiffer():
                self._cards_differ(notice)
            case GossipTooLong():
                self._gossip_too_long(notice)
            case MemberChanged():
                self._changed(notice)
            case DrainRequested(_, peer):
                log.info("leaving: %s has drained this node", printable(peer) or "a client")
            case LinkOpened():
                self._open[notice.link] = None
                log.debug("%s", notice)
            case LinkClosed():
                self._link_closed(notice)
            case _:
                log.debug("%s", notice)

    def _changed(self, notice: MemberChanged) -> None:
        """Log a new standing.

        One more accuser, a new card, or a member that was already not reachable gives only a debug line.
        """
        before = self._reachable.pop(notice.member, None)
        if notice.standing in (Standing.ALIVE, Standing.SUSPECT):
            self._reachable[notice.member] = notice.standing
            if len(self._reachable) > _MEMBERS:  # members of an earlier view of this node, never marked DEAD
                del self._reachable[next(iter(self._reachable))]
            changed = notice.standing is not before
        else:
            changed = before is not None
        level = logging.INFO if changed else logging.DEBUG
        log.log(level, "%s %s", printable(notice.name), _STANDINGS[notice.standing])

    def _link_closed(self, notice: LinkClosed) -> None:
        """Log the end of a link. A peer that has not sent its name has no known kind: it may be a node or a client."""
        was_open = notice.link in self._open
        self._open.pop(notice.link, None)
        if notice.cause is LinkEndCause.ORDERLY or not (was_open or self._is_new(notice.peer, notice.reason)):
            log.debug("%s", notice)
            return
        if notice.peer:
            log.warning("link to %s ended: %s", printable(notice.peer), printable(notice.reason))
        else:
            log.warning(
                "%s ended: %s", "link to a client" if was_open else "an incoming link", printable(notice.reason)
            )

    def _is_new(self, who: str, what: str) -> bool:
        """Return whether this was not logged yet, or was forgotten since.

        Only the part that a log line shows is compared.
        """
        who, what = who[:_TEXT_LIMIT], what[:_TEXT_LIMIT]
        if (who, what) in self._logged:
            return False
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[who, what] = None
        return True

    def _cards_differ(self, notice: CardsDiffer) -> None:
        """Log once for each name, as it may repeat for ever."""
        if self._is_new(notice.name, "cards"):
            log.warning("two cards of %s came for one incarnation; one is not its own", printable(notice.name))

    def _gossip_too_long(self, notice: GossipTooLong) -> None:
        """Log once for each link and kind, as the next message of the kind will be as long."""
        if self._is_new(str(notice.link), notice.kind):
            text = "a %s of %d bytes was not sent on link %d: its limit is %d; raise Limits(node_message=...)"
            log.warning(text, notice.kind, notice.size, notice.link, notice.limit)

    def failed(self, function: str, raised: Raised) -> None:
        """Log the exception of a body in one line; the traceback at debug level."""
        log.warning("%s failed: %s: %s", printable(function), printable(raised.kind), printable(raised.message))
        if raised.traceback:
            log.debug("%s", raised.traceback)


def printable(text: str) -> str:
    """Return a peer's text for a log: one line without terminal control characters, of bounded length."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:_TEXT_LIMIT])
    return shown + ("..." if len(text) > _TEXT_LIMIT else "")


def ready_line(name: str, url: str, *, functions: int, resources: frozenset[str]) -> str:
    """Return the one log line that states where a node listens. The name "node" stands for a node without a name."""
    who = "the node" if name == "node" else f"node {name}"
    suffix = f", resources {', '.join(sorted(resources))}" if resources else ""
    return f"{who} is ready at {url} ({functions} functions{suffix})"


def open_line(listening: str, others: str | None) -> str:
    """Return the log line for a node that is open to other machines, with the address that they use, if any."""
    reached = f"other machines use {others}" if others else "no address for other machines is known, see --advertise"
    return f"open to everybody who can reach {listening}: they can run its functions without a secret; {reached}"


def secured_line(listening: str, others: str | None) -> str:
    """Return the log line for a node with a secret that other machines can reach, with the address that they use."""
    reached = f"other machines use {others}" if others else "no address for other machines is known, see --advertise"
    return f"listening for other machines at {listening}, which need the secret of the cluster; {reached}"


@contextmanager
def on_stderr() -> Iterator[None]:
    """Let the logger `mpreg` write to stderr within the block, unless the program has configured logging."""
    logger = log.logger
    if logger.hasHandlers():
        yield
        return
    shown, level = logs.WriterHandler(logs.stderr), logger.level
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(shown)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(shown)
        logger.setLevel(level)
        shown.flush()
