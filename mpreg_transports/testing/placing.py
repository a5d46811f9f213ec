"""Placement in a cluster at rest, by the index and the ranks of production, without a simulation."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mpreg_proto.cluster.catalogue import Catalogue, FunctionSpec
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.requests.placement import rank
from mpreg_proto.wire.messages import Call, Claim
from mpreg_transports.testing.expected import Placement
from mpreg_transports.testing.simulation.functions import offered_functions
from mpreg_transports.testing.simulation.hosts import Spec, address


def place(call: Call, cluster: Mapping[str, Spec]) -> Placement:
    """Return the nodes on which a coordinator would place `call` if all nodes are idle, and reachable.

    Compare it with `oracle(request, cluster).calls[call.name].placement`.
    """
    found = index_of(cluster).offers(call.function, call.resources, call.version)
    equals = rank(found, _Idle(), resources=call.resources, now=0)
    names = dict(zip(map(member_id, range(len(cluster))), cluster, strict=True))
    return Placement(*(frozenset(names[one.member] for one in candidates) for candidates in (found, equals)))


def index_of(
    cluster: Mapping[str, Spec],
    *,
    standings: Mapping[str, Standing] | None = None,
    draining: frozenset[str] = frozenset(),
) -> Index:
    """Return the index of an observer outside of the cluster, after claims and deltas from all nodes.

    The member id of a node is `member_id(its position)`. `standings` are those that are not ALIVE, by node.
    """
    limits = Limits()
    known = Members(MemberId(b"\xff" * 16), Card("observer"), limits=limits, now=0)
    catalogue = Catalogue(known.me, limits=limits)
    for position, (name, spec) in enumerate(cluster.items()):
        identity = member_id(position)
        card = msgspec.msgpack.encode(Card(name, (address(name),)))
        standing = (standings or {}).get(name, Standing.ALIVE)
        known.merge([Claim(identity, 1, int(standing), card)], 0)
        own = Catalogue(identity, limits=limits)
        deltas = [own.set_resources(tuple(sorted(spec.resources)))]
        deltas += [own.offer(one) for one in _function_specs(spec)]
        deltas += [own.drain()] if name in draining else []
        for delta in deltas:
            catalogue.apply(delta)
    return Index(known, catalogue)


def member_id(position: int) -> MemberId:
    """Return the member id of the node at `position` in a cluster."""
    return MemberId(position.to_bytes(16, "big"))


def _function_specs(spec: Spec) -> list[FunctionSpec]:
    """Return what a node offers, without the signatures, which placement does not read."""
    return [
        FunctionSpec(
            name=name, version=fn.version, resources=tuple(sorted(set(fn.resources))), idempotent=fn.idempotent
        )
        for name, fn in offered_functions(spec.functions).items()
    ]


class _Idle:
    """The load of members that have no calls. Implements placement's `Loads`."""

    def waiting(self, member: MemberId, now: int) -> int:
        return 0

    def delay(self, member: MemberId, now: int) -> int:
        return 0

    def full(self, member: MemberId) -> bool:
        return False

    def reachable(self, member: MemberId, now: int) -> bool:
        return True
