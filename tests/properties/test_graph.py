"""Plans of random graphs against a slow recursive oracle; and large graphs with a time limit."""

import time

from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.errors import Fault
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.rng import Rng
from mpreg_proto.wire.messages import Call, Request

Needs = dict[str, list[str]]


def request(needs: Needs) -> Request:
    return Request(1, tuple(Call(name, "f", b"", tuple(others)) for name, others in needs.items()))


@st.composite
def acyclic(draw: st.DrawFn) -> Needs:
    """Any graph without cycles: each call depends on some calls before it; then all are shuffled."""
    size = draw(st.integers(1, 12))
    names = [f"c{number}" for number in range(size)]
    needs = {
        name: draw(st.lists(st.sampled_from(names[:place]), max_size=4)) if place else []
        for place, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@st.composite
def anything(draw: st.DrawFn) -> Needs:
    """Any graph, with or without cycles."""
    names = [f"c{number}" for number in range(draw(st.integers(1, 8)))]
    return {name: draw(st.lists(st.sampled_from(names), max_size=3)) for name in names}


def circular(needs: Needs) -> bool:
    """Return whether a call depends on itself, by a walk along every path."""

    def reaches(start: str, target: str, seen: frozenset[str]) -> bool:
        return any(
            other == target or (other not in seen and reaches(other, target, seen | {other})) for other in needs[start]
        )

    return any(reaches(name, name, frozenset()) for name in needs)


@given(acyclic())
def test_plan_of_an_acyclic_graph_matches_the_oracle(needs: Needs) -> None:
    made = plan(request(needs), DEFAULT)
    assert isinstance(made, Plan)
    assert list(made.calls) == list(needs)
    needed = {other for others in needs.values() for other in others}
    assert made.leaves == tuple(name for name in needs if name not in needed) == tuple(made.wanted)
    assert {name: set(others) for name, others in made.dependencies.items()} == {
        name: set(others) for name, others in needs.items() if others
    }
    assert all(len(others) == len(set(others)) for others in made.dependencies.values())
    assert made.dependents == {name: tuple(other for other in needs if name in needs[other]) for name in needed}


@given(anything())
def test_cycle_is_found_exactly_if_there_is_one(needs: Needs) -> None:
    made = plan(request(needs), DEFAULT)
    assert isinstance(made, Fault) is circular(needs)
    if isinstance(made, Fault):
        assert made.code == 1012
        circle = made.details["cycle"]
        assert len(set(circle)) == len(circle) > 0
        assert all(after in needs[before] for before, after in zip(circle, circle[1:] + circle[:1], strict=True))


@given(anything(), st.lists(st.sampled_from([f"c{number}" for number in range(10)]), min_size=1, max_size=4))
def test_unknown_names_are_reported_before_cycles(needs: Needs, want: list[str]) -> None:
    made = plan(Request(1, request(needs).calls, want=tuple(want)), DEFAULT)
    if len(set(want)) < len(want):
        assert isinstance(made, Fault) and made.code == 1010
    elif any(name not in needs for name in want):
        assert isinstance(made, Fault) and made.code == 1013
    elif circular(needs):
        assert isinstance(made, Fault) and made.code == 1012
    else:
        assert isinstance(made, Plan) and list(made.wanted) == want


def timed(title: str, needs: Needs) -> Plan | Fault:
    """Return the plan. Work that grows with the square of the calls would take minutes."""
    asked = request(needs)
    begun = time.process_time()  # other processes may use the machine
    made = plan(asked, DEFAULT)
    took = time.process_time() - begun
    print(f"{title}: planned in {took * 1000:.1f} ms")
    assert took < 5, took
    return made


def test_plan_of_a_chain_of_10000_calls() -> None:
    names = [f"call-{number}" for number in range(10_000)]
    needs: Needs = {name: names[place - 1 : place] if place else [] for place, name in enumerate(names)}
    for title, order in (("chain", names), ("chain backwards", names[::-1])):
        made = timed(title, {name: needs[name] for name in order})
        assert isinstance(made, Plan) and made.leaves == (names[-1],)


def test_plan_of_9999_dependencies_of_one_call() -> None:
    names = [f"call-{number}" for number in range(9_999)]
    needs: Needs = {**{name: [] for name in names}, "join": names}
    made = timed("9,999 into one", needs)
    assert isinstance(made, Plan) and made.leaves == ("join",) and made.dependencies["join"] == tuple(names)


def test_plan_of_9999_dependents_of_one_call() -> None:
    names = [f"call-{number}" for number in range(9_999)]
    made = timed("one into 9,999", {"root": [], **{name: ["root"] for name in names}})
    assert isinstance(made, Plan) and made.leaves == tuple(names)


def test_plan_of_a_cycle_of_10000_calls() -> None:
    names = [f"call-{number}" for number in range(10_000)]
    made = timed("circle", {name: [names[place - 1]] for place, name in enumerate(names)})
    assert isinstance(made, Fault) and len(made.details["cycle"]) == 10_000


def test_plan_of_10000_random_calls() -> None:
    rng = Rng(11)
    names = [f"call-{number}" for number in range(10_000)]
    needs = {
        name: [names[rng.below(place)] for _ in range(rng.below(4))] if place else []
        for place, name in enumerate(names)
    }
    assert isinstance(timed("random, seed 11", needs), Plan)
