"""The member that a `Drain` means: found by its name, the beginning of its id, or an address.

It reads the cluster and changes nothing.
"""

from __future__ import annotations

from typing import Final

from mpreg_proto.cluster.cluster import Cluster
from mpreg_proto.cluster.members import Member
from mpreg_proto.describe import cut
from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import show
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import DrainState

_SHORTEST: Final = 4
"""The fewest characters of an id that count as its beginning."""
_SHOWN: Final = 200
"""The most characters of what was given that an error contains."""
_LISTED: Final = 8
"""The most members that an error lists."""


def find_member(cluster: Cluster, node: str) -> Member | Fault:
    """Return the one member that `node` means, or error 1010.

    A member that runs comes before those that have left or died, which may have had the same name or address.
    """
    everyone = cluster.members.all()
    found: list[Member] = []
    for matches in (_has_name, _has_address, _has_id):
        found = found or [member for member in everyone if matches(cluster, member, node)]
    running = [member for member in found if member.routable]
    left = [member for member in found if member.standing is Standing.LEFT]
    chosen = running or left[-1:] or found
    if len(chosen) == 1 and chosen[0].standing is not Standing.DEAD:
        return chosen[0]
    names = [show(cluster.name_of(member.id), member.id) for member in chosen[:_LISTED]]
    node = cut(node, _SHOWN)
    listed = ", ".join(names) + (", ..." if len(chosen) > _LISTED else "")
    details: dict[str, object] = {"node": node, "members": names}
    if not chosen:
        return Fault(ErrorCode.INVALID_REQUEST, f"no member has the name, id or address {node!r}", details)
    if running:
        text = f"{node!r} means {len(chosen)} members: {listed}; give the id or the address of one"
        return Fault(ErrorCode.INVALID_REQUEST, text, details)
    return Fault(ErrorCode.INVALID_REQUEST, f"{listed} is marked DEAD, and cannot leave in order", details)


def drain_state(cluster: Cluster, member: Member) -> DrainState | None:
    """Return how far a member is with leaving; None if it has not begun."""
    if member.standing is Standing.LEFT:
        return DrainState.LEFT
    content = cluster.catalogue.content(member.id)
    return DrainState.DRAINING if content is not None and content.draining else None


def _has_name(cluster: Cluster, member: Member, node: str) -> bool:
    name = cluster.name_of(member.id)
    return node in (name, show(name, member.id))


def _has_address(cluster: Cluster, member: Member, node: str) -> bool:
    """Return whether an address of a member is `node`, whatever its scheme."""
    place = node.partition("://")[2]
    return bool(place) and place in [address.partition("://")[2] for address in member.addresses]


def _has_id(cluster: Cluster, member: Member, node: str) -> bool:
    return len(node) >= _SHORTEST and member.id.hex().startswith(node.lower())
