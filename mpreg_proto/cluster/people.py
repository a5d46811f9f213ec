"""Members as people see them: what `mpreg nodes` shows, read from members, catalogue, rings and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpreg_proto.cluster.actions import MemberStatus
from mpreg_proto.cluster.catalogue import Catalogue, Content
from mpreg_proto.cluster.members import Member, Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.notices import Standing

_WATCHED = 1024
"""In larger clusters nobody reads who watches whom, and to work it out takes long."""


def member_statuses(
    members: Members,
    catalogue: Catalogue,
    rings: Rings,
    links: Mapping[MemberId, LinkId],
    *,
    name: Callable[[MemberId], str],
    fetching: Callable[[MemberId], int],
) -> tuple[MemberStatus, ...]:
    """Everybody but the RETIRED, by name and id. `fetching`: the newest catalogue version that is asked for, or 0."""
    found = []
    for member in members.all():
        content = catalogue.content(member.id)
        version = 0 if content is None else content.version
        watched = member.routable and len(rings) <= _WATCHED
        observers = sorted(show(name(one), one) for one in rings.observers_of(member.id)) if watched else ()
        found.append(
            MemberStatus(
                id=member.id.hex(),
                shown=show(name(member.id), member.id),
                name=name(member.id),
                standing=_standing(member, content),
                incarnation=member.incarnation,
                since=member.since,
                addresses=member.addresses,
                version=version,
                lag=max(0, fetching(member.id) - version),
                linked=member.id in links,
                observers=tuple(observers),
                accusers=len(member.accusers),
                functions=0 if content is None else len(content.functions),
                resources=() if content is None else content.resources,
            )
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.id)))


def _standing(member: Member, content: Content | None) -> str:
    """In a word. Who drains says so in its catalogue, as its cell is as ALIVE as before; doubt is of more interest."""
    if member.standing is Standing.ALIVE and content is not None and content.draining:
        return "draining"
    return member.standing.name.lower()
