"""Invariants 1 to 3: the views that nodes have of members (docs/explanation/membership.md).

Each watcher keeps cells of its own: the last seen cells, the cells that owners set, or the pointwise maximum of the
claims that a node received.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.notices import MemberChanged, Notice, Standing
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Claim, Gossip, Message
from mpreg_transports.testing.invariants.oracles import TOP, UNKNOWN, Cell, Life, cell, life, show_cell, stamp
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World

_BOUND = 1 << 31
_ACCUSERS = 10
"""The most accusers of a member: those with the smallest ids."""
_RANKS = (int(Standing.SUSPECT), int(Standing.DEAD))


class MemberWatcher(Watcher):
    """A watcher that calls `look` for the members that an event was about, and on a sweep for all members."""

    message_types: ClassVar[tuple[type, ...]] = (Gossip,)

    def begin(self, sim: World) -> None:
        self._about: dict[str, dict[bytes, None]] = {}
        self._verified: dict[str, object] = {}
        """The table of each host that was right when it was last compared, and that no event has touched since."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Gossip:
            about = self._about.setdefault(host.name, {})
            for claim in message.claims:
                about[claim.member] = None

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is MemberChanged:
            self._about.setdefault(host.name, {})[notice.member] = None

    def node_event_handled(self, host: NodeHost) -> None:
        about = self._about.pop(host.name, None) if self._about else None
        if about is not None:
            self._verified.pop(host.name, None)
            self.look(host, map(MemberId, about))

    def sweep(self, sim: World) -> None:
        for host in sim.nodes.values():
            if host.alive and self._verified.get(host.name) is not (now := sim.tables.members(host)):
                self.look_at_all(host)
                self._verified[host.name] = now

    def look_at_all(self, host: NodeHost) -> None:
        """Check the whole view of `host`."""
        self.look(host, [record.id for record in host.node.cluster.members.all()])

    def look(self, host: NodeHost, about: Iterable[MemberId]) -> None:
        """Check what `host` holds of these members."""
        raise NotImplementedError


class MonotonicCells(MemberWatcher):
    """Invariant 1: a liveness cell never decreases, and no member is forgotten.

    A RETIRED member may be forgotten after a week, or when there are too many of them.
    """

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._seen: dict[Life, dict[bytes, Cell]] = {}

    def look(self, host: NodeHost, about: Iterable[MemberId]) -> None:
        members = host.node.cluster.members
        seen = self._seen.setdefault(life(host), {})
        for member in about:
            before, now = seen.get(member, UNKNOWN), cell(members, member)
            if now < before and not (before == TOP and self._may_forget(host)):
                raise Violation(
                    1, f"{stamp(host)}: {show('', member)} went from {show_cell(before)} to {show_cell(now)}"
                )
            seen[member] = now

    def look_at_all(self, host: NodeHost) -> None:
        """Check all members of the view, and all members that `host` held earlier."""
        known = dict.fromkeys(self._seen.get(life(host), ()))
        known.update(dict.fromkeys(record.id for record in host.node.cluster.members.all()))
        self.look(host, map(MemberId, known))

    def _may_forget(self, host: NodeHost) -> bool:
        limits = host.spec.limits
        return host.sim.now > limits.retired_for or len(host.node.cluster.members._retired) >= limits.retired_members


class OwnerOnlyIncarnation(MemberWatcher):
    """Invariant 2: only the owner raises its incarnation, and only the owner sets LEFT.

    The owner raises its incarnation to that of an accusation plus one.
    """

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._raised: dict[bytes, int] = {}
        """The highest incarnation that each owner has had."""
        self._left: dict[bytes, None] = {}
        self._ids: dict[tuple[str, int], dict[bytes, None]] = {}
        self._accused: dict[Life, int] = {}
        """The highest incarnation in the claims about itself that a node received."""

    def node_started(self, host: NodeHost) -> None:
        self._owned(host)

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        super().message_received(host, link, message)
        if type(message) is Gossip and isinstance(host, NodeHost):
            me, who = host.node.me, life(host)
            for claim in message.claims:
                if claim.member == me:
                    self._accused[who] = max(self._accused.get(who, -1), claim.incarnation)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        super().noticed(host, notice)
        if type(notice) is MemberChanged and notice.member in self._ids.get((host.name, host.life), ()):
            self._raised[notice.member] = max(self._raised[notice.member], notice.incarnation)
            if notice.standing is Standing.LEFT:
                self._left[notice.member] = None

    def crashed(self, host: NodeHost) -> None:
        self._owned(host)

    def node_event_handled(self, host: NodeHost) -> None:
        self._owned(host)
        if self._about:
            super().node_event_handled(host)

    def _owned(self, host: NodeHost) -> None:
        """Record the owner's own cell, and check that an accusation justifies its incarnation."""
        own, me = host.node.cluster.members.own, host.node.me
        known = self._raised.get(me)
        if known is None:
            self._ids.setdefault((host.name, host.life), {})[me] = None
            self._raised[me] = known = own.incarnation
        if own.incarnation > known:
            self._raised[me] = own.incarnation
        justified = max(self._accused.get(life(host), -1) + 1, 0) + host.advertised
        if own.incarnation > justified:
            accused = self._accused.get(life(host), -1)
            raise Violation(
                2, f"{stamp(host)} is at incarnation {own.incarnation} and was accused at {accused} at most"
            )
        if own.standing is Standing.LEFT:
            self._left[me] = None

    def look(self, host: NodeHost, about: Iterable[MemberId]) -> None:
        members, me = host.node.cluster.members, host.node.me
        for member in about:
            incarnation, rank = now = cell(members, member)
            if member == me or now in (TOP, UNKNOWN):
                continue
            highest = self._raised.get(member)
            if highest is None or incarnation > highest:
                owner = "nobody ever was" if highest is None else f"its owner never went beyond {highest} as"
                raise Violation(2, f"{stamp(host)} holds {show_cell(now)} of {show('', member)}: {owner} that")
            if rank == Standing.LEFT and member not in self._left:
                raise Violation(2, f"{stamp(host)} holds {show_cell(now)} of {show('', member)}, which never said so")


class DeterministicMerge(MemberWatcher):
    """Invariant 3: a view is the pointwise maximum of the received claims.

    Only the node's own suspicion may raise the rank of a cell above that. So nodes that received the same claims have
    the same view, in whatever order the claims arrived. The cards are the bytes that their owners wrote. The accusers
    of a SUSPECT member are those that claims of exactly this cell name, the node itself, and no others.
    """

    def begin(self, sim: World) -> None:
        super().begin(sim)
        self._views: dict[Life, dict[bytes, Cell]] = {}
        self._accusers: dict[tuple[Life, bytes], tuple[int, dict[bytes, None]]] = {}
        """The accusers named so far, with the incarnation at which they accuse, by view and member."""
        self._received: dict[str, tuple[Life, list[Claim]]] = {}
        self._cards: dict[bytes, dict[bytes, None]] = {}
        self._full: dict[str, None] = {}
        """The hosts whose table may have been full while they handled the present event (`Limits.members`)."""

    def node_started(self, host: NodeHost) -> None:
        self._carded(host)

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        super().message_received(host, link, message)
        if type(message) is not Gossip or not isinstance(host, NodeHost):
            return
        session = host.node.links.sessions[link]
        if host.node.cluster.members.living + len(message.claims) > host.spec.limits.members:
            self._full[host.name] = None
        if session.member is not None and session.member != host.node.me:
            self._received.setdefault(host.name, (life(host), []))[1].extend(filter(_sensible, message.claims))

    def crashed(self, host: NodeHost) -> None:
        self._carded(host)

    def node_event_handled(self, host: NodeHost) -> None:
        self._carded(host)
        if not self._about:
            return
        received = self._received.pop(host.name, None) if self._received else None
        if received is not None and received[0] == life(host):
            self._take(host, received[1])
        super().node_event_handled(host)
        self._full.pop(host.name, None)

    def _carded(self, host: NodeHost) -> None:
        own = host.node.cluster.members.own
        cards = self._cards.get(own.id)
        if cards is None or own.card_bytes not in cards:
            self._cards.setdefault(own.id, {})[own.card_bytes] = None

    def _take(self, host: NodeHost, claims: Iterable[Claim]) -> None:
        """Merge the claims into the oracle's own view."""
        view = self._views.setdefault(life(host), {})
        own = host.node.cluster.members.own
        for claim in claims:
            received = TOP if claim.standing == Standing.RETIRED else (claim.incarnation, claim.standing)
            if claim.member != host.node.me:
                before = view.get(claim.member, UNKNOWN)
                if received >= before:
                    view[claim.member] = received
                    if claim.standing == Standing.SUSPECT and claim.accusers:
                        self._accuse(host, claim)
            elif own.standing is Standing.LEFT or received[1] >= Standing.LEFT:
                continue  # the node leaves, or takes a new id
            elif received > (own.incarnation, int(own.standing)):
                raise Violation(3, f"{stamp(host)} received that it is {show_cell(received)} and did not refute it")

    def _accuse(self, host: NodeHost, claim: Claim) -> None:
        """Add the accusers that a claim names to those of the same incarnation."""
        key = (life(host), claim.member)
        incarnation, named = self._accusers.get(key, (-1, {}))
        if incarnation != claim.incarnation:
            named = {}
        named.update(dict.fromkeys(one for one in claim.accusers[:_ACCUSERS] if len(one) == 16 and one != claim.member))
        self._accusers[key] = claim.incarnation, named

    def look(self, host: NodeHost, about: Iterable[MemberId]) -> None:
        members, view = host.node.cluster.members, self._views.setdefault(life(host), {})
        for member in about:
            if member == host.node.me:
                continue
            expected, now = view.get(member, UNKNOWN), cell(members, member)
            doubted = now[0] == expected[0] and expected[1] < now[1] and now[1] in _RANKS
            full = now == UNKNOWN and (members.living >= host.spec.limits.members or host.name in self._full)
            if now not in (expected, TOP) and not doubted and not full:
                what = f"{stamp(host)} holds {show_cell(now)} of {show('', member)}"
                raise Violation(3, f"{what}; its claims come to {show_cell(expected)}")
            view[member] = now
            self._look_at_card(host, member)
            if now[1] == Standing.SUSPECT:
                self._look_at_accusers(host, member, now[0])

    def _look_at_card(self, host: NodeHost, member: MemberId) -> None:
        record = host.node.cluster.members.get(member)
        if record is not None and record.card_bytes and record.card_bytes not in self._cards.get(member, ()):
            raise Violation(3, f"{stamp(host)} holds a card of {show('', member)} that it never wrote")

    def _look_at_accusers(self, host: NodeHost, member: MemberId, incarnation: int) -> None:
        record, me = host.node.cluster.members.get(member), host.node.me
        assert record is not None, "it is SUSPECT"
        at, named = self._accusers.get((life(host), member), (-1, {}))
        expected = dict(named) if at == incarnation else {}
        if me in record.accusers:
            expected[me] = None
        if list(record.accusers) != sorted(expected)[:_ACCUSERS]:
            found, right = ([show("", MemberId(one)) for one in few] for few in (record.accusers, sorted(expected)))
            what = f"the accusers {found} of {show('', member)}, SUSPECT {incarnation}"
            raise Violation(3, f"{stamp(host)} holds {what}; its claims name {right}")


def _sensible(claim: Claim) -> bool:
    """Return whether the claim is valid; a node drops others."""
    return len(claim.member) == 16 and 0 <= claim.incarnation < _BOUND and 0 <= claim.standing <= Standing.RETIRED
