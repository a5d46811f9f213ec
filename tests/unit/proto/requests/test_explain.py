"""`explain` returns where calls would run; a real node then runs them there."""

import pytest

from mpreg_proto.wire.messages import Explain, Explanation, Request
from tests.helpers.cluster_parties import Ref
from tests.helpers.node_harness import MemberStub, NodeHarness, call, done, spec


def explained(harness: NodeHarness, request: Request) -> Explanation:
    peer = harness.client()
    peer.send(Explain(request))
    (explanation,) = peer.take(Explanation)
    return explanation


def test_one_row_for_each_call_in_the_order_of_the_request() -> None:
    harness = NodeHarness([spec("f")])
    harness.member("alpha", spec("f"), resources=("r", "s"))
    harness.member("beta", spec("f"), resources=("r",))
    made = (
        call("z", "f", Ref("x"), resources=("r",)),
        call("x", "f"),
        call("y", "f", resources=("r", "s")),
    )
    explanation = explained(harness, Request(5, made))
    assert (explanation.id, explanation.fault, [row.name for row in explanation.rows]) == (5, None, ["z", "x", "y"])
    z, x, y = explanation.rows
    assert [node.split("#")[0] for node in z.nodes] == ["beta"] and z.why == "the best of 2"
    assert [(node.split("#")[0], why) for node, why in z.rejected] == [("alpha", "holds more resources than asked for")]
    assert (
        sorted(node.split("#")[0] for node in x.nodes) == ["alpha", "beta", "local"] and x.why == "drawn among 3 equals"
    )
    assert [node.split("#")[0] for node in y.nodes] == ["alpha"] and (y.why, y.rejected) == (
        "the only node that can",
        (),
    )


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(1, ()), 1010),
        (Request(1, (call("x", "f"), call("x", "f"))), 1011),
        (Request(1, (call("x", "f", Ref("y")),)), 1013),
        (Request(1, (call("x", "f", Ref("y")), call("y", "f", Ref("x")))), 1012),
        (Request(1, (call("x", "f"), call("y", "g"))), 1001),
    ],
)
def test_error_of_the_request_as_error_of_explain(request_: Request, code: int) -> None:
    harness = NodeHarness([spec("f")])
    explanation = explained(harness, request_)
    assert explanation.fault is not None and (explanation.fault.code, explanation.rows) == (code, ())
    assert explanation.fault.details["maybe_executed"] is False


def test_reason_in_the_row_of_a_call_that_cannot_run() -> None:
    harness = NodeHarness([spec("f")])
    explanation = explained(harness, Request(1, (call("x", "f"), call("y", "nowhere")), partial=True))
    assert explanation.fault is None and [len(row.nodes) for row in explanation.rows] == [1, 0]
    assert "'nowhere'" in explanation.rows[1].why


def test_explained_nodes_are_the_nodes_that_run_the_calls() -> None:
    harness = NodeHarness([spec("f"), spec("h", resources=("z",))])
    members = [harness.member(f"m{n}", spec("f"), spec("g"), resources=tuple("abc"[: n + 1])) for n in range(3)]
    peer = harness.client()
    for number in range(40):
        made = tuple(
            call(name, "fgh"[(number + place) % 2], resources=tuple("abc"[: (number * 7 + place) % 4]))
            for place, name in enumerate("xyz")
        )
        explanation = explained(harness, Request(number, made))
        assert explanation.fault is None, explanation
        peer.send(Request(number + 1, made))
        ran = where(harness, members)
        for row in explanation.rows:
            assert ran[row.name] in row.nodes, (number, row, ran)


def where(harness: NodeHarness, members: list[MemberStub]) -> dict[str, str]:
    """Return the node that runs each call of the request, and finish all calls."""
    ran: dict[str, str] = {}
    for member in members:
        for request in member.take(Request):
            ran |= dict.fromkeys(request.here, member.cluster.members.own.shown)
            member.send(done(request, *[part for name in request.here for part in (name, 1)]))
    for run in list(harness.runs.values()):
        job = harness.node.worker.job(run.run)
        assert job is not None
        ran[job.call.name] = harness.node.shown
        harness.finish(run)
    return ran
