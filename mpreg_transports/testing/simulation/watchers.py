"""Watchers, which receive what happens in a simulation: invariants, counters, diagrams. A watcher changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from mpreg_proto.client import Reply
from mpreg_proto.effects import Outcome, Run
from mpreg_proto.ids import LinkId
from mpreg_proto.links import Links
from mpreg_proto.notices import Notice
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import CallProgress, Items, Message, Result
from mpreg_transports.testing.simulation.calls import CallKey, OwnRequest, SimCall, SimQuery
from mpreg_transports.testing.simulation.hosts import Host, JsonClientHost, NodeHost, World


class Watcher:
    """A watcher that does nothing. Override the methods of interest, and raise `Violation` for a forbidden state."""

    message_types: ClassVar[tuple[type, ...]] = ()
    """The types of messages for which `message_received` is called; all if empty. Most watchers need only a few."""

    def begin(self, sim: World) -> None:
        """Called before the simulation starts its nodes."""

    def node_started(self, host: NodeHost) -> None:
        """Called when a node's life begins: the node exists, and holds no other member yet."""

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        """Called when a message has reached a node or a client, before the node or client handles it.

        Only the types in `message_types` are passed; pings and pongs are left out.
        """

    def timer_due(self, host: Host) -> None:
        """Called when a timer of a host is due, before the host handles it."""

    def event_handled(self, host: Host) -> None:
        """Called after an event was handled at `host` and its effects were performed."""

    def node_event_handled(self, host: NodeHost) -> None:
        """The same for nodes only, because few watchers check the state of clients."""

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        """Called when `host`'s coordinator has placed a call in dispatch `number` (see `coordinator.outstanding`)."""

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        """Called when a body starts at `host` for the call `key`."""

    def produced(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        """Called when a generator has produced items, before its node gets them."""

    def taken(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        """Called when a body has taken items of a generator one by one, before its node knows."""

    def items_received(self, call: SimCall, items: Items) -> None:
        """Called when a client has received items of a generator, before it uses any of them."""

    def progress_received(self, call: SimCall, progress: CallProgress) -> None:
        """Called when a client has received the progress of a call."""

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        """Called when a body has ended."""

    def crashed(self, host: NodeHost) -> None:
        """Called when a node's life ends, with its state at that moment."""

    def submitted(self, call: SimCall) -> None:
        """Called when a client has sent a request."""

    def replied(self, call: SimCall, reply: Reply) -> None:
        """Called when a client has received a reply: the last Result, or one of several."""

    def queried(self, query: SimQuery) -> None:
        """Called when a client has sent a query."""

    def query_answered(self, query: SimQuery, reply: Reply) -> None:
        """Called when a client has received the answer to a query."""

    def own_submitted(self, request: OwnRequest) -> None:
        """Called when the process of a node has submitted a request of its own."""

    def own_finished(self, request: OwnRequest, result: Result) -> None:
        """Called when it has received the result."""

    def json_sent(self, host: JsonClientHost, link: LinkId, text: str) -> None:
        """Called when a JSON client has sent a text over a link."""

    def json_answered(self, host: JsonClientHost, link: LinkId, answer: Any) -> None:
        """Called when a JSON client has received a message, decoded."""

    def noticed(self, host: NodeHost, notice: Notice) -> None:
        """Called for each notice of a node."""

    def sweep(self, sim: World) -> None:
        """Called every 1,000 events, and at the end."""

    def settled(self, sim: World) -> None:
        """Called long after the faults have stopped: liveness must hold now."""


def hooks(watchers: Iterable[Watcher], name: str) -> list[Callable[..., None]]:
    """Return the methods `name` of the watchers that override it, so that an event costs nothing for the others."""
    ignored = getattr(Watcher, name)
    return [getattr(watcher, name) for watcher in watchers if getattr(type(watcher), name) is not ignored]


class Subscriptions:
    """The hooks for each type of message, computed once for each type."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = [
            watcher for watcher in watchers if type(watcher).message_received is not Watcher.message_received
        ]
        self._by_type: dict[type, list[Callable[..., None]]] = {}

    def __bool__(self) -> bool:
        """Return whether any watcher receives messages."""
        return bool(self._watchers)

    def hooks_for(self, kind: type) -> list[Callable[..., None]]:
        """Return the hooks for a message of this type."""
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
    """Call the watchers' hooks for each message that `links` passes to its owner, before the owner handles it."""

    def tap(link: LinkId, message: Message | BadRequest) -> None:
        for hook in subscriptions.hooks_for(type(message)):
            hook(host, link, message)

    links.tap = tap


def names_of(watchers: Iterable[Watcher]) -> tuple[str, ...]:
    """Return the classes of watchers as `module:Name`, sorted, each once."""
    return tuple(sorted({f"{type(one).__module__}:{type(one).__qualname__}" for one in watchers}))


class Violation(AssertionError):
    """An invariant does not hold. `invariant` is its number in docs/explanation/testing.md; 0: one of your own.

    `pair` names two hosts whose last link the report shows.
    """

    def __init__(self, invariant: int, text: str, *, pair: tuple[str, str] | None = None) -> None:
        super().__init__(f"invariant {invariant}: {text}" if invariant else text)
        self.invariant = invariant
        self.text = text
        self.pair = pair

    def __reduce__(self) -> tuple[Callable[..., Violation], tuple[object, ...]]:
        """Return how it is pickled: a process of `run_seeds` may raise one as it starts the nodes."""
        return partial(Violation, pair=self.pair), (self.invariant, self.text)
