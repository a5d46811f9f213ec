"""Calls that are out, and what each member has to do: one table, from which every count is derived.

The coordinator enters an `Attempt` when it dispatches a call and takes it out when it is answered or lost. How busy a
member is follows from the attempts there, the queue length in its latest Result and how long its calls take; nothing is
counted beside the table (dask/distributed #4446), and nothing of it is gossiped. `traced` makes the row of a trace from
an attempt and its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.requests.placement import Candidate
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.messages import Done, Failed, Traced

_COUNTER_BITS = 40
"""Bits of a dispatch's number that count; the others are drawn, so that nobody can guess it."""


def dispatch_count(number: int) -> int:
    """How many dispatches a node had begun with the one of that number."""
    return number & (1 << _COUNTER_BITS) - 1


_QUEUE_VALID_FOR = SECOND
"""How long a queue length that a member reported is used."""
_DIAL_DELAY = 2 * MILLISECOND
"""What a new call would wait for a link to be opened first."""
_DEFAULT_RUNTIME = 2 * MILLISECOND
"""How long a call is reckoned to take at a member that has not finished one yet."""


class Attempt(msgspec.Struct, frozen=True, eq=False):
    """One call dispatched to one member: the unit that is answered, refused, lost or cancelled."""

    execution: Execution
    call: str
    number: int
    """Of the dispatch that it is part of."""
    link: LinkId
    candidate: Candidate
    """Who was chosen, as it was offered at that moment."""
    sent: int
    reason: str


class Outstanding:
    """The outstanding attempts, by dispatch and by member; reads as placement's `Loads`."""

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
        "_unreachable_until",
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
    ) -> None:
        self.last_number = last_number
        """How many dispatches were begun, over the whole life of the process."""
        self._draw_number = draw_number
        self._me = me
        self._links = links
        self._limits = limits
        self._by_number: dict[int, dict[str, Attempt]] = {}
        self._by_member: dict[MemberId, dict[tuple[int, str], Attempt]] = {}
        """With a row, maybe an empty one, for each member that had a call of ours and is not gone."""
        self._by_link: dict[LinkId, dict[int, None]] = {}
        """The numbers of the dispatches that are out on each link."""
        self._reported_queues: dict[MemberId, tuple[int, int]] = {}
        self._mean_runtime: dict[MemberId, int] = {}
        self._unreachable_until: dict[MemberId, int] = {}
        """Members that could not be dialled, and until when that is believed."""

    def next_number(self) -> int:
        """A number for a dispatch, never the same twice and not to be guessed."""
        self.last_number += 1
        return self._draw_number() << _COUNTER_BITS | self.last_number & (1 << _COUNTER_BITS) - 1

    def add(self, attempt: Attempt) -> None:
        """A call was dispatched."""
        calls = self._by_number.get(attempt.number)
        if calls is None:
            calls = self._by_number[attempt.number] = {}
            self._by_link.setdefault(attempt.link, {})[attempt.number] = None
        calls[attempt.call] = attempt
        self._by_member.setdefault(attempt.candidate.member, {})[attempt.number, attempt.call] = attempt

    def pop(self, number: int, call: str, link: LinkId) -> Attempt | None:
        """The attempt that an answer on `link` belongs to, which is outstanding no longer; None for a stray."""
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
        return attempt

    def by_number(self, number: int) -> list[Attempt]:
        """What is outstanding of one dispatch."""
        calls = self._by_number.get(number)
        return list(calls.values()) if calls else []

    def has(self, number: int) -> bool:
        """Whether anything is outstanding of one dispatch."""
        return number in self._by_number

    def latest(self, after: int) -> list[int]:
        """The dispatches that are out and were begun after so many others, oldest first (`dispatch_count`)."""
        found: list[int] = []
        for number in reversed(self._by_number):
            if dispatch_count(number) <= after:
                break
            found.append(number)
        return found[::-1]

    def by_member(self, member: MemberId) -> list[Attempt]:
        """What is outstanding at one member, oldest first."""
        return list(self._by_member.get(member, {}).values())

    def by_link(self, link: LinkId) -> list[Attempt]:
        """What is outstanding on one link, dispatch by dispatch."""
        return [attempt for number in self._by_link.get(link, ()) for attempt in self._by_number[number].values()]

    def busy_on(self, link: LinkId) -> bool:
        """Whether anything is outstanding on one link."""
        return link in self._by_link

    def record_result(self, member: MemberId, queue: int, ran: int, now: int) -> None:
        """A Result of `member` says how many calls wait there, and how long the one in it took (0: none ran).

        Nothing is kept of a member that never had a call, or is gone.
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
        """A member is gone for good; what is outstanding there was taken before."""
        self._by_member.pop(member, None)
        self._unreachable_until.pop(member, None)
        self._reported_queues.pop(member, None)
        self._mean_runtime.pop(member, None)

    def waiting(self, member: MemberId, now: int) -> int:
        """Calls of ours at `member`, plus the queue length it reported lately."""
        queue, at = self._reported_queues.get(member, (0, 0))
        return len(self._by_member.get(member, ())) + (queue if queue and now - at < _QUEUE_VALID_FOR else 0)

    def delay(self, member: MemberId, now: int) -> int:
        """Nanoseconds that a new call would probably wait at `member`."""
        waiting = self.waiting(member, now)
        opening = 0 if self.connected(member) else _DIAL_DELAY
        return opening + waiting * max(self._mean_runtime.get(member, _DEFAULT_RUNTIME), 1) if waiting else opening

    def full(self, member: MemberId) -> bool:
        """Whether `member` has as many of our calls as it may have."""
        return len(self._by_member.get(member, ())) >= self._limits.calls_per_worker

    def mark_unreachable(self, member: MemberId, now: int) -> None:
        """`member` could not be dialled."""
        for other in [other for other, until in self._unreachable_until.items() if until <= now]:
            del self._unreachable_until[other]
        self._unreachable_until[member] = now + self._limits.unreachable

    @property
    def unreachable(self) -> tuple[MemberId, ...]:
        """Members that could not be dialled lately."""
        return tuple(self._unreachable_until)

    def connected(self, member: MemberId) -> bool:
        """Whether a link to `member` stands, or it is this process itself."""
        return member == self._me or member in self._links

    def reachable(self, member: MemberId, now: int) -> bool:
        """Whether `member` can have calls, at once or when it is dialled: False if that was tried in vain."""
        if not self._unreachable_until or member not in self._unreachable_until or self.connected(member):
            return True
        if self._unreachable_until[member] > now:
            return False
        del self._unreachable_until[member]
        return True

    def __len__(self) -> int:
        return sum(len(calls) for calls in self._by_number.values())


def traced(attempt: Attempt, row: Done | Failed, now: int) -> Traced:
    """All times are nanoseconds since the request arrived.

    Only spans come over a link, so the way there is reckoned as half of what is left of the round trip. A worker may
    tell any numbers; what it says is held against how long it has had the call.
    """
    execution, name = attempt.execution, attempt.call
    left = now - attempt.sent
    ran = min(max(row.ran, 0), left)
    waited = min(max(row.waited, 0), left - ran)
    travelled = 0 if attempt.link == LOCAL else left - ran - waited
    moved = attempt.sent + travelled // 2 - execution.arrived
    started = moved + waited
    return Traced(
        name=name,
        node=attempt.candidate.shown,
        queued=execution.history.queued[name] - execution.arrived,
        moved=moved,
        started=started,
        ended=started + ran,
        tries=execution.history.tries[name],
        why=attempt.reason,
    )
