"""Parts of invariants 7, 8, 10 and 12: the items of generators, and the progress of calls.

Each watcher keeps a ledger of what each body has produced, by the key of its call, and compares what clients receive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpreg_proto.effects import Outcome, Returned, Run
from mpreg_proto.ids import RequestId
from mpreg_proto.wire.messages import CallProgress, Items, Result
from mpreg_transports.testing.invariants.execution import RequestKey, request_of, source_of
from mpreg_transports.testing.invariants.oracles import stamp
from mpreg_transports.testing.simulation.calls import CallKey, SimCall
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.request_names import name_of_call
from mpreg_transports.testing.simulation.watchers import Violation, Watcher
from mpreg_transports.values import default_codec

if TYPE_CHECKING:
    from mpreg_proto.client import Reply
    from mpreg_transports.testing.simulation.hosts import World

_WINDOW = 16
"""The most items of a generator that may be on their way to its consumer."""
_PER_SECOND = 10
"""The most messages about the progress of a call in a second, beside the last one."""


class _Body:
    """One run of a generator: its encoded items, and whether it has ended by itself."""

    __slots__ = ("items", "whole")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.whole = False


class StreamedItems(Watcher):
    """A client gets the items of one body in order, none twice and none missing before the end (7, 8).

    No body starts after it has received an item (10). At most 16 items wait for it (12).
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._bodies: dict[CallKey, dict[tuple[str, int, int], _Body]] = {}
        """The bodies of each call of a generator, by host, life and run."""
        self._requests: dict[tuple[str, int], RequestKey] = {}
        """The request at its coordinator, by client and number there."""
        self._calls: dict[RequestKey, SimCall] = {}

    def dispatched(self, host: NodeHost, key: CallKey, number: int) -> None:
        caller = self._sim.observers.callers.get(request_of(key))
        if caller is not None:
            self._requests[caller] = request_of(key)

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        if not run.demand:
            return
        call = self._call_of(key)
        if call is not None and call.items.get(key.call) and not call.done():
            raise Violation(10, f"{stamp(host)} starts {key.call!r} again, of which its caller has items")
        self._bodies.setdefault(key, {})[host.name, host.life, run.run] = _Body()

    def produced(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        body = self._bodies[key][host.name, host.life, run.run]
        for item in items:
            try:
                body.items.append(default_codec().encode(item))
            except Exception:
                return
        call = self._call_of(key)
        if call is None or key.call not in call.request.streams or not _is_stream(call, key.call):
            return
        ahead = len(body.items) - call.taken.get(key.call, 0)
        if ahead > _WINDOW:
            raise Violation(12, f"{stamp(host)} has {ahead} items of {key.call!r} that its consumer has not used")

    def ended(self, host: NodeHost, key: CallKey, run: Run, outcome: Outcome) -> None:
        body = self._bodies.get(key, {}).get((host.name, host.life, run.run))
        if body is not None and isinstance(outcome, Returned):
            body.whole = True

    def items_received(self, call: SimCall, items: Items) -> None:
        who = f"item of {items.call!r} of {name_of_call(self._sim, call)} at {self._sim.time:.6f} s"
        if not items.values or not _is_stream(call, items.call):
            raise Violation(7, f"the {who} is none that was asked for")
        received = [*call.items.get(items.call, ()), *items.values]
        if not any(body.items[: len(received)] == received for body in self._of(call, items.call)):
            raise Violation(8, f"the {who} does not follow the {len(received) - len(items.values)} before it")

    def replied(self, call: SimCall, reply: Reply) -> None:
        if not isinstance(reply, Result) or not call.request.streams:
            return
        for row in reply.done:
            received = call.items.get(row.name, [])
            text = f"the items of {row.name!r} of {name_of_call(self._sim, call)} at {self._sim.time:.6f} s"
            if row.value and received:
                raise Violation(7, f"{text} came one by one, and its result too")
            whole = [body for body in self._of(call, row.name) if body.whole]
            if not row.value and not any(body.items == received for body in whole):
                raise Violation(8, f"{text} are {len(received)}, and no body has produced just these")

    def _of(self, call: SimCall, name: str) -> list[_Body]:
        request = self._requests.get((call.client, call.number))
        return [] if request is None else list(self._bodies.get(CallKey(*request, name), {}).values())

    def _call_of(self, key: CallKey) -> SimCall | None:
        request = request_of(key)
        call = self._calls.get(request)
        if call is None and (caller := self._sim.observers.callers.get(request)) is not None:
            found = [one for one in self._sim.calls[::-1] if (one.client, one.number) == caller]
            if found:
                call = self._calls[request] = found[0]
        return call


class ConsumedItems(Watcher):
    """A call that takes the items of a generator gets those of one body in order, none twice and none missing (8).

    At most 16 wait for it (12), also before it starts: so it starts before the generator produces its 17th.
    """

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._produced: dict[CallKey, dict[_BodyKey, list[bytes]]] = {}
        """The items of each body of a generator whose items are sent one by one."""
        self._taken: dict[CallKey, dict[_BodyKey, list[bytes]]] = {}
        """The items that each body has taken, by the call of the generator."""
        self._sources: dict[_BodyKey, CallKey] = {}
        """The generator of each body that takes items."""

    def started(self, host: NodeHost, key: CallKey, run: Run) -> None:
        job = host.node.worker.job(run.run)
        body = host.name, host.life, run.run
        if run.demand and job is not None and job.streamed:
            self._produced.setdefault(key, {})[body] = []
        if (source := source_of(host, run)) is not None:
            self._sources[body] = generator = CallKey(key.host, key.life, key.request, source)
            self._taken.setdefault(generator, {})[body] = []

    def produced(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        mine = self._produced.get(key, {}).get((host.name, host.life, run.run))
        if mine is None or not _extend(mine, items):
            return
        ahead = len(mine) - max(map(len, self._taken.get(key, {}).values()), default=0)
        if ahead > _WINDOW and self._has_consumer(key):
            raise Violation(12, f"{stamp(host)} has {ahead} items of {key.call!r} that the call for them has not taken")

    def taken(self, host: NodeHost, key: CallKey, run: Run, items: list[Any]) -> None:
        body = host.name, host.life, run.run
        generator = self._sources[body]
        mine = self._taken[generator][body]
        _extend(mine, items)
        sources = self._produced.get(generator, {}).values()
        if not any(source[: len(mine)] == mine for source in sources):
            before = len(mine) - len(items)
            raise Violation(8, f"{stamp(host)}: {key.call!r} takes an item that does not follow the {before} before it")

    def _has_consumer(self, key: CallKey) -> bool:
        """Return whether a call takes the items of a generator one by one, or is to."""
        node = self._sim.nodes[key.host].node
        execution = node.coordinator.requests.get(RequestId(key.request & _NUMBER))
        if execution is None or self._sim.nodes[key.host].life != key.life:
            return False
        stream = execution.item_feeds.get(key.call)
        return stream is not None and execution.fed.get(stream.consumer) is stream


_BodyKey = tuple[str, int, int]
"""A body: host, life, run."""
_NUMBER = (1 << 40) - 1
"""The bits of the request of a key that are its id at its coordinator."""


def _extend(known: list[bytes], items: list[Any]) -> bool:
    """Add items as they are sent. Return False if one cannot be."""
    try:
        known += [default_codec().encode(item) for item in items]
    except Exception:
        return False
    return True


def _is_stream(call: SimCall, name: str) -> bool:
    """Return whether a client is to get the items of a call one by one: nothing depends on it, and it is wanted."""
    request = call.request
    needed = any(name in one.dependencies for one in request.calls)
    return name in request.streams and not needed and (request.want is None or name in request.want)


class CallProgressReports(Watcher):
    """The progress of a call reaches only clients that want it, before its result, ten times a second (7, 12)."""

    def begin(self, sim: World) -> None:
        self._sim = sim
        self._times: dict[tuple[int, str], list[int]] = {}
        """The times of the messages, by the label of the request and the call."""

    def progress_received(self, call: SimCall, progress: CallProgress) -> None:
        who = f"the progress of {progress.call!r} of {name_of_call(self._sim, call)} at {self._sim.time:.6f} s"
        if not call.request.progress or progress.call not in [one.name for one in call.request.calls]:
            raise Violation(7, f"{who} was not asked for")
        if call.done() or any(row.name == progress.call for part in call.parts for row in part.done):
            raise Violation(7, f"{who} came after its result")
        earlier = [one for one in call.progress if one.call == progress.call and one.node == progress.node]
        begins = bool(earlier) and progress.done <= earlier[0].done  # it was started again there
        if earlier and not begins and progress.done < earlier[-1].done and progress.function == "spool":
            raise Violation(8, f"{who} is {progress.done} after {earlier[-1].done}")
        times = self._times.setdefault((call.label, progress.call), [])
        times.append(self._sim.now)

    def replied(self, call: SimCall, reply: Reply) -> None:
        """Check the rate: links may join what was sent apart, so it holds over the whole call."""
        if not isinstance(reply, Result) or not reply.last:
            return
        for name in [one.name for one in call.request.calls]:
            times = self._times.pop((call.label, name), [])
            most = (self._sim.now - call.sent) * _PER_SECOND / SECOND
            if len(times) > most * _SKEW + _STARTS:
                raise Violation(
                    12, f"{name_of_call(self._sim, call)}: {len(times)} reports of {name!r}, at most {most}"
                )


_STARTS = 8
"""Each start of a call may send its first and its last report at any time."""
_SKEW = 1.5
"""A worker's clock may run faster than that of the simulation."""
