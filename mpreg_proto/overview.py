"""How a node sees the cluster and itself at one moment: read from all machines, for people, tests and `Ask`.

The rows are `view`'s. Nothing is changed by looking.
"""

from __future__ import annotations

from mpreg_proto.cluster import outputs
from mpreg_proto.ids import MemberId
from mpreg_proto.machines import Machines
from mpreg_proto.view import MemberRow, NodeView


def overview(machines: Machines, *, now: int) -> NodeView:
    """Everything at once, frozen."""
    return NodeView(
        id=machines.me.hex(),
        shown=machines.shown,
        cluster=machines.config.cluster_id,
        draining=machines.draining,
        synced=machines.cluster.synced(),
        requests=len(machines.coordinator.requests),
        running=machines.worker.running,
        queued=machines.worker.queued,
        links=len(machines.links.sessions),
        members=tuple(_member(machines, row, now) for row in machines.cluster.people()),
        functions=machines.cluster.index.table(),
    )


def _member(machines: Machines, row: outputs.MemberRow, now: int) -> MemberRow:
    member = MemberId(bytes.fromhex(row.id))
    return MemberRow(
        id=row.id,
        shown=row.shown,
        name=row.name,
        standing=row.standing,
        incarnation=row.incarnation,
        since=now - row.since,
        addresses=row.addresses,
        catalogue=row.version,
        functions=row.functions,
        resources=row.resources,
        linked=row.linked,
        me=member == machines.me,
        waiting=machines.coordinator.out.waiting(member),
        lag=row.lag,
        trip=machines.links.trip(machines.cluster.links.get(member)),
        observers=row.observers,
        accusers=row.accusers,
    )
