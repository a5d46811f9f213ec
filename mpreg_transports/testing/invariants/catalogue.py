"""Invariant 4: a replica's content at (member, version) is what its owner had then (docs/explanation/membership.md).

The entries of each owner are recorded version by version as they change, and hashed in this module. The entries of each
replica are hashed again whenever its version or hash has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.cluster.catalogue import Content
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.notices import CatalogueChanged, Notice
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Delta, Gossip, Message
from mpreg_transports.testing.invariants.oracles import Life, content_hash, entries, life, offers, stamp
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.hosts import World


class ReplicaConsistency(Watcher):
    """Invariant 4, as the module describes.

    Also checks that the functions and the offering members that a node derives from the entries agree with the entries.
    """

    message_types: ClassVar[tuple[type, ...]] = (Gossip,)

    def begin(self, sim: World) -> None:
        self._written: dict[bytes, dict[str, bytes]] = {}
        """The entries of each owner at its newest version."""
        self._hashes: dict[bytes, dict[int, int]] = {}
        """The hash of each owner at each version that it had."""
        self._checked: dict[tuple[Life, bytes], tuple[int, int]] = {}
        self._about: dict[str, dict[bytes, None]] = {}
        self._verified: dict[str, object] = {}
        """The tables of each host that were right when they were last compared."""

    def node_started(self, host: NodeHost) -> None:
        self._write_down(host)

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if type(message) is Gossip:
            about = self._about.setdefault(host.name, {})
            for delta in message.deltas:
                about[delta.head.member] = None
                _no_gaps(host, link, delta)
            for head in message.heads:
                about[head.member] = None

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is CatalogueChanged:
            self._about.setdefault(host.name, {})[notice.member] = None

    def crashed(self, host: NodeHost) -> None:
        self._write_down(host)

    def node_event_handled(self, host: NodeHost) -> None:
        self._write_down(host)
        about = self._about.pop(host.name, None) if self._about else None
        if about is not None:
            self._look(host, about)

    def sweep(self, sim: World) -> None:
        alive = [host for host in sim.nodes.values() if host.alive]
        for host in alive:  # a host without an event so far is not recorded yet
            self._write_down(host)
        for host in alive:
            now = sim.tables.catalogues(host)
            if self._verified.get(host.name) is not now:
                self._look(host, list(host.node.cluster.catalogue._contents))
                self._verified[host.name] = now

    def _write_down(self, host: NodeHost) -> None:
        """Record the new entries of the node's own content."""
        me = host.node.me
        content = host.node.cluster.catalogue.content(me)
        hashes = self._hashes.get(me)
        if hashes is None:
            hashes = self._hashes[me] = {0: 0}
        if content is None or content.version in hashes:
            return
        written = self._written.setdefault(me, {})
        if content.changes and content.changes[0].version > max(hashes) + 1:
            # More changes in one event than a node keeps (Limits.changes): what they made is read from the entries.
            written.clear()
            written.update(entries(content))
            hashes[content.version] = content_hash(written)
        for change in content.changes:
            if change.version not in hashes:
                written.pop(change.key, None)
                if change.entry:
                    written[change.key] = change.entry
                hashes[change.version] = content_hash(written)
        if entries(content) != written or content.hash != hashes.get(content.version):
            raise Violation(4, f"{stamp(host)}: its own catalogue at {content.version} is not what it was changed to")
        self._read_right(host, content)

    def _look(self, host: NodeHost, about: Iterable[bytes]) -> None:
        for member in about:
            content = host.node.cluster.catalogue.content(MemberId(member))
            if content is None:
                continue
            key, now = (life(host), member), (content.version, content.hash)
            if self._checked.get(key) == now:
                continue
            self._checked[key] = now
            own = content_hash(entries(content))
            owners = self._hashes.get(member, {}).get(content.version)
            if own != content.hash or own != owners:
                theirs = "nothing of that version" if owners is None else f"hash {owners:032x}"
                raise Violation(
                    4,
                    f"{stamp(host)} holds the catalogue of {show('', member)} at {content.version} "
                    f"with hash {own:032x} and says {content.hash:032x}; its owner had {theirs}",
                )
            self._read_right(host, content)

    def _read_right(self, host: NodeHost, content: Content) -> None:
        """Check what the node derived from the entries."""
        says = offers(entries(content))
        read = {
            name: (one.version, frozenset(one.resources), one.idempotent) for name, one in content.functions.items()
        }
        meant = {name: (one.version, one.resources, one.idempotent) for name, one in says.functions.items()}
        offering = host.node.cluster.catalogue.offering
        listed = all(content.member in offering.get(name, ()) for name in meant)
        if (
            read != meant
            or frozenset(content.resources) != says.resources
            or content.draining != says.draining
            or not listed
        ):
            raise Violation(
                4, f"{stamp(host)} reads the catalogue of {show('', content.member)} otherwise than it is written"
            )


def _no_gaps(host: Host, link: LinkId, delta: Delta) -> None:
    """Check that a delta contains each change since its first version exactly once."""
    versions = [change.version for change in delta.changes]
    if delta.since and versions != list(range(delta.since + 1, delta.head.version + 1)):
        served = f"{versions[:5]} as the changes of {show('', MemberId(delta.head.member))}"
        raise Violation(4, f"{host.name} received {served} from {delta.since} to {delta.head.version} over link {link}")
