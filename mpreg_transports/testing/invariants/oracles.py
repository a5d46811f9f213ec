"""What the invariants compare with: naive readings of what nodes hold, and a plain evaluation of a request's graph.

Everything here reads tables of a node as they lie and works on them with sets, dicts and hashes of its own; nothing of
the code under test is asked for an opinion. Nothing here changes a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgpack import unpackb  # type: ignore[import-untyped]

from mpreg_proto.cluster.catalogue import Content
from mpreg_proto.cluster.members import Members
from mpreg_proto.ids import MemberId, show
from mpreg_proto.notices import Standing
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.outstanding import Attempt
from mpreg_proto.wire.messages import Call
from mpreg_proto.wire.values import Ref

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import NodeHost

Cell = tuple[int, int]
"""(incarnation, rank), in the order in which it may grow."""
UNKNOWN: Cell = (-1, -1)
TOP: Cell = (1 << 62, int(Standing.RETIRED))
"""RETIRED is above every incarnation."""
Life = tuple[str, int, bytes]
"""One identity of one process: host, life, member id."""


def life(host: NodeHost) -> Life:
    """Who a host is now."""
    return host.name, host.life, host.node.me


def stamp(host: NodeHost) -> str:
    """A host in words, with the time."""
    return f"{show(host.name, host.node.me)} at {host.sim.time:.6f} s"


def show_cell(cell: Cell) -> str:
    """A liveness cell in words."""
    if cell == UNKNOWN:
        return "unknown"
    return "RETIRED" if cell == TOP else f"{Standing(cell[1]).name} {cell[0]}"


def cell(members: Members, member: MemberId) -> Cell:
    """What a node believes of a member."""
    record = members.get(member)
    if record is not None:
        return record.incarnation, int(record.standing)
    return TOP if members.standing(member) is Standing.RETIRED else UNKNOWN


def attempt_of(coordinator: Coordinator, number: int, call: str) -> Attempt | None:
    """One attempt of a dispatch, without a list of all of them."""
    attempts = coordinator.outstanding._by_number.get(number)
    return None if attempts is None else attempts.get(call)


class Offer(msgspec.Struct, frozen=True):
    """A function as its owner wrote it, without the node's own resources."""

    version: str
    resources: frozenset[str]
    idempotent: bool


class Offers(msgspec.Struct, frozen=True):
    """All that one member says it offers, read from the bytes of its entries."""

    functions: dict[str, Offer]
    resources: frozenset[str]
    draining: bool

    def fits(self, call: Call) -> bool:
        """Whether `call` can be taken on there: it has all that is asked for and is not draining."""
        return not self.draining and self.has(call)

    def has(self, call: Call) -> bool:
        """Whether what `call` asks for is there: offered in that version, all resources held."""
        offer = self.functions.get(call.function)
        return (
            offer is not None
            and (call.version is None or call.version == offer.version)
            and (not call.resources or frozenset(call.resources) <= self.resources | offer.resources)
        )

    def exact(self, call: Call) -> bool:
        """Whether it holds just what the call asks for."""
        return frozenset(call.resources) == self.resources | self.functions[call.function].resources


NOTHING = Offers({}, frozenset(), False)


def offers(entries: Mapping[str, bytes]) -> Offers:
    """Entries by what their keys say: `f:name` a function, `r` resources, `d` draining; other keys mean nothing."""
    functions: dict[str, Offer] = {}
    resources: frozenset[str] = frozenset()
    draining = False
    for key, entry in entries.items():
        if key.startswith("f:"):
            name, version, own, idempotent = (*unpackb(entry), "", [], False)[:4] if entry else ("", "", [], False)
            functions[name] = Offer(version, frozenset(own), idempotent)
        elif key == "r":
            resources = frozenset(unpackb(entry))
        elif key == "d":
            draining = bool(unpackb(entry))
    return Offers(functions, resources, draining)


def entries(content: Content) -> dict[str, bytes]:
    """A catalogue's entries in its owner's bytes."""
    return {key: change.entry for key, change in content.entries.items()}


def content_hash(content: Mapping[str, bytes]) -> int:
    """docs/explanation/membership.md: the sum modulo 2**128 of each entry's BLAKE2b."""
    total = 0
    for key, entry in content.items():
        name = key.encode("utf-8", "surrogatepass")
        digest = blake2b(len(name).to_bytes(4, "big") + name + entry, digest_size=16).digest()
        total += int.from_bytes(digest, "big")
    return total % (1 << 128)


class CatalogueReader:
    """Catalogues read once: content never changes under one (member, version, hash)."""

    def __init__(self) -> None:
        self._read: dict[tuple[bytes, int, int], Offers] = {}

    def read(self, content: Content | None) -> Offers:
        """What a content offers; nothing if there is none."""
        if content is None:
            return NOTHING
        key = (content.member, content.version, content.hash)
        found = self._read.get(key)
        if found is None:
            found = self._read[key] = offers(entries(content))
        return found


def substituted(tree: Any, given: Mapping[str, Any]) -> Any:
    """`tree` with each reference replaced, by walking it. LookupError or TypeError where a path leads nowhere."""
    kind = type(tree)
    if kind is Ref:
        value = given[tree.name]
        for step in tree.path:
            value = value[step]
        return value
    if kind is list:
        return [substituted(item, given) for item in tree]
    if kind is tuple:
        return tuple([substituted(item, given) for item in tree])
    if kind is dict:
        return {substituted(key, given): substituted(item, given) for key, item in tree.items()}
    return tree
