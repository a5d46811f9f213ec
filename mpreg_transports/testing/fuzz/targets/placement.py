"""The candidates of a call, the best of them and the drawn one, against the oracle of requests.

Input: the offers, resources and standings of up to six members; then calls. The oracle knows clusters at rest. So it is
asked about the members that take calls, and then about those of them with the best standing and load.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from mpreg_proto.ids import MemberId
from mpreg_proto.notices import Standing
from mpreg_proto.requests import placement
from mpreg_proto.requests.placement import NOISE, Candidate
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.testing.expected import Placement, oracle
from mpreg_transports.testing.fuzz.draws import Draws
from mpreg_transports.testing.placing import index_of, member_id
from mpreg_transports.testing.simulation.functions import Fn, functions_of
from mpreg_transports.testing.simulation.hosts import Spec

_TAGS = ("gpu", "fast", "eu")
_FUNCTIONS = ("f", "g")
_VERSIONS = ("", "1")
_NAMES = tuple("abcdef")


class MemberModel:
    """One member in the model of the target."""

    def __init__(self, draws: Draws) -> None:
        self.standing: Standing = Standing(draws.below(5))
        resources = _tags(draws)
        self.draining: bool = draws.chance(4)
        functions = {
            name: Fn(abs, version=draws.pick(_VERSIONS), resources=_tags(draws), idempotent=draws.byte() % 2 == 1)
            for name in _FUNCTIONS
            if draws.byte() % 2
        }
        self.spec: Spec = Spec(functions=functions, resources=resources)
        self.waiting: int = draws.below(4)
        self.linked: bool = draws.byte() % 2 == 1

    @property
    def takes_calls(self) -> bool:
        """True if calls may be placed on it."""
        return self.standing <= Standing.SUSPECT and not self.draining

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Its standing and load; the lowest is the best."""
        return self.standing is Standing.SUSPECT, self.waiting >= 3, not self.linked


class DrawnLoads:
    """The load of each member, as drawn."""

    def __init__(self, members: Mapping[MemberId, MemberModel]) -> None:
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
    members = {name: MemberModel(draws) for name in _NAMES[: 1 + draws.below(6)]}
    ids = dict(zip(map(member_id, range(len(members))), members, strict=True))
    index = index_of(
        {name: member.spec for name, member in members.items()},
        standings={name: member.standing for name, member in members.items()},
        draining=frozenset(name for name, member in members.items() if member.draining),
    )
    loads = DrawnLoads({member: members[name] for member, name in ids.items()})
    for _ in range(1 + draws.below(4)):
        function, resources = draws.pick((*_FUNCTIONS, "h")), _tags(draws)
        call = Call("call", function, b"", (), resources, draws.pick((None, None, "", "1")))
        found = index.offers(function, resources, call.version)
        able = _expected(call, {name: member for name, member in members.items() if member.takes_calls}).nodes
        assert [ids[one.member] for one in found] == sorted(able), f"{call}: {found}"
        for one in found:
            _is_described(one, members[ids[one.member]], call)
        if found:
            _placed(draws, found, {one.member: members[ids[one.member]] for one in found}, ids, loads, call)
        else:
            _lacking(index.explain_no_match(function, resources, call.version), members, call)


def _expected(call: Call, members: Mapping[str, MemberModel]) -> Placement:
    """Return the placement of `call` if there were only these members."""
    cluster = {name: member.spec for name, member in members.items()}
    return oracle(Request(1, (call,)), cluster, run=False).calls[call.name].placement


def _tags(draws: Draws) -> tuple[str, ...]:
    mask = draws.below(8)
    return tuple(sorted(tag for place, tag in enumerate(_TAGS) if mask >> place & 1))


def _held(member: MemberModel, function: str) -> set[str]:
    """Return all resources of a function on a member."""
    return {*member.spec.resources, *functions_of(member.spec.functions)[function].resources}


def _is_described(one: Candidate, member: MemberModel, call: Call) -> None:
    fn = functions_of(member.spec.functions)[call.function]
    exact = _held(member, call.function) == set(call.resources)
    facts = (one.exact, one.suspect, one.idempotent, one.version)
    assert facts == (exact, member.standing is Standing.SUSPECT, fn.idempotent, fn.version), facts


def _placed(
    draws: Draws,
    found: tuple[Candidate, ...],
    able: Mapping[MemberId, MemberModel],
    ids: Mapping[MemberId, str],
    loads: DrawnLoads,
    call: Call,
) -> None:
    best = min(member.rank for member in able.values())
    equals = _expected(call, {ids[member]: one for member, one in able.items() if one.rank == best}).equals
    expected = [one for one in found if ids[one.member] in equals]
    ranked = placement.rank(found, loads, resources=call.resources, now=0)
    assert list(ranked) == expected, f"{ranked} instead of {expected}"
    chosen = placement.draw(ranked, loads, Rng(draws.byte()), 0)
    assert chosen in expected, "drawn from outside the best rank"
    if len(expected) == 2:  # both are compared
        assert able[chosen.member].waiting == min(able[one.member].waiting for one in expected), "the busier one"
    rows = placement.rejected(found, ranked, loads, 0)
    assert len(rows) == len(found) - len(expected) and placement.choice_reason(ranked, found), rows


def _lacking(details: dict[str, object], members: Mapping[str, MemberModel], call: Call) -> None:
    """Check the details of a call that no member can run."""
    anywhere = replace(call, resources=())
    offered = _expected(anywhere, {name: member for name, member in members.items() if member.takes_calls}).nodes
    assert details["unknown"] == ("resources" if offered else "function"), details
    if offered:
        lacks, asked = details["lacks"], set(call.resources)
        least = min(len(asked - _held(members[name], call.function)) for name in offered)
        assert isinstance(lacks, list) and len(lacks) == least, details
