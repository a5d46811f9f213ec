"""The candidates of a call, the best of them and the drawn one, against brute force over all offers.

Input: the offers, resources and standings of up to six members; then calls. The oracle checks each member in turn, with
Python's sets instead of bit masks, and ranks by sorting.
"""

from __future__ import annotations

from mpreg_proto.cluster.catalogue import Catalogue, FunctionSpec
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import Limits
from mpreg_proto.notices import Standing
from mpreg_proto.requests import placement
from mpreg_proto.requests.placement import NOISE, Candidate
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Claim
from mpreg_transports.testing.fuzz.draws import Draws

IDS = tuple(MemberId(bytes([letter]) * 16) for letter in range(6))
_TAGS = ("gpu", "fast", "eu")
_FUNCTIONS = ("f", "g")
_VERSIONS = ("", "1")


class Member:
    """One member in the model of the oracle."""

    def __init__(self, draws: Draws) -> None:
        self.standing = Standing(draws.below(5))
        self.resources = _tags(draws)
        self.draining = draws.chance(4)
        self.functions = {
            name: (draws.pick(_VERSIONS), _tags(draws), draws.byte() % 2 == 1)
            for name in _FUNCTIONS
            if draws.byte() % 2
        }
        self.waiting = draws.below(4)
        self.linked = draws.byte() % 2 == 1


class Loads:
    """The load of each member, as drawn."""

    def __init__(self, members: dict[MemberId, Member]) -> None:
        self._members = members

    def waiting(self, member: MemberId, now: int) -> int:
        """Return the number of calls that wait there."""
        return self._members[member].waiting

    def delay(self, member: MemberId, now: int) -> int:
        """Return a delay of twice `NOISE` for each waiting call, so that the difference counts."""
        return self._members[member].waiting * 2 * NOISE

    def full(self, member: MemberId) -> bool:
        """Return whether it has its maximum of 3 calls."""
        return self._members[member].waiting >= 3

    def reachable(self, member: MemberId, now: int) -> bool:
        """Return whether calls can be dispatched to it at once."""
        return self._members[member].linked


def harness(data: bytes) -> None:
    """Build the cluster, then compare its answers."""
    draws = Draws(data)
    members = {identity: Member(draws) for identity in IDS[: 1 + draws.below(6)]}
    index, loads = _index(members), Loads(members)
    for _ in range(1 + draws.below(4)):
        function, resources = draws.pick((*_FUNCTIONS, "h")), _tags(draws)
        version = draws.pick((None, None, "", "1"))
        found = index.offers(function, resources, version)
        expected = [one for one in members if _can(members[one], function, resources, version)]
        assert [one.member for one in found] == expected, f"{function} {resources} {version}"
        for one in found:
            _is_described(one, members[one.member], function, resources)
        if found:
            _placed(draws, found, members, loads, resources)
        else:
            _lacking(index.explain_no_match(function, resources, version), members, function, resources, version)


def _tags(draws: Draws) -> tuple[str, ...]:
    mask = draws.below(8)
    return tuple(sorted(tag for place, tag in enumerate(_TAGS) if mask >> place & 1))


def _index(members: dict[MemberId, Member]) -> Index:
    """Return the index of this node after deltas from the members themselves."""
    limits = Limits()
    known = Members(MemberId(b"\xff" * 16), Card("me"), limits=limits, now=0)
    catalogue = Catalogue(known.me, limits=limits)
    for identity, member in members.items():
        known.merge([Claim(identity, 1, int(member.standing))], 0)
        own = Catalogue(identity, limits=limits)
        deltas = [own.set_resources(member.resources)]
        for name, (version, resources, idempotent) in member.functions.items():
            spec = FunctionSpec(name=name, version=version, resources=resources, idempotent=idempotent)
            deltas.append(own.offer(spec))
        deltas += [own.drain()] if member.draining else []
        for delta in deltas:
            catalogue.apply(delta)
    return Index(known, catalogue)


def _can(member: Member, function: str, resources: tuple[str, ...], version: str | None) -> bool:
    if member.standing > Standing.SUSPECT or member.draining or function not in member.functions:
        return False
    offered, own, _ = member.functions[function]
    return (version is None or version == offered) and {*member.resources, *own} >= set(resources)


def _is_described(one: Candidate, member: Member, function: str, resources: tuple[str, ...]) -> None:
    version, own, idempotent = member.functions[function]
    exact = {*member.resources, *own} == set(resources)
    facts = (one.exact, one.suspect, one.idempotent, one.version)
    assert facts == (exact, member.standing is Standing.SUSPECT, idempotent, version), facts


def _placed(
    draws: Draws,
    found: tuple[Candidate, ...],
    members: dict[MemberId, Member],
    loads: Loads,
    resources: tuple[str, ...],
) -> None:
    def standing(one: Candidate) -> tuple[bool, ...]:
        member = members[one.member]
        inexact = bool(resources) and not one.exact
        return one.suspect, member.waiting >= 3, not member.linked, inexact

    best = min(map(standing, found))
    expected = [one for one in found if standing(one) == best]
    equals = placement.rank(found, loads, resources=resources, now=0)
    assert list(equals) == expected, f"{equals} instead of {expected}"
    chosen = placement.draw(equals, loads, Rng(draws.byte()), 0)
    assert chosen in expected, "drawn from outside the best rank"
    if len(expected) == 2:  # both are compared
        assert members[chosen.member].waiting == min(members[one.member].waiting for one in expected), "the busier one"
    rows = placement.rejected(found, equals, loads, 0)
    assert len(rows) == len(found) - len(expected) and placement.choice_reason(equals, found), rows


def _lacking(
    details: dict[str, object],
    members: dict[MemberId, Member],
    function: str,
    resources: tuple[str, ...],
    version: str | None,
) -> None:
    offered = [member for member in members.values() if _can(member, function, (), version)]
    assert details["unknown"] == ("resources" if offered else "function"), details
    if offered:
        held = [{*member.resources, *member.functions[function][1]} for member in offered]
        lacks = details["lacks"]
        assert isinstance(lacks, list) and len(lacks) == min(len(set(resources) - one) for one in held), details
