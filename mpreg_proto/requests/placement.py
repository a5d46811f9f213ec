"""Placement: from candidates to one node, and the reason. Pure functions that the scheduler and `explain` share.

The inputs are the candidates (`CatalogueView`), their load (`Loads`) and a draw; there is no state. Among the nodes
that offer the function and hold all requested resources the rank is: ALIVE before SUSPECT; not full before full;
reachable before unreachable; and, if resources were requested, exact sets before supersets. Within the best rank the
better of two random nodes by expected delay is chosen, so that equals share the load and a busy node is avoided
(Mitzenmacher 2001, the power of two choices).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from mpreg_proto.ids import MemberId
from mpreg_proto.limits import MILLISECOND
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import ItemsParameter

NOISE = MILLISECOND
"""The difference of expected delays, in ns, below which two nodes are equal: less is network latency, not load.

Without it the coordinator's node would run most of a burst of short calls itself, as its own calls end at once.
"""


class Candidate(Protocol):
    """A member that offers a function with at least the requested resources."""

    @property
    def member(self) -> MemberId: ...
    @property
    def shown(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def suspect(self) -> bool: ...
    @property
    def idempotent(self) -> bool: ...
    @property
    def version(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def consumes(self) -> ItemsParameter | None: ...


class CatalogueView(Protocol):
    """The offers of the cluster in this node's view."""

    @property
    def generation(self) -> int:
        """A number that grows whenever a result of `offers` may have changed."""
        ...

    def offers(self, function: str, resources: tuple[str, ...], version: str | None) -> Sequence[Candidate]:
        """Return all members that can run it, by member id."""
        ...

    def offered_by(self, member: MemberId) -> Container[str]:
        """Return the functions that a member offers, also if it is not routable."""
        ...

    def explain_no_match(self, function: str, resources: tuple[str, ...], version: str | None) -> dict[str, object]:
        """Return the details of a 1001: what is missing, the nearest node, similar names."""
        ...


class Loads(Protocol):
    """The load of each member in this node's view. `now` is the time in ns."""

    def waiting(self, member: MemberId, now: int) -> int:
        """Return the own calls outstanding there, plus the queue length in its latest Result."""
        ...

    def delay(self, member: MemberId, now: int) -> int:
        """Return the expected wait of a new call there, in ns."""
        ...

    def full(self, member: MemberId) -> bool: ...
    def reachable(self, member: MemberId, now: int) -> bool: ...


def rank(candidates: Sequence[Candidate], loads: Loads, *, resources: Sequence[str], now: int) -> Sequence[Candidate]:
    """Return the best rank of `candidates`, among which the draw falls; empty if there are none."""
    if len(candidates) == 1:
        return candidates
    best: list[Candidate] = []
    lowest: tuple[bool, bool, bool, bool] | None = None
    for candidate in candidates:
        member = candidate.member
        standing = (
            candidate.suspect,
            loads.full(member),
            not loads.reachable(member, now),
            bool(resources) and not candidate.exact,
        )
        if lowest is None or standing < lowest:
            lowest, best = standing, [candidate]
        elif standing == lowest:
            best.append(candidate)
    return best


def draw(equals: Sequence[Candidate], loads: Loads, rng: Rng, now: int) -> Candidate:
    """Return the better of two random ones of `equals`, which is not empty."""
    size = len(equals)
    if size == 1:
        return equals[0]
    first = rng.below(size)
    second = (first + 1 + rng.below(size - 1)) % size
    one, other = equals[first], equals[second]
    return other if loads.delay(other.member, now) + NOISE < loads.delay(one.member, now) else one


ONLY_CANDIDATE = "the only node that can"


def choice_reason(equals: Sequence[Candidate], candidates: Sequence[Candidate]) -> str:
    """Return in words why the call runs there, for a timeline."""
    if len(candidates) == 1:
        return ONLY_CANDIDATE
    if len(equals) == 1:
        return "the best of " + str(len(candidates))
    return f"drawn among {len(equals)} equals"


def rejected(
    candidates: Sequence[Candidate], equals: Sequence[Candidate], loads: Loads, now: int
) -> tuple[tuple[str, str], ...]:
    """Return the candidates that will not be drawn, each with its first drawback, for `explain`."""
    chosen = {equal.member for equal in equals}
    rows: list[tuple[str, str]] = []
    for candidate in candidates:
        if candidate.member in chosen:
            continue
        best = equals[0] if equals else candidate
        if candidate.suspect and not best.suspect:
            drawback = "does not answer at the moment"
        elif loads.full(candidate.member) and not loads.full(best.member):
            drawback = "has as many calls as it may have"
        elif not loads.reachable(candidate.member, now) and loads.reachable(best.member, now):
            drawback = "no link to it yet"
        else:
            drawback = "holds more resources than asked for"
        rows.append((candidate.shown, drawback))
    return tuple(rows)
