"""The items of a generator on their way to the call that takes them while the generator runs.

The coordinator opens an `ItemFeed` when it dispatches a generator that has such a dependent, its consumer. The items
come from the generator's node and go on to the consumer's, at most 16 of them unused on the whole way. Until the
consumer has taken one, all are kept, so that it can be placed elsewhere. If others need the list, the items are also
collected. Without a consumer that takes them the generator goes on only if the list is needed. Values are opaque here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpreg_proto.wire.expansion import is_whole_argument
from mpreg_proto.wire.messages import Call, ItemsParameter
from mpreg_proto.wire.values import join_items


class ItemFeed:
    """The items of one run of the call `generator`, for the call `consumer`. The methods alone change it."""

    __slots__ = (
        "_accepted",
        "_collected",
        "_kept",
        "_taken",
        "consumer",
        "ended",
        "generator",
        "received",
        "source",
        "started",
        "target",
    )

    def __init__(self, generator: str, consumer: str, *, list_needed: bool) -> None:
        self.generator: str = generator
        self.consumer: str = consumer
        self.source: int = 0
        """The number of the dispatch of the generator."""
        self.target: int = 0
        """The number of the newest dispatch of the consumer; 0 if there was none."""
        self.received: int = 0
        """The number of items so far."""
        self.started: bool = False
        """True if the consumer has taken an item: it cannot start again."""
        self.ended: bool = False
        """True if the generator has ended."""
        self._taken = 0
        self._kept: list[bytes] = []
        """All items so far, until the consumer takes the first."""
        self._collected: bytearray | None = bytearray() if list_needed else None
        """The bytes of all items, if the list is needed."""
        self._accepted: dict[ItemsParameter, bool] = {}

    def accepts(self, call: Call, parameter: ItemsParameter | None) -> bool:
        """Return whether `call`, the consumer, can take the items by that parameter of its function."""
        if parameter is None:
            return False
        if parameter not in self._accepted:
            self._accepted[parameter] = is_whole_argument(call.args, parameter, self.generator)
        return self._accepted[parameter]

    @property
    def list_needed(self) -> bool:
        """True if the items are collected as a list."""
        return self._collected is not None

    @property
    def size(self) -> int:
        """The bytes of the items that are kept and collected."""
        return sum(map(len, self._kept)) + (0 if self._collected is None else len(self._collected))

    @property
    def list_size(self) -> int:
        """The bytes of the collected list."""
        return 0 if self._collected is None else len(self._collected)

    @property
    def kept(self) -> tuple[bytes, ...]:
        """All items so far if the consumer has taken none, for its dispatch."""
        return tuple(self._kept)

    def receive(self, items: Sequence[bytes]) -> None:
        """Add the next items of the generator."""
        self.received += len(items)
        if not self.started:
            self._kept += items
        if self._collected is not None:
            for item in items:
                self._collected += item

    def take(self, count: int) -> int:
        """Record that the consumer has taken `count` items. Returns how many new ones the generator may produce."""
        more = max(0, min(count, self.received - self._taken))
        if more:
            self.started = True
            self._kept.clear()
        self._taken += more
        return more

    def use_all(self) -> int:
        """Record that no consumer takes the items any more. Returns how many new ones the generator may produce."""
        return self.take(self.received)

    def become_list(self) -> int:
        """Collect the items from now on for the consumer too, which has taken none. Returns as `use_all`."""
        if self._collected is None:
            self._collected = bytearray(b"".join(self._kept))
        return self.use_all()

    def joined(self) -> bytes:
        """Return the encoded list of all items. Raises ValueTooLarge if it is over a limit of values."""
        data = bytearray(b"".join(self._kept)) if self._collected is None else self._collected
        return join_items(data, self.received)


def waits_for_itself(
    generator: str,
    consumer: str,
    *,
    dependencies: Mapping[str, Sequence[str]],
    streams: Mapping[str, ItemFeed],
    fed: Mapping[str, ItemFeed],
) -> bool:
    """Return whether `generator` could wait for ever if `consumer` took its items one by one.

    It waits with 16 items until the consumer starts, and that waits for its other dependencies. So none of these may
    need the end of the generator, directly or through other `streams`, of which `fed` are those by consumer. Ended
    calls count too.
    """
    seen: dict[str, None] = {consumer: None}
    waiting = [name for name in dependencies.get(consumer, ()) if name != generator]
    while waiting:
        name = waiting.pop()
        if name == generator:
            return True
        if name in seen:
            continue
        seen[name] = None
        source = fed[name].generator if name in fed else None
        waiting += [one for one in dependencies.get(name, ()) if one != source]
        if name in streams:
            waiting.append(streams[name].consumer)
    return False
