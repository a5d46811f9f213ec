"""How a node sees the cluster and itself at one moment: read from all machines, for people, tests and `GetView`.

The rows are `view`'s. Nothing is changed by looking.
"""

from __future__ import annotations

from mpreg_proto.cluster import actions
from mpreg_proto.ids import MemberId
from mpreg_proto.machines import Machines
from mpreg_proto.view import MemberView, NodeView


def build_view(machines: Machines, *, now: int) -> NodeView:
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
        members=tuple(_member(machines, row, now) for row in machines.cluster.member_statuses()),
        functions=machines.cluster.index.table(),
    )


def _member(machines: Machines, row: actions.MemberStatus, now: int) -> MemberView:
    member = MemberId(bytes.fromhex(row.id))
    return MemberView(
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
        waiting=machines.coordinator.outstanding.waiting(member),
        lag=row.lag,
        rtt=machines.links.rtt(machines.cluster.links.get(member)),
        observers=row.observers,
        accusers=row.accusers,
    )
