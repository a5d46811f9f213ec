"""Parts of invariants 5 and 12: a dispatch reaches the member that was chosen, over at most four relays.

The path of a dispatch is followed from the coordinator: over the wire on which it arrives, and at each relay from the
row that leads its answer back. `hops` and `via` in the message itself are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from mpreg_proto.effects import Run
from mpreg_proto.ids import LinkId, MemberId, show
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message, Request
from mpreg_transports.testing.invariants.oracles import attempt_of, stamp
from mpreg_transports.testing.invariants.replies import peer_of
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.observer_hub import relayed
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World

_MOST_RELAYS = 4
"""The most nodes that pass one dispatch on (docs/explanation/membership.md)."""


class _Path(msgspec.Struct, frozen=True):
    """The nodes that a dispatch has passed, the coordinator first, and the member chosen for each of its calls."""

    passed: tuple[tuple[str, int], ...]
    chosen: dict[str, MemberId]


class DispatchRoute(Watcher):
    """Invariants 5 and 12: a dispatch arrives at the member that was chosen, directly or over relays.

    The member that gets a call is the one that placement chose (5). At most four nodes relay it, none of them twice
    (12).
    """

    message_types: ClassVar[tuple[type, ...]] = (Request,)

    def begin(self, sim: World) -> None:
        self._chosen: dict[tuple[str, int, int], dict[str, MemberId]] = {}
        """The members that a coordinator chose for the calls of a dispatch, by host, life and number."""
        self._identities: dict[tuple[str, int], dict[MemberId, None]] = {}
        self._received: dict[tuple[str, int, LinkId, int], _Path] = {}
        """The path of each dispatch that a relay or a worker received, by host, life, link and number."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is None:
            return
        member = attempt.candidate.member
        self._chosen.setdefault((host.name, host.life, number), {})[key.call] = member
        if (attempt.link == 0) != (member == host.node.me):
            where = "itself" if attempt.link == 0 else f"link {attempt.link}"
            raise Violation(5, f"{stamp(host)} gives {key.call!r} to {where}, and chose {show('', member)}")

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        if not isinstance(message, Request) or not isinstance(host, NodeHost) or not message.here:
            return
        path = self._path(host, link, message.id)
        if path is None:
            return
        relays = [name for name, _ in path.passed[1:]]
        if len(relays) > _MOST_RELAYS or (host.name, host.life) in path.passed:
            names = " -> ".join([*(name for name, _ in path.passed), host.name])
            raise Violation(12, f"{stamp(host)} received a dispatch over {len(relays)} relays: {names}")
        self._identities.setdefault((host.name, host.life), {})[host.node.me] = None
        to = message.to or host.node.me
        for call in message.calls:
            chosen = path.chosen.get(call.name)
            if chosen is not None and chosen != to:
                what = f"{call.name!r} for {show('', MemberId(to))} from {path.passed[-1][0]}"
                raise Violation(5, f"{stamp(host)} received {what}; {path.passed[0][0]} chose {show('', chosen)}")
        self._received[host.name, host.life, link, message.id] = path

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        path = None if job is None else self._received.get((host.name, host.life, job.link, job.request))
        if job is None or path is None:
            return
        chosen, mine = path.chosen.get(job.call.name), self._identities[host.name, host.life]
        if chosen is not None and chosen not in mine:
            raise Violation(5, f"{stamp(host)} runs {job.call.name!r}; {path.passed[0][0]} chose {show('', chosen)}")

    def _path(self, host: NodeHost, link: LinkId, number: int) -> _Path | None:
        """Return the path of a dispatch up to `host`; None for a request of a client, or if its sender has ended."""
        peer = peer_of(host, link)
        sender = (peer.host.name, peer.life)
        chosen = self._chosen.get((*sender, number))
        if chosen is not None:
            return _Path((sender,), chosen)
        came = relayed(peer.host, peer.link, number)
        before = None if came is None else self._received.get((*sender, *came))
        return None if before is None else _Path((*before.passed, sender), before.chosen)
