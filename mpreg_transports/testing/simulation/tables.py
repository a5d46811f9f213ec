"""What nodes hold of members and catalogues, written down on each sweep: who found all right in it need not look again.

Between two sweeps most of a cluster stands still. So each table is read once a sweep, and compared with what was read
on the last one; a watcher that gets the very same object as when it last found nothing wrong has nothing to look at.
Nothing here judges, or changes a node.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Protocol

from mpreg_proto.node import Node

_member = attrgetter("id", "incarnation", "standing", "card_bytes")
_content = attrgetter("member", "version", "hash", "changes")


class RunsNode(Protocol):
    """A host with a node."""

    name: str
    node: Node


class Tables:
    """The tables of all hosts, as they are on this sweep."""

    def __init__(self) -> None:
        self._written: dict[tuple[Callable[[RunsNode], object], str], object] = {}
        self._read: dict[tuple[Callable[[RunsNode], object], str], None] = {}
        """What was read already on this sweep."""

    def begin(self) -> None:
        """A sweep begins; nothing happens until it is over."""
        self._read.clear()

    def members(self, host: RunsNode) -> object:
        """All members that a node knows, with cell and card: the same object as on the last sweep if it is equal."""
        return self._now(members_of, host)

    def catalogues(self, host: RunsNode) -> object:
        """All catalogues that a node holds, at which version, and who is listed for what; the same object if equal."""
        return self._now(catalogues_of, host)

    def _now(self, read: Callable[[RunsNode], object], host: RunsNode) -> object:
        key = (read, host.name)
        if key not in self._read:
            self._read[key] = None
            now = read(host)
            if now != self._written.get(key):
                self._written[key] = now
        return self._written[key]


def members_of(host: RunsNode) -> object:
    """Every row of the table of members, and the ids of the RETIRED."""
    members = host.node.cluster.members
    return [*map(_member, members.all())], tuple(members._retired)


def catalogues_of(host: RunsNode) -> object:
    """Every catalogue's version, hash and log, and the way back from functions to members.

    What a catalogue contains at one version and hash does not change (invariant 4 sees to it).
    """
    catalogue = host.node.cluster.catalogue
    listed = {function: tuple(members) for function, members in catalogue.offering.items()}
    return [*map(_content, catalogue._contents.values())], listed
