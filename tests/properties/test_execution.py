"""Any order of results and failures gives the same answer as running the calls one after another."""

from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.request_state import CallState, Execution
from mpreg_proto.wire.messages import Call, Request


@st.composite
def stories(draw: st.DrawFn) -> tuple[Request, frozenset[str]]:
    """A request without cycles, and the names of its calls that fail if they run."""
    names = [f"c{number}" for number in range(draw(st.integers(1, 10)))]
    needs = {
        name: tuple(draw(st.lists(st.sampled_from([*names[:place], "given"]), max_size=3, unique=True)))
        for place, name in enumerate(names)
    }
    calls = tuple(Call(name, "f", b"", needs[name]) for name in draw(st.permutations(names)))
    want = draw(st.one_of(st.none(), st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)))
    request = Request(1, calls, want=want, inputs={"given": b"given"})
    return request, frozenset(draw(st.sets(st.sampled_from(names), max_size=3)))


def result(call: Call, inputs: dict[str, bytes]) -> bytes:
    """Return the result of a call, which depends on its inputs."""
    return b"%s(%s)" % (call.name.encode(), b",".join(inputs[need] for need in sorted(call.dependencies)))


def sequential(request: Request, failing: frozenset[str]) -> tuple[dict[str, bytes], dict[str, int]]:
    """Run each call after its dependencies; return the results, and the codes of the failures."""
    done, failed = dict(request.inputs), dict[str, int]()
    open_ = list(request.calls)
    while open_:
        for call in open_:
            if all(need in done or need in failed for need in call.dependencies):
                break
        open_.remove(call)
        if any(need in failed for need in call.dependencies):
            failed[call.name] = 1021
        elif call.name in failing:
            failed[call.name] = 1003
        else:
            done[call.name] = result(call, done)
    return done, failed


def begin(request: Request) -> Execution:
    made = plan(request, DEFAULT)
    assert isinstance(made, Plan)
    return Execution(RequestId(1), request, made, link=LinkId(1), arrived=0, deadline=1)


@given(stories(), st.data())
def test_any_interleaving_gives_the_sequential_result(
    story: tuple[Request, frozenset[str]], data: st.DataObject
) -> None:
    request, failing = story
    done, failed = sequential(request, failing)
    execution = begin(request)
    ready, handed_out = execution.start(0), dict[str, None]()
    while ready:
        name = data.draw(st.sampled_from(ready), label="the next to end")
        ready.remove(name)
        assert name not in handed_out, "each call is handed out once"
        handed_out[name] = None
        given = dict(execution.inputs_of(name))
        assert given == {need: done[need] for need in execution.plan.calls[name].dependencies}
        execution.move(name, CallState.DISPATCHED, 0)
        execution.validate()
        if name in failing:
            execution.fail(name, Fault(1003, name), 0)
        else:
            ready += execution.complete(name, result(execution.plan.calls[name], given), 0)
    assert execution.finished
    assert set(handed_out) == {call.name for call in request.calls if failed.get(call.name) != 1021}
    wanted = list(execution.plan.wanted)
    assert {row.name: row.value for row in execution.done()} == {name: done[name] for name in wanted if name in done}
    assert {row.name: row.fault.code for row in execution.failed()} == {
        name: failed[name] for name in wanted if name in failed
    }
    assert [row.name for row in execution.done()] == [name for name in wanted if name in done]
    assert (execution.first_fault is not None) is bool(failed)
    assert set(execution.values) == {name for name in wanted if name in done}, "nothing else is kept"


@given(stories(), st.data())
def test_cause_of_a_skipped_call_is_a_failed_dependency(
    story: tuple[Request, frozenset[str]], data: st.DataObject
) -> None:
    request, failing = story
    execution = begin(request)
    ready = execution.start(0)
    while ready:
        name = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        execution.move(name, CallState.DISPATCHED, 0)
        if name in failing:
            execution.fail(name, Fault(1003, name), 0)
        else:
            ready += execution.complete(name, b"", 0)
    for name, fault in execution.faults.items():
        if fault.code == 1021:
            because = fault.details["because"]
            assert because in failing and execution.faults[because].code == 1003
            assert because in ancestors(execution, name)


def ancestors(execution: Execution, name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        fresh = [need for need in execution.plan.dependencies.get(waiting.pop(), ()) if need not in found]
        found.update(fresh)
        waiting += fresh
    return found
