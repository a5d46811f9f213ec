"""What a simulation tells those who watch it: invariants, counters, diagrams. A watcher changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from mpreg_proto.client import Reply
from mpreg_proto.effects import Outcome, Run
from mpreg_proto.ids import LinkId
from mpreg_proto.links import Links
from mpreg_proto.notices import Notice
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.hosts import Host, NodeHost, World


class Watcher:
    """Does nothing; override what is of interest. Raise `Violation` for what must not be."""

    message_types: ClassVar[tuple[type, ...]] = ()
    """Of which kinds of messages `message_received` is called; of all if empty. Most watchers care for a few."""

    def begin(self, sim: World) -> None:
        """The simulation is about to start its nodes."""

    def node_started(self, host: NodeHost) -> None:
        """A node's life begins: it is there, and knows nobody yet."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        """A message has reached a node or a client, which has not looked at it yet; pings and pongs are left out.

        Only of the kinds in `message_types`.
        """

    def timer_due(self, host: Host) -> None:
        """A timer of a host has come; it is about to look."""

    def event_handled(self, host: Host) -> None:
        """An event was handled at `host`; its effects have been carried out."""

    def node_event_handled(self, host: NodeHost) -> None:
        """The same of nodes alone: what clients hold is of interest to few."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        """`host`'s coordinator has placed a call, in dispatch `number`; see its `coordinator.outstanding`."""

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        """A body starts at `host` for the call `key`."""

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        """A body has ended."""

    def crashed(self, host: NodeHost) -> None:
        """A node's life is over, its state as it was at that moment."""

    def submitted(self, call: SimCall) -> None:
        """A client has sent a request."""

    def replied(self, call: SimCall, reply: Reply) -> None:
        """Something came of a request; a last Result, or one of several."""

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        """A node has told something worth telling."""

    def sweep(self, sim: World) -> None:
        """Every 1,000 events, and at the end."""

    def settled(self, sim: World) -> None:
        """Faults have stopped long ago: liveness must hold now."""


def hooks(watchers: Iterable[Watcher], name: str) -> list[Callable[..., None]]:
    """The methods `name` of those who override it: an event costs nothing for the others."""
    ignored = getattr(Watcher, name)
    return [getattr(watcher, name) for watcher in watchers if getattr(type(watcher), name) is not ignored]


class Subscriptions:
    """Who hears of which kind of message; worked out once a kind."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = [
            watcher for watcher in watchers if type(watcher).message_received is not Watcher.message_received
        ]
        self._by_type: dict[type, list[Callable[..., None]]] = {}

    def __bool__(self) -> bool:
        """Whether anybody hears of anything."""
        return bool(self._watchers)

    def hooks_for(self, kind: type) -> list[Callable[..., None]]:
        """Whom to tell of a message of that kind."""
        hooks = self._by_type.get(kind)
        if hooks is None:
            hooks = [
                watcher.message_received
                for watcher in self._watchers
                if not watcher.message_types or kind in watcher.message_types
            ]
            self._by_type[kind] = hooks
        return hooks


def tap_messages(links: Links, host: Host, subscriptions: Subscriptions) -> None:
    """Call the watchers' hooks for each message that `links` gives to its owner, before the owner looks at it."""

    def tap(link: LinkId, message: Message | BadRequest) -> None:
        for hook in subscriptions.hooks_for(type(message)):
            hook(host, link, message)

    links.tap = tap


class Violation(AssertionError):
    """An invariant does not hold. `invariant` is its number in docs/explanation/testing.md, or 0."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(f"invariant {invariant}: {text}")
        self.invariant = invariant
        self.text = text
