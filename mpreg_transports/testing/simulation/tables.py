"""The members and catalogues that nodes hold, recorded on each sweep, so that watchers skip unchanged tables.

Between two sweeps most tables of a cluster do not change. So each table is read once on each sweep and compared with
its last state. A watcher that gets the same object as at its last successful check has nothing to check. This module
checks nothing, and changes no node.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Protocol

from mpreg_proto.node import Node

_member = attrgetter("id", "incarnation", "standing", "card_bytes", "accusers")
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
        """The tables that were already read on this sweep."""

    def begin(self) -> None:
        """Begin a sweep. Nothing else may happen until it is over."""
        self._read.clear()

    def members(self, host: RunsNode) -> object:
        """Return all members that a node holds, with cell, card and accusers.

        The result is the same object as on the last sweep if it is equal.
        """
        return self._now(members_of, host)

    def catalogues(self, host: RunsNode) -> object:
        """Return all catalogues that a node holds, their versions, and the members listed for each function.

        The result is the same object as on the last sweep if it is equal.
        """
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
    """Return every row of the table of members, and the ids of the RETIRED."""
    members = host.node.cluster.members
    return [*map(_member, members.all())], tuple(members._retired)


def catalogues_of(host: RunsNode) -> object:
    """Return every catalogue's version, hash and log, and the index from functions to members.

    The content of a catalogue at one version and hash does not change (invariant 4 checks this).
    """
    catalogue = host.node.cluster.catalogue
    listed = {function: tuple(members) for function, members in catalogue.offering.items()}
    return [*map(_content, catalogue._contents.values())], listed
