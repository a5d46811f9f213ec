"""Candidates to one node, and the reason: a pure function that routing and `explain` share.

It reads who could run a call (`CatalogueView`), what each has to do (`Loads`) and a draw; it holds nothing and changes
nothing. Among the nodes that offer the function and hold all resources asked for: routable before SUSPECT; not full
before full; with a link before without; and, only if resources were asked for, exact sets before supersets. Inside that
rank the better of two random ones by expected delay, so that equals are balanced at random and a busy one is passed by
(Mitzenmacher 2001, the power of two choices).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from mpreg_proto.ids import MemberId
from mpreg_proto.limits import MILLISECOND
from mpreg_proto.rng import Rng

NOISE = MILLISECOND
"""Nanoseconds by which a node must be expected to be sooner to be preferred: less is the way there, not the load.

Without it the node that is asked would take most of a burst of short calls itself, as its own end at once.
"""


class Candidate(Protocol):
    """A member that offers a function with at least the resources asked for."""

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


class CatalogueView(Protocol):
    """What the cluster offers, as far as this node knows."""

    @property
    def generation(self) -> int:
        """Grows whenever an answer of `offers` may have changed."""
        ...

    def offers(self, function: str, resources: tuple[str, ...], version: str | None) -> Sequence[Candidate]:
        """Everybody who can run it, by member id."""
        ...

    def offered_by(self, member: MemberId) -> Container[str]:
        """The functions that a member offers, whether anybody can run them or not."""
        ...

    def explain_no_match(self, function: str, resources: tuple[str, ...], version: str | None) -> dict[str, object]:
        """The details of a 1001: which of function and resources is missing, the nearest node, close names."""
        ...


class Loads(Protocol):
    """What each member has to do, as this node knows it. `now`: the time, in nanoseconds."""

    def waiting(self, member: MemberId, now: int) -> int:
        """Calls of ours outstanding there, plus the queue length in its latest Result."""
        ...

    def delay(self, member: MemberId, now: int) -> int:
        """Nanoseconds that a new call would probably wait there."""
        ...

    def full(self, member: MemberId) -> bool: ...
    def reachable(self, member: MemberId, now: int) -> bool: ...


def rank(candidates: Sequence[Candidate], loads: Loads, *, resources: Sequence[str], now: int) -> Sequence[Candidate]:
    """The equals among which the draw falls: the best rank of `candidates`; empty if those are."""
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
    """The better of two random ones of `equals`, which is not empty."""
    size = len(equals)
    if size == 1:
        return equals[0]
    first = rng.below(size)
    second = (first + 1 + rng.below(size - 1)) % size
    one, other = equals[first], equals[second]
    return other if loads.delay(other.member, now) + NOISE < loads.delay(one.member, now) else one


def choice_reason(equals: Sequence[Candidate], candidates: Sequence[Candidate]) -> str:
    """Why it runs where it was drawn, in words for a timeline."""
    if len(candidates) == 1:
        return "the only node that can"
    if len(equals) == 1:
        return "the best of " + str(len(candidates))
    return f"drawn among {len(equals)} equals"


def rejected(
    candidates: Sequence[Candidate], equals: Sequence[Candidate], loads: Loads, now: int
) -> tuple[tuple[str, str], ...]:
    """For `explain`: the candidates that will not be drawn, each with the first thing it is worse in."""
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
