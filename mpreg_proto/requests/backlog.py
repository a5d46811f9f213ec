"""The backlog: ready calls that wait until a member takes another call of their function, in a fair order.

A worker takes as many calls of a function as it has slots, and as many again; it refuses the others. So the backlog
waits here, at the coordinator, where it is cheap to cancel and not bound to a member. `Credits` holds how many calls
each member takes, `Backlog` the calls that wait, and `Pace` the speed at which calls of a function end.

Among the clients of a function the one that has used the least time is next (used_time.py); among the calls of one
client the one with the earliest deadline. A request is not admitted if the oldest call of its function has waited for
too long over a whole interval (CoDel, RFC 8289), unless its own client would not wait, or nobody else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

import msgspec

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.requests.used_time import UsedTime

CallKey = tuple[RequestId, str]
Requirement = tuple[str, tuple[str, ...], str | None, CallKey | None]
"""Function, resources and version; and the call itself, if earlier attempts restrict the members that may run it."""

TARGET = 100 * MILLISECOND
"""The wait that is no sign of overload. A function whose calls take longer has its median runtime in place of it."""
INTERVAL = SECOND
"""The time over which every wait is longer than the target in an overload; ten targets if those are longer."""
POLL = 250 * MILLISECOND
"""The period at which members are tried again that refuse calls, and the time for which a worker keeps a place."""


class Credits:
    """The number of calls of a function that a member takes from this coordinator.

    It is what the member announces (`Candidate.capacity`), until it refuses a call: then as many as it has at that
    moment, and one more with each call that ends there, and with each `Credit` from it.
    """

    __slots__ = ("_out", "_windows")

    def __init__(self) -> None:
        self._out: dict[tuple[MemberId, str], int] = {}
        """The own calls at a member, by function."""
        self._windows: dict[tuple[MemberId, str], int] = {}
        """The number of calls of a function that a member takes, since it has refused one."""

    def sent(self, member: MemberId, function: str) -> None:
        """Record that a call was dispatched."""
        key = (member, function)
        self._out[key] = self._out.get(key, 0) + 1

    def ended(self, member: MemberId, function: str) -> None:
        """Record that a call is no longer at that member."""
        key = (member, function)
        left = self._out.get(key, 0) - 1
        if left > 0:
            self._out[key] = left
        else:
            self._out.pop(key, None)

    def refused(self, member: MemberId, function: str) -> None:
        """Record that a member had no place for a call, which `ended` has removed."""
        key = (member, function)
        self._windows[key] = self._out.get(key, 0)

    def returned(self, member: MemberId, function: str, capacity: int) -> None:
        """Record that a call has ended at a member, so that it has a place again."""
        if self._windows:
            key = (member, function)
            window = self._windows.get(key)
            if window is not None:
                if capacity <= 0 or window + 1 < capacity:
                    self._windows[key] = window + 1
                else:
                    del self._windows[key]

    def granted(self, member: MemberId, function: str) -> None:
        """Record that a member has a place for one more call than it has."""
        key = (member, function)
        if key in self._windows:
            self._windows[key] = max(self._windows[key], self._out.get(key, 0) + 1)

    def poll(self, function: str) -> None:
        """Let each member that refuses calls of a function get one more than it has."""
        for key, window in self._windows.items():
            if key[1] == function:
                self._windows[key] = max(window, self._out.get(key, 0) + 1)

    def forget(self, member: MemberId) -> None:
        """Forget a member that is DEAD or LEFT."""
        for key in [key for key in self._windows if key[0] == member]:
            del self._windows[key]

    def allows(self, candidate: Candidate, function: str) -> bool:
        """Return whether a candidate takes another call of a function."""
        key = (candidate.member, function)
        window = self._windows.get(key) if self._windows else None
        if window is None:
            window = candidate.capacity
            if window <= 0:
                return True
        return self._out.get(key, 0) < window

    def allowed(self, candidates: Sequence[Candidate], function: str) -> Sequence[Candidate]:
        """Return the candidates that take another call. Suspects are not among them while others only have no place."""
        if len(candidates) == 1:
            return candidates if self.allows(candidates[0], function) else ()
        if any(one.suspect for one in candidates):
            candidates = [one for one in candidates if not one.suspect] or candidates
        return [one for one in candidates if self.allows(one, function)]


class Pace:
    """The pace of one function: the median of the last runtimes of its calls, and the gaps between their ends."""

    __slots__ = ("_ends", "_median", "_ran")

    def __init__(self) -> None:
        self._ran: deque[int] = deque(maxlen=15)
        self._ends: deque[int] = deque(maxlen=16)
        self._median: int | None = None

    def ran(self, span: int, now: int, *, busy: bool) -> None:
        """Record the end of a call that ran for so long; gaps count while the function is `busy`."""
        self._ran.append(span)
        self._median = None
        if busy:
            self._ends.append(now)
        elif self._ends:
            self._ends.clear()

    @property
    def median(self) -> int:
        """The median of the last runtimes in ns; 0 before the fifth."""
        if self._median is None:
            self._median = sorted(self._ran)[(len(self._ran) - 1) // 2] if len(self._ran) >= 5 else 0
        return self._median

    @property
    def gap(self) -> int:
        """The mean time between two ends in ns; 0 before the fifth."""
        ends = self._ends
        return (ends[-1] - ends[0]) // (len(ends) - 1) if len(ends) >= 5 else 0


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """A call in the backlog. `number` is that of its row in a heap."""

    number: int
    requirement: Requirement
    client: LinkId
    since: int


class _Flow(msgspec.Struct):
    """The waiting calls of one client with one requirement: a heap by deadline, with rows of some calls that left."""

    heap: list[tuple[int, int, CallKey]]
    count: int = 0


class _Queue(msgspec.Struct):
    """The waiting calls of one function."""

    calls: dict[CallKey, int]
    """In the order of their arrival, each with its time."""
    clients: dict[LinkId, int]
    """The number of waiting calls of each client."""
    used: UsedTime[LinkId]
    flows: dict[Requirement, dict[LinkId, _Flow]]
    turns: dict[Requirement, list[tuple[int, int, int, LinkId]]]
    """The clients of each requirement by used time: a heap, which may have rows that are no longer true."""
    above: int | None = None
    """Since when the oldest call has always waited for longer than the target."""


class Backlog:
    """The calls that wait for a place, by function, requirement and client."""

    __slots__ = ("_calls", "_number", "_overloads", "_paces", "_queues")

    def __init__(self) -> None:
        self._calls: dict[CallKey, _Waiting] = {}
        self._queues: dict[str, _Queue] = {}
        self._number = 0
        self._overloads: dict[str, int] = {}
        """The time of the last refusal of a call of a function in an overload."""
        self._paces: dict[str, Pace] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, key: object) -> bool:
        return key in self._calls

    def add(self, key: CallKey, requirement: Requirement, *, client: LinkId, deadline: int, now: int) -> None:
        """Add a call, which must not be in it."""
        assert key not in self._calls, "a call waits once"
        self._number += 1
        function = requirement[0]
        queue = self._queues.get(function)
        if queue is None:
            queue = self._queues[function] = _Queue({}, {}, UsedTime(), {}, {})
        if client not in queue.clients:
            queue.used.enter(client, queue.clients)
        queue.clients[client] = queue.clients.get(client, 0) + 1
        queue.calls[key] = now
        self._calls[key] = _Waiting(self._number, requirement, client, now)
        flows = queue.flows.setdefault(requirement, {})
        flow = flows.get(client)
        if flow is None:
            flow = flows[client] = _Flow([])
        flow.count += 1
        heappush(flow.heap, (deadline, self._number, key))
        if flow.heap[0][1] == self._number:
            self._set_turn(queue, requirement, client)

    def _set_turn(self, queue: _Queue, requirement: Requirement, client: LinkId) -> None:
        """Put a client into the order of turns, by its first call and the time that it has used."""
        turns = queue.turns.setdefault(requirement, [])
        deadline, number, _ = queue.flows[requirement][client].heap[0]
        heappush(turns, (queue.used[client], deadline, number, client))
        flows = queue.flows[requirement]
        if len(turns) > 2 * len(flows) + _KEPT:
            rows = [(queue.used[one], *flow.heap[0][:2], one) for one, flow in flows.items()]
            heapify(rows)
            queue.turns[requirement] = rows

    def discard(self, key: CallKey) -> str | None:
        """Remove a call, if it is in it. Returns its function if that was the last call of it."""
        waiting = self._calls.pop(key, None)
        if waiting is None:
            return None
        function, client, requirement = waiting.requirement[0], waiting.client, waiting.requirement
        queue = self._queues[function]
        del queue.calls[key]
        if not queue.calls:
            del self._queues[function]
            return function
        queue.clients[client] -= 1
        if not queue.clients[client]:
            del queue.clients[client]
        flows = queue.flows[requirement]
        flow = flows[client]
        flow.count -= 1
        if not flow.count:
            del flows[client]
            if not flows:
                del queue.flows[requirement], queue.turns[requirement]
            return None
        if flow.heap[0][1] == waiting.number:
            while not self._is_true(flow.heap[0]):
                heappop(flow.heap)
            self._set_turn(queue, requirement, client)
        elif len(flow.heap) > 2 * flow.count + _KEPT:
            flow.heap = [row for row in flow.heap if self._is_true(row)]
            heapify(flow.heap)
        return None

    def _is_true(self, row: tuple[int, int, CallKey]) -> bool:
        """Return whether the call of a row still waits, and is not in it again."""
        waiting = self._calls.get(row[2])
        return waiting is not None and waiting.number == row[1]

    def next(self, function: str, can_run: Callable[[Requirement], bool]) -> CallKey | None:
        """Return the call of a function that is next among those whose requirement `can_run` accepts; it stays."""
        queue = self._queues.get(function)
        if queue is None:
            return None
        best: tuple[int, int, int, LinkId] | None = None
        found: CallKey | None = None
        for requirement, turns in queue.turns.items():
            if not can_run(requirement):
                continue
            flows = queue.flows[requirement]
            while True:
                used, _, number, client = turns[0]
                flow = flows.get(client)
                if flow is not None and flow.heap[0][1] == number and queue.used[client] == used:
                    break
                heappop(turns)
            if best is None or turns[0] < best:
                best, found = turns[0], flow.heap[0][2]
        return found

    def take_turn(self, key: CallKey) -> int:
        """Count the usual runtime of a call, which `next` has returned, as used by its client; return it in ns."""
        waiting = self._calls[key]
        function, client = waiting.requirement[0], waiting.client
        queue = self._queues[function]
        span = max(self.median(function), MILLISECOND)
        queue.used.take_turn(client, span, len(queue.clients))
        self._reorder(queue, client)
        return span

    def charge(self, function: str, client: LinkId, span: int) -> None:
        """Add to the time that a client has used of a function; negative for less than was charged at its turn."""
        queue = self._queues.get(function)
        if queue is not None:
            queue.used.charge(client, span)
            self._reorder(queue, client)

    def _reorder(self, queue: _Queue, client: LinkId) -> None:
        """Put a client where its used time belongs now."""
        if client in queue.clients:
            for requirement, flows in queue.flows.items():
                if client in flows:
                    self._set_turn(queue, requirement, client)

    def has(self, requirement: Requirement) -> bool:
        """Return whether a call with that requirement waits."""
        queue = self._queues.get(requirement[0])
        return queue is not None and requirement in queue.flows

    def count(self, function: str) -> int:
        """Return the number of calls of a function."""
        queue = self._queues.get(function)
        return 0 if queue is None else len(queue.calls)

    @property
    def functions(self) -> Iterable[str]:
        """The functions whose calls wait."""
        return self._queues

    def requirements(self, function: str) -> Iterable[Requirement]:
        """Return the requirements of the waiting calls of a function."""
        queue = self._queues.get(function)
        return () if queue is None else queue.flows

    def keys(self) -> Iterable[CallKey]:
        """Return all calls in it."""
        return self._calls

    # -- pace and admission -------------------------------------------------------------------------------------------

    def ran(self, function: str, client: LinkId, span: int, now: int, *, charged: int) -> None:
        """Record that a call ran for so long and has ended; `charged` is what `take_turn` has returned for it, or 0."""
        pace = self._paces.get(function)
        if pace is None:
            if len(self._paces) >= _PACES:
                self._paces.clear()
            pace = self._paces[function] = Pace()
        self.charge(function, client, span - charged)
        pace.ran(span, now, busy=function in self._queues)

    def median(self, function: str) -> int:
        """Return the median runtime of the last calls of a function in ns; 0 if few have ended."""
        pace = self._paces.get(function)
        return 0 if pace is None else pace.median

    def waited(self, function: str, now: int) -> int:
        """Return for how long the oldest call of a function has waited, in ns."""
        queue = self._queues.get(function)
        return 0 if queue is None else now - next(iter(queue.calls.values()))

    def turn_taken(self, function: str, now: int) -> None:
        """Note that a call of a function has had its turn: no overload begins if the oldest one has not waited long."""
        queue = self._queues.get(function)
        if queue is not None and queue.above is not None and self.waited(function, now) <= self._target(function):
            queue.above = None

    def _target(self, function: str) -> int:
        return max(TARGET, self.median(function))

    def expected_wait(self, function: str, client: LinkId) -> int:
        """Return how long a new call of a client would wait for its turn in ns; 0 if that is not known."""
        pace, queue = self._paces.get(function), self._queues.get(function)
        if pace is None or queue is None:
            return 0
        own = queue.clients.get(client, 0)
        others = len(queue.clients) - (client in queue.clients)
        # Each other client gets a turn before each of its calls, as far as it has one.
        return (own + min(len(queue.calls) - own, (own + 1) * others)) * pace.gap

    def refuses(self, function: str, client: LinkId, timeout: int, now: int) -> int | None:
        """Return after how long a client may try again, in ns, if a new call of it is not admitted; else None.

        It is refused if its wait and its runtime would exceed its timeout. It is also refused in an overload, if it
        would wait for longer than the target, and calls of other clients wait too: one client alone disturbs nobody.
        In an overload, and for ten intervals after it, it is one as soon as the oldest call has waited for half of it.
        """
        queue = self._queues.get(function)
        if queue is None:
            return None
        waited, target = self.waited(function, now), self._target(function)
        expected = self.expected_wait(function, client)
        interval = INTERVAL if target <= TARGET else 10 * target
        overload = self._overloads.get(function)
        alone = not queue.clients.keys() - {client}
        if overload is not None and now - overload < 10 * interval:
            if waited > target // 2 and expected > target and not alone:
                self._overloads[function] = now
                return expected
        elif waited <= target:
            queue.above = None
        else:
            if queue.above is None:
                queue.above = now - waited + target
            if now - queue.above >= interval and expected > target and not alone:
                if len(self._overloads) >= _PACES:
                    self._overloads.clear()
                self._overloads[function] = now
                return expected
        return expected if expected + self.median(function) > timeout and expected else None


_PACES: Final = 4_096
"""The functions whose pace is kept."""
_KEPT: Final = 64
"""The rows of heaps and tables that may be untrue, beside as many as are true."""
