"""Calls to a plan, against the oracle of requests: the same plan, or a fault of the same code.

Input: calls with names of few letters, so that names collide, and their dependencies. The first byte may select a large
graph instead, of up to 10,000 calls: a chain, a fan, a ladder of diamonds, each perhaps closed to a circle.
"""

from __future__ import annotations

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import Limits
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.wire.messages import Call, Request
from mpreg_transports.testing.expected import is_cycle, oracle
from mpreg_transports.testing.fuzz.draws import Draws
from mpreg_transports.testing.simulation.hosts import Spec

_LIMITS = Limits(name_length=5)
_CLUSTER = {"node": Spec(functions={"f": abs})}
"""A plan does not depend on offers: each function of a valid request is offered here."""
_LARGE = (10,) * 8 + (100,) * 5 + (1_000,) * 2 + (10_000,)
"""The sizes of large graphs, one for each of 16 draws. Most are small: large ones take thousands of times longer."""


def harness(data: bytes) -> None:
    """Compare a small graph with the oracle, or sometimes a large one with its known properties."""
    draws = Draws(data)
    if draws.byte() >= 253:
        _large(draws)
        return
    calls = tuple(_call(draws) for _ in range(draws.below(10)))
    want = tuple(_name(draws) for _ in range(draws.below(3))) if draws.chance(4) else None
    given = {_name(draws): b"\xc0" for _ in range(draws.below(3))} if draws.chance(4) else {}
    timeout = draws.integer() if draws.chance(8) else None
    request = Request(1, calls, want=want, inputs=given, timeout=timeout, wait=-1 if draws.chance(16) else 0)
    made, code = plan(request, _LIMITS), oracle(request, _CLUSTER, limits=_LIMITS, run=False).code
    if isinstance(made, Fault):
        assert made.code == code, f"{made} instead of {code} for {request}"
        if code == 1012:
            assert is_cycle(made.details["cycle"], request), made
        return
    assert code is None, f"{request} is planned, and is {code}"
    _is_right(made, request)
    _runs(made, request)


def _call(draws: Draws) -> Call:
    needs = tuple(_name(draws) for _ in range(draws.below(3)))
    return Call(_name(draws), "" if draws.chance(64) else "f", b"", needs)


def _name(draws: Draws) -> str:
    return "toolong" if draws.chance(64) else draws.pick(("a", "b", "c", "d", "e", "f", "g", "h", "i", ""))


def _is_right(made: Plan, request: Request) -> None:
    calls = {call.name: call for call in request.calls}
    inner = {name: [need for need in call.dependencies if need in calls] for name, call in calls.items()}
    used = {need for needs in inner.values() for need in needs}
    assert made.leaves == tuple(name for name in calls if name not in used), "leaves"
    assert tuple(made.wanted) == (request.want or made.leaves), "wanted"
    assert {name: set(made.dependencies.get(name, ())) for name in calls} == {
        n: set(needs) for n, needs in inner.items()
    }
    for name in calls:
        waiting = [other for other in calls if name in inner[other]]
        assert list(made.dependents.get(name, ())) == waiting, "dependents"


def _runs(made: Plan, request: Request) -> None:
    """Complete each call when it becomes ready; check that all become ready, each once and after its dependencies."""
    execution = Execution(RequestId(1), request, made, link=LinkId(1), arrived=0, deadline=1)
    ready, done = execution.start(0), dict[str, None]()
    while ready:
        name = ready.pop()
        assert name not in done and all(need in done for need in made.dependencies.get(name, ())), "too early"
        given = execution.inputs_of(name)
        assert set(given) == set(made.calls[name].dependencies), f"{name} is given {list(given)}"
        done[name] = None
        execution.move(name, CallState.POSSIBLY_STARTED, 0)
        ready += execution.complete(name, b"\xc0", 0)
    execution.validate()
    assert execution.finished and list(execution.values) == [name for name in done if name in made.wanted], (
        "what is kept"
    )


def _large(draws: Draws) -> None:
    size, shape, closed = draws.pick(_LARGE), draws.below(3), draws.byte() % 2 == 1
    needs: dict[int, tuple[int, ...]] = {}
    for place in range(size):
        if shape == 0:
            needs[place] = (place - 1,) if place else ()
        elif shape == 1:
            needs[place] = tuple(range(place)) if place == size - 1 else ()
        else:  # each level of two calls depends on both calls of the level below
            floor = place - place % 2
            needs[place] = (floor - 2, floor - 1) if floor else ()
    if closed:
        needs[0] = (size - 1,)
    calls = tuple(Call(str(place), "f", b"", tuple(map(str, needs[place]))) for place in draws_order(draws, size))
    made = plan(Request(1, calls), Limits())
    circular = closed and (shape == 1 or size > 1)
    if isinstance(made, Fault):
        assert circular and made.code == 1012, made
        assert is_cycle(made.details["cycle"], Request(1, calls)), made
        return
    assert not circular, "a circle is planned"
    _runs(made, Request(1, calls))


def draws_order(draws: Draws, size: int) -> list[int]:
    """Return 0 to `size` - 1 forwards, backwards, or shuffled by a stride."""
    way = draws.below(3)
    if way < 2:
        return list(range(size))[:: -1 if way else 1]
    return [place * 7 % size for place in range(size)] if size % 7 else list(range(size))
