"""What a node tells people through the logger `mpreg`: notices of its core, functions that fail, where it listens.

Facts come from the core and the driver; here they become lines, and are written at most as often as they are news. What
peers and functions said is shown so that no terminal acts on it. Nothing here decides anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mpreg_proto.effects import Raised
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.notices import (
    CardsDiffer,
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

log = logs.get("mpreg")

_TEXT_LIMIT = 200
"""Characters of what a peer said that a log line holds."""
_REMEMBERED = 1_000
"""Refused links that are told once; more of them are forgotten and told again."""
_MEMBERS = 32_768
"""Members of whom it is remembered how they were told: more than a node knows at one time (Limits.members)."""
_STANDINGS = {
    Standing.ALIVE: "is ALIVE",
    Standing.SUSPECT: "is suspected",
    Standing.DEAD: "is marked DEAD",
    Standing.LEFT: "has left",
    Standing.RETIRED: "is retired",
}


class LogObserver:
    """The lines of one node, `me`."""

    def __init__(self, me: MemberId) -> None:
        self._reachable: dict[MemberId, Standing] = {me: Standing.ALIVE}
        """Who is ALIVE or SUSPECT, as it was told; that this node is there says `ready_line`."""
        self._open: dict[LinkId, None] = {}
        self._logged: dict[tuple[str, str], None] = {}

    def observe(self, notice: Notice) -> None:
        """A notice of the core as a line; of a link that never opened once for each address and reason."""
        match notice:
            case PeerUnreachable(address):
                log.warning("%s does not answer; trying again until it does", printable(address))
            case CardsDiffer():
                self._cards_differ(notice)
            case GossipTooLong():
                self._gossip_too_long(notice)
            case MemberChanged():
                self._changed(notice)
            case LinkOpened():
                self._open[notice.link] = None
                log.debug("%s", notice)
            case LinkClosed():
                self._link_closed(notice)
            case _:
                log.debug("%s", notice)

    def _changed(self, notice: MemberChanged) -> None:
        """Said when its standing is another: not for one more accuser or a new card, nor of who was gone before."""
        before = self._reachable.pop(notice.member, None)
        if notice.standing in (Standing.ALIVE, Standing.SUSPECT):
            self._reachable[notice.member] = notice.standing
            if len(self._reachable) > _MEMBERS:  # of an earlier identity's view, in which nobody died any more
                del self._reachable[next(iter(self._reachable))]
            changed = notice.standing is not before
        else:
            changed = before is not None
        level = logging.INFO if changed else logging.DEBUG
        log.log(level, "%s %s", printable(notice.name), _STANDINGS[notice.standing])

    def _link_closed(self, notice: LinkClosed) -> None:
        """Who has not said its name is of no known kind: it may be a node as well as a client."""
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
        """Whether this was not said yet, or so long ago that it is forgotten. As much of it counts as is shown."""
        who, what = who[:_TEXT_LIMIT], what[:_TEXT_LIMIT]
        if (who, what) in self._logged:
            return False
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[who, what] = None
        return True

    def _cards_differ(self, notice: CardsDiffer) -> None:
        """Said once a name: whoever does it once may do it for ever."""
        if self._is_new(notice.name, "cards"):
            log.warning("two cards of %s came for one incarnation; one is not its own", printable(notice.name))

    def _gossip_too_long(self, notice: GossipTooLong) -> None:
        """Said once a link and kind: the next one of the kind will be as long."""
        if self._is_new(str(notice.link), notice.kind):
            text = "a %s of %d bytes was not sent on link %d: its limit is %d; raise Limits(node_message=...)"
            log.warning(text, notice.kind, notice.size, notice.link, notice.limit)

    def failed(self, function: str, raised: Raised) -> None:
        """A body has raised: one line, and at debug where."""
        log.warning("%s failed: %s: %s", printable(function), printable(raised.kind), printable(raised.message))
        if raised.traceback:
            log.debug("%s", raised.traceback)


def printable(text: str) -> str:
    """What a peer said, for a log: one line, nothing that a terminal acts on, of bounded length."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:_TEXT_LIMIT])
    return shown + ("..." if len(text) > _TEXT_LIMIT else "")


def ready_line(name: str, url: str, *, functions: int, resources: frozenset[str]) -> str:
    """The one line that says where a node listens; "node" is the name of those that were given none."""
    who = "the node" if name == "node" else f"node {name}"
    suffix = f", resources {', '.join(sorted(resources))}" if resources else ""
    return f"{who} is ready at {url} ({functions} functions{suffix})"


def open_line(listening: str, others: str | None) -> str:
    """The line that says that a node is open to other machines, and by which address they reach it, if it has one."""
    reached = f"other machines use {others}" if others else "no address for other machines is known, see --advertise"
    return f"open to everybody who can reach {listening}: they can run its functions without a secret; {reached}"


@contextmanager
def on_stderr() -> Iterator[None]:
    """Let the logger `mpreg` write to stderr meanwhile, unless the program has said where its log goes."""
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
