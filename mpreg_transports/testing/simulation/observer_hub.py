"""The observer hub: a simulation's record of its calls, and the hooks of the watchers that it calls.

Hosts report here what happens. The hub finds the call that a body runs for, over any number of relays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mpreg_proto.client import Reply
from mpreg_proto.effects import Outcome, Run
from mpreg_proto.ids import LinkId
from mpreg_proto.links import Links
from mpreg_proto.notices import LinkClosed, LinkOpened, Notice
from mpreg_proto.requests.relay import NO_ORIGIN
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Host, NodeHost
from mpreg_transports.testing.simulation.network import Endpoint
from mpreg_transports.testing.simulation.trace import Trace
from mpreg_transports.testing.simulation.watchers import Subscriptions, Watcher, hooks, tap_messages

_HOOKS = (
    *("node_started", "timer_due", "event_handled", "node_event_handled", "dispatched", "started", "ended", "noticed"),
    *(
        "produced",
        "taken",
        "items_received",
        "progress_received",
        "submitted",
        "replied",
        "queried",
        "query_answered",
        "own_submitted",
        "own_finished",
    ),
    *("json_sent", "json_answered"),
)


class ObserverHub:
    """The watchers of one simulation. `now` returns its time; `trace` receives the starts and ends of bodies."""

    def __init__(self, watchers: Iterable[Watcher], *, now: Callable[[], int], trace: Trace) -> None:
        self.watchers: tuple[Watcher, ...] = tuple(watchers)
        self.keys: dict[tuple[str, int, int, str], CallKey] = {}
        """The key of each dispatched call, by the coordinator's host and life, the dispatch number and the name."""
        self._now = now
        self._trace = trace
        self._hooks = {hook: hooks(self.watchers, hook) for hook in _HOOKS}
        self._subscriptions = Subscriptions(self.watchers)
        self.current: CallKey | None = None
        """The call that watchers looked at last: placed, started, ended, or the first of an answered request."""
        self._runs: dict[tuple[str, int, int], CallKey] = {}
        self._requests: dict[tuple[str, int, LinkId, int], CallKey] = {}
        """A call of each request, by the coordinator's host and life, and the link and number that it came with."""
        self.callers: dict[tuple[str, int, int], tuple[str, int]] = {}
        """The client of each request of which a call was placed, and its number there, by host, life and request."""
        self._linked: dict[tuple[str, str], tuple[int, int | None, str]] = {}
        """The last link of each node to each peer, by their names: when it opened and closed, and the reason."""

    def hooks(self, name: str) -> list[Callable[..., None]]:
        """Return the overridden hooks of this name in `Watcher`."""
        return self._hooks[name]

    def links_created(self, host: Host, links: Links) -> None:
        """Tap the messages of a process that begins, if a watcher subscribes to messages."""
        if self._subscriptions:
            tap_messages(links, host, self._subscriptions)

    def client_event_hooks(self) -> list[Callable[..., None]]:
        """Return the hooks for each event at a client."""
        return self._hooks["event_handled"]

    def node_event_hooks(self) -> list[Callable[..., None]]:
        """Return the hooks for each event at a node."""
        return [*self._hooks["event_handled"], *self._hooks["node_event_handled"]]

    def node_started(self, host: NodeHost) -> None:
        """Report that a node's life begins."""
        for hook in self._hooks["node_started"]:
            hook(host)

    def dispatches(self, host: NodeHost) -> None:
        """Record the keys of all calls that a coordinator has placed since the last call of this method."""
        coordinator = host.node.coordinator
        if coordinator is not host.coordinator:  # it has a new id, and numbers its requests from 0 again
            host.coordinator = coordinator
            host.era += 1
        for number in coordinator.outstanding.latest(host.last_dispatch):
            for attempt in coordinator.outstanding.by_number(number):
                key = CallKey(host.name, host.life, (host.era << 40) + attempt.execution.id, attempt.call)
                self.keys[host.name, host.life, number, attempt.call] = self.current = key
                execution = attempt.execution
                self._requests[host.name, host.life, execution.link, execution.reply_id] = key
                request = (host.name, host.life, key.request)
                if request not in self.callers and execution.link in host.wires:
                    wire, side = host.wires[execution.link]
                    self.callers[request] = wire.ends[1 - side].host.name, execution.reply_id
                if key.call not in attempt.execution.plan.calls:  # its request ended in the same event: nothing is kept
                    continue
                for hook in self._hooks["dispatched"]:
                    hook(host, key, number)
        host.last_dispatch = coordinator.outstanding.last_number

    def replied(self, host: Host, call: SimCall, reply: Reply) -> None:
        """Report that a client has a reply to a request."""
        for wire, side in host.wires.values():
            peer = wire.ends[1 - side]
            self.current = self._requests.get((peer.host.name, peer.life, peer.link, call.number), self.current)
        for hook in self._hooks["replied"]:
            hook(call, reply)

    def key_of(self, host: NodeHost, run: Run) -> CallKey:
        """Return the key of the call that a run is for."""
        job = host.node.worker.job(run.run)
        assert job is not None, "a run belongs to a job until it has ended"
        name, life, number = host.name, host.life, job.request
        at: Endpoint = host
        link = job.link
        while link != 0:  # back over the relays, to the node that chose this one
            wire, side = at.wires[link]
            peer = wire.ends[1 - side]
            name, life = peer.host.name, peer.life
            came = relayed(peer.host, peer.link, number)
            if came is None or came == NO_ORIGIN:  # a cancelled call is identified by its number here
                break
            at, (link, number) = peer.host, came
        known = self.keys.get((name, life, number, job.call.name))
        return known or CallKey(name, life, -number, job.call.name)

    def started(self, host: NodeHost, run: Run) -> None:
        """Report that a body starts."""
        self._trace.add(self._now(), "run", host.name, "", text=run.function)
        if self.watchers:
            key = self._runs[host.name, host.life, run.run] = self.current = self.key_of(host, run)
            for hook in self._hooks["started"]:
                hook(host, key, run)

    def produced(self, host: NodeHost, run: Run, items: list[Any]) -> None:
        """Report that a generator has produced items."""
        self._trace.add(self._now(), "items", host.name, "", text=f"{run.function} {len(items)}")
        if self.watchers:
            key = self.current = self._runs[host.name, host.life, run.run]
            for hook in self._hooks["produced"]:
                hook(host, key, run, items)

    def taken(self, host: NodeHost, run: Run, items: list[Any]) -> None:
        """Report that a body has taken items of a generator."""
        self._trace.add(self._now(), "taken", host.name, "", text=f"{run.function} {len(items)}")
        if self.watchers:
            key = self.current = self._runs[host.name, host.life, run.run]
            for hook in self._hooks["taken"]:
                hook(host, key, run, items)

    def ended(self, host: NodeHost, run: Run, outcome: Outcome) -> None:
        """Report that a body has ended."""
        self._trace.add(self._now(), "end", host.name, "", text=run.function)
        if self.watchers:
            key = self.current = self._runs.pop((host.name, host.life, run.run))
            for hook in self._hooks["ended"]:
                hook(host, key, run, outcome)

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        """Report a notice of a node."""
        kind = type(notice)
        if kind is LinkOpened:
            self._linked[host.name, notice.peer] = self._now(), None, ""  # type: ignore[union-attr]
        elif kind is LinkClosed:
            opened = self._linked.get((host.name, notice.peer), (0, None, ""))[0]  # type: ignore[union-attr]
            self._linked[host.name, notice.peer] = opened, self._now(), notice.reason  # type: ignore[union-attr]
        for hook in self._hooks["noticed"]:
            hook(host, notice)

    def last_link(self, one: str, other: str) -> str:
        """Return as text when two hosts had their last link, as `one` saw it."""
        found = self._linked.get((one, other))
        if found is None:
            return f"{one} never had a link to {other}"
        opened, closed, reason = found
        if closed is None:
            return f"{one} has a link to {other}, since {opened / SECOND:.6f} s"
        why = f": {reason}" if reason else ""
        return f"{one} had its last link to {other} from {opened / SECOND:.6f} to {closed / SECOND:.6f} s{why}"


def relayed(host: Endpoint, link: LinkId, number: int) -> tuple[LinkId, int] | None:
    """Return the link and number from which `host` relayed a dispatch over `link`.

    None if the dispatch is its own, or if `host` is no node.
    """
    if not isinstance(host, NodeHost) or link not in host.wires:
        return None
    return host.node.relay.origin(link, number)
