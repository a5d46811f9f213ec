"""The outstanding calls and the load of each member: one table, from which every count is derived.

The scheduler adds an `Attempt` for each dispatched call; the coordinator removes it when the call is answered or lost.
The load of a member follows from its attempts, the queue length in its latest Result and the runtime of its calls;
nothing is counted beside the table (dask/distributed #4446), and nothing of it is gossiped. `run_times`
returns when a call was at its member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.requests.backlog import Credits
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.requests.request_state import Execution, RunTimes
from mpreg_proto.wire.messages import Done, Failed

_COUNTER_BITS = 40
"""The bits of a dispatch number that count. The others are random, so that the number cannot be guessed."""


def dispatch_count(number: int) -> int:
    """Return how many dispatches a node had begun, up to the one of that number."""
    return number & (1 << _COUNTER_BITS) - 1


_QUEUE_VALID_FOR = SECOND
"""The time for which a reported queue length is used, in ns."""
_DIAL_DELAY = 2 * MILLISECOND
"""The expected time until a link is open, in ns."""
_DEFAULT_RUNTIME = 2 * MILLISECOND
"""The expected runtime of a call at a member that has not finished one, in ns."""


class Attempt(msgspec.Struct, frozen=True, eq=False):
    """One call dispatched to one member, until it is answered, refused, lost or cancelled."""

    execution: Execution
    call: str
    number: int
    """The number of its dispatch."""
    link: LinkId
    candidate: Candidate
    """The chosen member, as it was offered at that moment."""
    sent: int
    function: str
    charged: int = 0
    """The time in ns that it counted as used at its turn in the backlog; 0 if it has not waited there."""


class Outstanding:
    """The outstanding attempts, by dispatch, member and link. It is the `Loads` of placement."""

    __slots__ = (
        "_by_link",
        "_by_member",
        "_by_number",
        "_draw_number",
        "_limits",
        "_links",
        "_me",
        "_mean_runtime",
        "_reported_queues",
        "_silent",
        "_unreachable_until",
        "credits",
        "last_number",
    )

    def __init__(
        self,
        me: MemberId,
        links: Mapping[MemberId, LinkId],
        limits: Limits,
        *,
        last_number: int = 0,
        draw_number: Callable[[], int] = lambda: 0,
        silent: Callable[[LinkId, int], bool] = lambda link, now: False,
    ) -> None:
        """`silent` returns whether a link has brought nothing for long although a call is out on it."""
        self._silent = silent
        self.last_number: int = last_number
        """The number of dispatches that were begun, over the whole life of the process."""
        self._draw_number = draw_number
        self._me = me
        self._links = links
        self._limits = limits
        self._by_number: dict[int, dict[str, Attempt]] = {}
        self._by_member: dict[MemberId, dict[tuple[int, str], Attempt]] = {}
        """A row, which may be empty, for each routable member that has had a call."""
        self._by_link: dict[LinkId, dict[int, None]] = {}
        """The numbers of the outstanding dispatches of each link."""
        self._reported_queues: dict[MemberId, tuple[int, int]] = {}
        self._mean_runtime: dict[MemberId, int] = {}
        self.credits: Credits = Credits()
        """The number of calls of each function that members take."""
        self._unreachable_until: dict[MemberId, int] = {}
        """The members that could not be dialled, and until when they are avoided."""

    def next_number(self) -> int:
        """Return a number for a dispatch, never the same twice and not guessable."""
        self.last_number += 1
        return self._draw_number() << _COUNTER_BITS | self.last_number & (1 << _COUNTER_BITS) - 1

    def add(self, attempt: Attempt) -> None:
        """Add a dispatched call."""
        calls = self._by_number.get(attempt.number)
        if calls is None:
            calls = self._by_number[attempt.number] = {}
            self._by_link.setdefault(attempt.link, {})[attempt.number] = None
        calls[attempt.call] = attempt
        self._by_member.setdefault(attempt.candidate.member, {})[attempt.number, attempt.call] = attempt
        self.credits.sent(attempt.candidate.member, attempt.function)

    def pop(self, number: int, call: str, link: LinkId) -> Attempt | None:
        """Remove and return the attempt that an answer on `link` belongs to; None for a stray answer."""
        calls = self._by_number.get(number)
        attempt = calls.get(call) if calls is not None else None
        if calls is None or attempt is None or attempt.link != link:
            return None
        del calls[call]
        if not calls:
            del self._by_number[number]
            numbers = self._by_link[link]
            del numbers[number]
            if not numbers:
                del self._by_link[link]
        del self._by_member[attempt.candidate.member][number, call]
        self.credits.ended(attempt.candidate.member, attempt.function)
        return attempt

    def by_number(self, number: int) -> list[Attempt]:
        """Return the outstanding attempts of one dispatch."""
        calls = self._by_number.get(number)
        return list(calls.values()) if calls else []

    def has(self, number: int) -> bool:
        """Return whether a dispatch is outstanding."""
        return number in self._by_number

    def latest(self, after: int) -> list[int]:
        """Return the outstanding dispatches begun after the first `after` ones, oldest first (`dispatch_count`)."""
        found: list[int] = []
        for number in reversed(self._by_number):
            if dispatch_count(number) <= after:
                break
            found.append(number)
        return found[::-1]

    def by_member(self, member: MemberId) -> list[Attempt]:
        """Return the outstanding attempts at one member, oldest first."""
        return list(self._by_member.get(member, {}).values())

    def by_link(self, link: LinkId) -> list[Attempt]:
        """Return the outstanding attempts on one link, dispatch by dispatch."""
        return [attempt for number in self._by_link.get(link, ()) for attempt in self._by_number[number].values()]

    def busy_on(self, link: LinkId) -> bool:
        """Return whether a dispatch is outstanding on one link."""
        return link in self._by_link

    def record_result(self, member: MemberId, queue: int, ran: int, now: int) -> None:
        """Record the queue length and the runtime (0: nothing ran) that a Result of `member` reports.

        A member that has had no call, or is not routable, is ignored.
        """
        if member not in self._by_member:
            return
        if queue:
            self._reported_queues[member] = (queue, now)
        elif member in self._reported_queues:
            del self._reported_queues[member]
        if ran:
            mean = self._mean_runtime.get(member, ran)
            self._mean_runtime[member] = mean + (ran - mean) // 8

    def forget(self, member: MemberId) -> None:
        """Forget a member that is DEAD or LEFT, whose attempts were removed before."""
        self._by_member.pop(member, None)
        self.credits.forget(member)
        self._unreachable_until.pop(member, None)
        self._reported_queues.pop(member, None)
        self._mean_runtime.pop(member, None)

    def waiting(self, member: MemberId, now: int) -> int:
        """Return the own calls at `member`, plus the queue length that it reported lately."""
        queue, at = self._reported_queues.get(member, (0, 0))
        return len(self._by_member.get(member, ())) + (queue if queue and now - at < _QUEUE_VALID_FOR else 0)

    def delay(self, member: MemberId, now: int) -> int:
        """Return the expected wait of a new call at `member`, in ns."""
        waiting = self.waiting(member, now)
        opening = 0 if self.connected(member) else _DIAL_DELAY
        return opening + waiting * max(self._mean_runtime.get(member, _DEFAULT_RUNTIME), 1) if waiting else opening

    def full(self, member: MemberId) -> bool:
        """Return whether `member` has as many of the own calls as it may have."""
        return len(self._by_member.get(member, ())) >= self._limits.calls_per_worker

    def mark_unreachable(self, member: MemberId, now: int) -> None:
        """Record that `member` could not be dialled."""
        for other in [other for other, until in self._unreachable_until.items() if until <= now]:
            del self._unreachable_until[other]
        self._unreachable_until[member] = now + self._limits.unreachable

    @property
    def unreachable(self) -> tuple[MemberId, ...]:
        """The members that could not be dialled lately."""
        return tuple(self._unreachable_until)

    def connected(self, member: MemberId) -> bool:
        """Return whether a link to `member` stands, or it is this process itself."""
        return member == self._me or member in self._links

    def reachable(self, member: MemberId, now: int) -> bool:
        """Return whether `member` can get calls; False if a dial has failed lately and no link stands.

        False also while its link is silent although a call is out on it.
        """
        link = self._links.get(member)
        if link is not None and self._silent(link, now):
            return False
        if not self._unreachable_until or member not in self._unreachable_until or self.connected(member):
            return True
        if self._unreachable_until[member] > now:
            return False
        del self._unreachable_until[member]
        return True

    def __len__(self) -> int:
        return sum(len(calls) for calls in self._by_number.values())


def run_times(attempt: Attempt, row: Done | Failed, now: int) -> RunTimes:
    """Return the times of a call at the member that has just ended it.

    A worker reports spans only, so the latency to it counts as half of the rest of the round trip. Its spans are
    limited to the time that it had the call.
    """
    left = now - attempt.sent
    ran = min(max(row.ran, 0), left)
    waited = min(max(row.waited, 0), left - ran)
    travelled = 0 if attempt.link == LOCAL else left - ran - waited
    arrived = attempt.sent + travelled // 2
    started = arrived + waited
    return RunTimes(arrived, started, started + ran)
