"""Parts of invariants 13 and 14: a silent link ends in time, and a link that carries calls stays open.

The time of the last bytes of a peer is read from the wires of the simulation, the calls on a link from the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpreg_proto.effects import Outcome, Run
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import DEFAULT, Limits
from mpreg_proto.links import Links
from mpreg_proto.notices import LinkClosed, LinkEndCause, MemberChanged, Notice, Standing
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CancelRequest, Done, Failed, Hello, Message, Result
from mpreg_transports.testing.invariants.oracles import attempt_of, stamp
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import ClientHost, Host, NodeHost
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation.calls import CallKey
    from mpreg_transports.testing.simulation.hosts import World
    from mpreg_transports.testing.simulation.network import Wire

_At = tuple[str, int, LinkId]
"""One end of a link: host, life, link."""
_MARGIN = SECOND
"""The most by which the checks of `LinkSilence` come late, and clocks with a drift of 0.1 % differ, together."""
_SLOW = 0.01
"""The drift of a clock from which its timers are not checked."""
_ABANDONED = 3 * SECOND
"""The silence after which a link may be closed whose member answers another node (docs/explanation/membership.md)."""


class LinkSilence(Watcher):
    """Invariant 13: a silent link is given up within 22 s, and one over which bytes come is not.

    A link with calls out on it is pinged after a second. A link without a hello is given up within 5 s. A process that
    was stalled at that time has 2.5 s more, because what has arrived may still be unread.
    """

    message_types: ClassVar[tuple[type, ...]] = (Hello,)

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._next = 0
        self._opened: dict[_At, int] = {}
        """The time at which an end of a link was first seen."""
        self._received: dict[_At, int] = {}
        """The time at which the last data had arrived, as far as it was seen."""
        self._busy: dict[_At, int] = {}
        """Since when calls are out on a link, as far as it was seen."""
        self._greeted: dict[_At, None] = {}

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        self._greeted[host.name, host.life, link] = None

    def node_event_handled(self, host: NodeHost) -> None:
        if self._sim.now >= self._next:
            self._next = self._sim.now + SECOND // 2
            self._look()

    def _look(self) -> None:
        now = self._sim.now
        hosts: list[NodeHost | ClientHost] = [*self._sim.nodes.values(), *self._sim.clients.values()]
        for host in hosts:
            if not host.alive or host.stalled_until > now or abs(host.clock.drift) > _SLOW:
                continue
            links, limits = _links(host)
            for link, (wire, side) in host.wires.items():
                at = (host.name, host.life, link)
                opened = self._opened.setdefault(at, now)
                received = self._last_received(host, at, wire, side)
                if link not in links.sessions or links.sessions[link].classic or not wire.ends[side].opened:
                    continue
                silent = max(opened, received, wire.last[1 - side], wire.free[side])
                if now > _due(silent + limits.gone_after, host, limits) + _MARGIN:
                    said = f"link {link}, which was silent for {(now - silent) / SECOND:g} s"
                    raise Violation(13, f"{_stamp(host)} keeps {said}")
                self._check_busy(host, at, silent, wire.last[side])
                if at not in self._greeted and now > _due(opened + limits.handshake, host, limits) + _MARGIN:
                    raise Violation(13, f"{_stamp(host)} keeps link {link} for {(now - opened) / SECOND:g} s, no hello")

    def _check_busy(self, host: NodeHost | ClientHost, at: _At, *since: int) -> None:
        """Check that a link with calls out is pinged a second after the latest of these times, and of those calls."""
        link, (links, limits) = at[2], _links(host)
        if not _carries_calls(host, link):
            self._busy.pop(at, None)
            return
        began = max(*since, self._busy.setdefault(at, self._sim.now), host.stalled_until)
        if self._sim.now > began + limits.ping_busy + _MARGIN and not links.sessions[link].keepalive_sent:
            raise Violation(13, f"{_stamp(host)} does not ping link {link}, on which calls are out")

    def _last_received(self, host: Host, at: _At, wire: Wire[Host], side: int) -> int:
        """Return when the last data was read: what came during a stall is read at its end."""
        came = wire.last[1 - side]
        received = self._received.get(at, 0)
        if received < came <= self._sim.now:
            received = self._received[at] = max(came, min(host.stalled_until, self._sim.now))
        return received

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is not LinkClosed or notice.cause not in (LinkEndCause.SILENT, LinkEndCause.UNRESPONSIVE):
            return
        found = host.wires.get(notice.link)
        limit = host.spec.limits.gone_after if notice.cause is LinkEndCause.SILENT else _ABANDONED
        now = self._sim.now
        if found is None or abs(host.clock.drift) > _SLOW or host.stalled_until > now - limit:
            return
        wire, side = found
        silent = now - self._last_received(host, (host.name, host.life, notice.link), wire, side)
        if silent < limit * 99 // 100 and wire.ends[side].unread is None:
            raise Violation(13, f"{stamp(host)} gave up link {notice.link} as silent after {silent / SECOND:g} s")


def _links(host: NodeHost | ClientHost) -> tuple[Links, Limits]:
    return (host.node.links, host.spec.limits) if isinstance(host, NodeHost) else (host.session.links, DEFAULT)


def _carries_calls(host: NodeHost | ClientHost, link: LinkId) -> bool:
    """Return whether calls or requests that this host has sent over a link are open."""
    if isinstance(host, NodeHost):
        return bool(host.node.coordinator.outstanding.by_link(link))
    return any(pending.link == link for pending in host.session._pending.values())


def _stamp(host: Host) -> str:
    return stamp(host) if isinstance(host, NodeHost) else f"{host.name} at {host.sim.time:.6f} s"


def _due(at: int, host: Host, limits: Limits) -> int:
    """Return when a timer for `at` has surely ended a link of `host`."""
    return max(at, host.stalled_until + limits.gone_after // 8)


class LinkRetention(Watcher):
    """Invariant 14: no node closes a link on purpose while calls are out on it, or run for its other end."""

    message_types: ClassVar[tuple[type, ...]] = (Hello, Result, CancelRequest)

    def begin(self, sim: World) -> None:
        self._identities: dict[_At, MemberId] = {}
        self._out: dict[_At, dict[int, dict[str, MemberId]]] = {}
        """The calls without an answer, by the coordinator's end of the link and the dispatch, each with its member."""
        self._running: dict[_At, dict[int, tuple[int, str]]] = {}
        """The dispatch and name of each running call that nobody cancelled, by the worker's end of the link and run."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        attempt = attempt_of(host.node.coordinator, number, key.call)
        if attempt is not None and attempt.link != 0:
            out = self._out.setdefault((host.name, host.life, attempt.link), {})
            out.setdefault(number, {})[key.call] = attempt.candidate.member

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        at = (host.name, host.life, link)
        if isinstance(message, Result):
            out = self._out.get(at)
            calls = out.get(message.id) if out else None
            if out and calls is not None:
                rows: tuple[Done | Failed, ...] = (*message.done, *message.failed)
                for row in rows:
                    calls.pop(row.name, None)
                if message.last or not calls:
                    del out[message.id]
        elif isinstance(message, CancelRequest):
            running = self._running.get(at, {})
            for run in [run for run, (number, _) in running.items() if number == message.id]:
                del running[run]
        elif isinstance(host, NodeHost):
            self._identities[at] = host.node.me

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        if job is not None and job.link != 0:
            running = self._running.setdefault((host.name, host.life, job.link), {})
            running[run.run] = job.request, job.call.name

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        job = host.node.worker.job(run.run)
        if job is not None and job.link != 0:
            self._running.get((host.name, host.life, job.link), {}).pop(run.run, None)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        if type(notice) is MemberChanged and notice.standing > Standing.SUSPECT:
            self._forget(host, notice.member)
        elif type(notice) is LinkClosed:
            at = (host.name, host.life, notice.link)
            out, running = self._out.pop(at, {}), self._running.pop(at, {})
            by_itself = notice.link in host.wires and notice.cause is LinkEndCause.ORDERLY
            if (out or running) and by_itself and not host.node.left and self._identities.get(at) == host.node.me:
                calls = [name for names in out.values() for name in names] + [name for _, name in running.values()]
                raise Violation(14, f"{stamp(host)} closes link {notice.link} while {calls[:5]} are out on it")

    def _forget(self, host: NodeHost, member: MemberId) -> None:
        """Forget the calls at a lost member: they are given up with it."""
        for (name, life, _), out in self._out.items():
            if (name, life) == (host.name, host.life):
                for number, calls in list(out.items()):
                    if member in calls.values():
                        del out[number]
