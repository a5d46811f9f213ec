"""The oracles of the invariants: simple readings of a node's tables, and an evaluation of a request's graph.

All functions here read the tables of a node directly, and work on them with sets, dicts and hashes of their own. They
call no logic of the code under test, and they change no node.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgpack import unpackb  # type: ignore[import-untyped]

from mpreg_proto.cluster.catalogue import Content
from mpreg_proto.cluster.members import Members
from mpreg_proto.errors import ErrorCode
from mpreg_proto.ids import MemberId, show
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.requests.coordinator import Coordinator
from mpreg_proto.requests.outstanding import Attempt
from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import Ref

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import NodeHost

Cell = tuple[int, int]
"""A cell: (incarnation, rank), in the order in which it may grow."""
UNKNOWN: Cell = (-1, -1)
TOP: Cell = (1 << 62, int(Standing.RETIRED))
"""RETIRED, which is above every incarnation."""
Life = tuple[str, int, bytes]
"""One identity of one process: host, life, member id."""


def life(host: NodeHost) -> Life:
    """Return the present identity of a host."""
    return host.name, host.life, host.node.me


def stamp(host: NodeHost) -> str:
    """Return a host and the time as text."""
    return f"{show(host.name, host.node.me)} at {host.sim.time:.6f} s"


def show_cell(cell: Cell) -> str:
    """Return a liveness cell as text."""
    if cell == UNKNOWN:
        return "unknown"
    return "RETIRED" if cell == TOP else f"{Standing(cell[1]).name} {cell[0]}"


def cell(members: Members, member: MemberId) -> Cell:
    """Return the cell that a node holds of a member."""
    record = members.get(member)
    if record is not None:
        return record.incarnation, int(record.standing)
    return TOP if members.standing(member) is Standing.RETIRED else UNKNOWN


def attempt_of(coordinator: Coordinator, number: int, call: str) -> Attempt | None:
    """Return one attempt of a dispatch, without a list of all its attempts."""
    attempts = coordinator.outstanding._by_number.get(number)
    return None if attempts is None else attempts.get(call)


class Offer(msgspec.Struct, frozen=True):
    """A function as its owner wrote it, without the resources of the node."""

    version: str
    resources: frozenset[str]
    idempotent: bool


class Offers(msgspec.Struct, frozen=True):
    """All that one member offers, read from the bytes of its entries."""

    functions: dict[str, Offer]
    resources: frozenset[str]
    draining: bool

    def fits(self, call: Call) -> bool:
        """Return whether the member can accept `call`: it has all that the call requires and is not draining."""
        return not self.draining and self.has(call)

    def has(self, call: Call) -> bool:
        """Return whether the member offers the function in the right version and holds all required resources."""
        offer = self.functions.get(call.function)
        return (
            offer is not None
            and (call.version is None or call.version == offer.version)
            and (not call.resources or frozenset(call.resources) <= self.resources | offer.resources)
        )

    def exact(self, call: Call) -> bool:
        """Return whether the member holds exactly the resources that the call requires."""
        return frozenset(call.resources) == self.resources | self.functions[call.function].resources


NOTHING = Offers({}, frozenset(), False)


def offers(entries: Mapping[str, bytes]) -> Offers:
    """Return the offers in the entries. Keys: `f:name` a function, `r` resources, `d` draining; others are ignored."""
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
    """Return the entries of a catalogue as the bytes that its owner wrote."""
    return {key: change.entry for key, change in content.entries.items()}


def content_hash(content: Mapping[str, bytes]) -> int:
    """Return the sum modulo 2**128 of the BLAKE2b of each entry (docs/explanation/membership.md)."""
    total = 0
    for key, entry in content.items():
        name = key.encode("utf-8", "surrogatepass")
        digest = blake2b(len(name).to_bytes(4, "big") + name + entry, digest_size=16).digest()
        total += int.from_bytes(digest, "big")
    return total % (1 << 128)


class CatalogueReader:
    """A cache of decoded catalogues: the content of one (member, version, hash) never changes."""

    def __init__(self) -> None:
        self._read: dict[tuple[bytes, int, int], Offers] = {}

    def read(self, content: Content | None) -> Offers:
        """Return the offers of a content, or no offers for None."""
        if content is None:
            return NOTHING
        key = (content.member, content.version, content.hash)
        found = self._read.get(key)
        if found is None:
            found = self._read[key] = offers(entries(content))
        return found


def substituted(tree: Any, given: Mapping[str, Any]) -> Any:
    """Return `tree` with each reference replaced by its value. Raises LookupError for a path that is not there."""
    kind = type(tree)
    if kind is Ref:
        value = given[tree.name]
        for step in tree.path:
            if not isinstance(value, dict if type(step) is str else list | tuple):
                raise LookupError(step)
            value = value[step]
        return value
    if kind is list:
        return [substituted(item, given) for item in tree]
    if kind is tuple:
        return tuple([substituted(item, given) for item in tree])
    if kind is dict:
        return {substituted(key, given): substituted(item, given) for key, item in tree.items()}
    return tree


def refusal_on_arrival(request: Request, limits: Limits) -> int | None:
    """Return the code with which a request is refused whatever the cluster offers, in the order of the checks."""
    calls, want = request.calls, request.want
    shapeless = (
        not calls
        or any(not call.name or not call.function for call in calls)
        or (want is not None and (not want or len(set(want)) < len(want)))
        or (request.timeout is not None and request.timeout <= 0)
        or request.wait < 0
    )
    if shapeless:
        return ErrorCode.INVALID_REQUEST
    texts = [text for call in calls for text in (call.name, call.function, call.version or "", *call.resources)]
    edges = sum(len(call.dependencies) for call in calls)
    if len(calls) > limits.calls or edges > limits.edges or any(len(text) > limits.name_length for text in texts):
        return ErrorCode.LIMIT_EXCEEDED
    names = {call.name for call in calls}
    if len(names) < len(calls):
        return ErrorCode.DUPLICATE_NAME
    known = {*names, *request.inputs}
    if not all(need in known for call in calls for need in call.dependencies) or not names.issuperset(want or ()):
        return ErrorCode.UNRESOLVED_REFERENCE
    needs = {call.name: set(call.dependencies) for call in calls}
    return ErrorCode.CYCLIC_REFERENCE if any(name in _reached(name, needs) for name in names) else None


def _reached(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Return all dependencies of a call, direct and indirect."""
    found: set[str] = set()
    waiting = list(needs[name])
    while waiting:
        other = waiting.pop()
        if other in needs and other not in found:
            found.add(other)
            waiting += needs[other]
    return found
