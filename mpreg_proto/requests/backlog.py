"""The backlog: ready calls that wait until a member takes another call of their function, in a fair order.

A worker takes as many calls of a function as it has slots, and as many again; it refuses the others. So the backlog
waits here, at the coordinator, where it is cheap to cancel and not bound to a member. `Credits` holds how many calls
each member takes, `Backlog` the calls that wait, and `Pace` how fast calls of a function end.

Among clients the one that has used the least time is next (start-time fair queueing; Goyal, Vin and Cheng, SIGCOMM
1996); among the calls of one client the one with the earliest deadline. A request is not admitted if the oldest call of
its function has waited for too long over a whole interval (CoDel, RFC 8289), unless its own client would not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from statistics import median_low

import msgspec

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import MILLISECOND, SECOND
from mpreg_proto.requests.placement import Candidate

CallKey = tuple[RequestId, str]
Requirement = tuple[str, tuple[str, ...], str | None, CallKey | None]
"""Function, resources and version; and the call itself, if earlier attempts restrict the members that may run it."""

TARGET = 100 * MILLISECOND
"""The wait that is no sign of overload. A function whose calls take longer has its median runtime in place of it."""
INTERVAL = SECOND
"""The time over which every wait is longer than the target in an overload; ten targets if those are longer."""
POLL = 250 * MILLISECOND
"""The period at which members are tried again that refuse calls and have none of this coordinator."""


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
                if window + 1 < capacity:
                    self._windows[key] = window + 1
                else:
                    del self._windows[key]

    def granted(self, member: MemberId, function: str) -> None:
        """Record that a member has a place for one more call than it has."""
        key = (member, function)
        if key in self._windows:
            self._windows[key] = max(self._windows[key], self._out.get(key, 0) + 1)

    def poll(self, function: str) -> None:
        """Try the members again that refuse calls of a function and have none of them."""
        for key, window in self._windows.items():
            if key[1] == function and not window and key not in self._out:
                self._windows[key] = 1

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
    """The pace at which calls of one function end: the median of their runtimes, and the gaps between their ends."""

    __slots__ = ("_ends", "_median", "_ran")

    def __init__(self) -> None:
        self._ran: deque[int] = deque(maxlen=15)
        self._ends: deque[int] = deque(maxlen=16)
        self._median: int | None = None

    def ended(self, ran: int, now: int, *, busy: bool) -> None:
        """Record the end of a call that ran for so long; gaps count while the function is `busy`."""
        self._ran.append(ran)
        self._median = None
        if busy:
            self._ends.append(now)
        elif self._ends:
            self._ends.clear()

    @property
    def median(self) -> int:
        """The median of the last runtimes in ns; 0 before the fifth."""
        if self._median is None:
            self._median = median_low(self._ran) if len(self._ran) >= 5 else 0
        return self._median

    @property
    def gap(self) -> int:
        """The mean time between two ends in ns; 0 before the fifth."""
        ends = self._ends
        return (ends[-1] - ends[0]) // (len(ends) - 1) if len(ends) >= 5 else 0


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    """A call in the backlog."""

    number: int
    requirement: Requirement
    client: LinkId
    since: int


_Heap = list[tuple[int, int, CallKey]]
"""The calls of one client with one requirement, by deadline. A call that has left has no row with that number."""


class Backlog:
    """The calls that wait for a place, by requirement and client."""

    __slots__ = (
        "_above",
        "_by_function",
        "_calls",
        "_heaps",
        "_last",
        "_number",
        "_overloads",
        "_paces",
        "_used",
        "_waiting",
    )

    def __init__(self) -> None:
        self._calls: dict[CallKey, _Waiting] = {}
        self._heaps: dict[str, dict[Requirement, dict[LinkId, _Heap]]] = {}
        self._by_function: dict[str, dict[CallKey, int]] = {}
        """The calls by function, in the order of their arrival, each with its time."""
        self._waiting: dict[str, dict[LinkId, int]] = {}
        """The number of waiting calls of each client, by function."""
        self._used: dict[LinkId, int] = {}
        """The time that each client has used, in ns, counted from that of the others when it came."""
        self._last = 0
        """The time used by the client that was served last."""
        self._number = 0
        self._above: dict[str, int] = {}
        """Since when the oldest call of a function has always waited for longer than the target."""
        self._overloads: dict[str, int] = {}
        """The time of the last refusal of a call of a function in an overload."""
        self._paces: dict[str, Pace] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, key: object) -> bool:
        return key in self._calls

    def add(self, key: CallKey, requirement: Requirement, *, client: LinkId, deadline: int, now: int) -> None:
        """Add a call that is not in it. It keeps its place by deadline, however often it comes back."""
        self._number += 1
        function = requirement[0]
        waiting = self._waiting.setdefault(function, {})
        if client not in waiting:
            self._used[client] = max(self._used.get(client, 0), self._last)
        waiting[client] = waiting.get(client, 0) + 1
        self._calls[key] = _Waiting(self._number, requirement, client, now)
        self._by_function.setdefault(function, {})[key] = now
        heap = self._heaps.setdefault(function, {}).setdefault(requirement, {}).setdefault(client, [])
        heappush(heap, (deadline, self._number, key))

    def discard(self, key: CallKey) -> str | None:
        """Remove a call, if it is in it. Returns its function if that was the last call of it."""
        waiting = self._calls.pop(key, None)
        if waiting is None:
            return None
        function, client = waiting.requirement[0], waiting.client
        others = self._by_function[function]
        del others[key]
        clients = self._waiting[function]
        clients[client] -= 1
        if not clients[client]:
            del clients[client]
        if not others:
            del self._by_function[function], self._waiting[function], self._heaps[function]
            self._above.pop(function, None)
            return function
        heaps = self._heaps[function][waiting.requirement]
        self._clean(heaps, client)
        if not heaps:
            del self._heaps[function][waiting.requirement]
        return None

    def _clean(self, heaps: dict[LinkId, _Heap], client: LinkId) -> None:
        """Drop calls at the top of a heap that have left."""
        heap = heaps[client]
        while heap and ((one := self._calls.get(heap[0][2])) is None or one.number != heap[0][1]):
            heappop(heap)
        if not heap:
            del heaps[client]

    def next(self, function: str, can_run: Callable[[Requirement], bool]) -> CallKey | None:
        """Return the call of a function that is next among those whose requirement `can_run` accepts; it stays."""
        best: tuple[int, int, int] | None = None
        found: CallKey | None = None
        for requirement, heaps in self._heaps.get(function, {}).items():
            if not can_run(requirement):
                continue
            for client, heap in heaps.items():
                deadline, number, key = heap[0]
                rank = (self._used[client], deadline, number)
                if best is None or rank < best:
                    best, found = rank, key
        if best is not None:
            self._last = max(self._last, best[0])
        return found

    def charge(self, client: LinkId, span: int) -> None:
        """Add to the time that a client has used; negative for less than was assumed."""
        if client in self._used:
            self._used[client] += span

    def forget(self, client: LinkId) -> None:
        """Forget a client that has disconnected and has no call in it."""
        self._used.pop(client, None)

    def has(self, requirement: Requirement) -> bool:
        """Return whether a call with that requirement waits."""
        return requirement in self._heaps.get(requirement[0], ())

    def count(self, function: str) -> int:
        """Return the number of calls of a function."""
        return len(self._by_function.get(function, ()))

    @property
    def functions(self) -> Iterable[str]:
        """The functions whose calls wait."""
        return self._by_function

    # -- pace ---------------------------------------------------------------------------------------------------------

    def ended(self, function: str, client: LinkId, ran: int, now: int) -> None:
        """Record that a call ran for so long and has ended."""
        pace = self._paces.get(function)
        if pace is None:
            if len(self._paces) >= _PACES:
                self._paces.clear()
            pace = self._paces[function] = Pace()
        if self._used:
            self.charge(client, ran - pace.median)
        pace.ended(ran, now, busy=function in self._by_function)

    def median(self, function: str) -> int:
        """Return the median runtime of the last calls of a function in ns; 0 if few have ended."""
        pace = self._paces.get(function)
        return 0 if pace is None else pace.median

    def waited(self, function: str, now: int) -> int:
        """Return for how long the oldest call of a function has waited, in ns."""
        calls = self._by_function.get(function)
        return now - next(iter(calls.values())) if calls else 0

    def left(self, function: str, now: int) -> None:
        """Note that a call of a function has left: if the oldest one has waited shortly, there is no overload."""
        if function in self._above and self.waited(function, now) <= self._target(function):
            del self._above[function]

    def _target(self, function: str) -> int:
        return max(TARGET, self.median(function))

    def expected_wait(self, function: str, client: LinkId) -> int:
        """Return how long a new call of a client would wait for its turn in ns; 0 if that is not known."""
        pace = self._paces.get(function)
        clients = self._waiting.get(function)
        if pace is None or not clients:
            return 0
        own = clients.get(client, 0)
        # Others get a turn before each of its calls, as far as they have one.
        before = sum(min(count, own + 1) for other, count in clients.items() if other != client)
        return (own + before) * pace.gap

    def refuses(self, function: str, client: LinkId, timeout: int, now: int) -> int | None:
        """Return after how long a client may try again, in ns, if a new call of it is not admitted; else None.

        It is refused in an overload, if it would wait for longer than the target, and if its wait would exceed its
        timeout in any case. In an overload, and for ten intervals after it, half the target is too long at once.
        """
        waited, target = self.waited(function, now), self._target(function)
        if not waited:
            return None
        expected = self.expected_wait(function, client)
        interval = INTERVAL if target <= TARGET else 10 * target
        overload = self._overloads.get(function)
        if overload is not None and now - overload < 10 * interval:
            if waited > target // 2 and expected > target // 2:
                self._overloads[function] = now
                return expected
        elif waited <= target:
            self._above.pop(function, None)
        elif now - self._above.setdefault(function, now - waited + target) >= interval and expected > target:
            if len(self._overloads) >= _PACES:
                self._overloads.clear()
            self._overloads[function] = now
            return expected
        return expected if expected + 2 * self.median(function) > timeout else None


_PACES = 4_096
"""The functions whose pace is kept."""
