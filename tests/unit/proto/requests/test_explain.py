"""`explain` says where calls would run; asked of a real node, it must be what the node then does."""

import pytest

from mpreg_proto.wire.messages import Explain, Explanation, Request
from tests.helpers.cluster_parties import Ref
from tests.helpers.pair import Desk, Member, call, done, spec


def explained(desk: Desk, request: Request) -> Explanation:
    far = desk.client()
    far.say(Explain(request))
    (told,) = far.take(Explanation)
    return told


def test_a_row_a_call_in_the_requests_order() -> None:
    desk = Desk([spec("f")])
    desk.member("alpha", spec("f"), resources=("r", "s"))
    desk.member("beta", spec("f"), resources=("r",))
    made = (
        call("z", "f", Ref("x"), resources=("r",)),
        call("x", "f"),
        call("y", "f", resources=("r", "s")),
    )
    told = explained(desk, Request(5, made))
    assert (told.id, told.fault, [row.name for row in told.rows]) == (5, None, ["z", "x", "y"])
    z, x, y = told.rows
    assert [node.split("#")[0] for node in z.nodes] == ["beta"] and z.why == "the best of 2"
    assert [(node.split("#")[0], why) for node, why in z.rejected] == [("alpha", "holds more resources than asked for")]
    assert (
        sorted(node.split("#")[0] for node in x.nodes) == ["alpha", "beta", "desk"] and x.why == "drawn among 3 equals"
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
def test_it_ends_with_the_error_that_the_request_would_end_with(request_: Request, code: int) -> None:
    desk = Desk([spec("f")])
    told = explained(desk, request_)
    assert told.fault is not None and (told.fault.code, told.rows) == (code, ())
    assert told.fault.details["maybe_executed"] is False


def test_under_partial_the_row_of_a_call_that_cannot_run_says_why() -> None:
    desk = Desk([spec("f")])
    told = explained(desk, Request(1, (call("x", "f"), call("y", "nowhere")), partial=True))
    assert told.fault is None and [len(row.nodes) for row in told.rows] == [1, 0]
    assert "'nowhere'" in told.rows[1].why


def test_what_it_says_is_where_it_then_runs() -> None:
    desk = Desk([spec("f"), spec("h", resources=("z",))])
    members = [desk.member(f"m{n}", spec("f"), spec("g"), resources=tuple("abc"[: n + 1])) for n in range(3)]
    far = desk.client()
    for number in range(40):
        made = tuple(
            call(name, "fgh"[(number + place) % 2], resources=tuple("abc"[: (number * 7 + place) % 4]))
            for place, name in enumerate("xyz")
        )
        told = explained(desk, Request(number, made))
        assert told.fault is None, told
        far.say(Request(number + 1, made))
        ran = where(desk, members)
        for row in told.rows:
            assert ran[row.name] in row.nodes, (number, row, ran)


def where(desk: Desk, members: list[Member]) -> dict[str, str]:
    """On which node each call of the request is, all of which are then done."""
    ran: dict[str, str] = {}
    for member in members:
        for asked in member.take(Request):
            ran |= dict.fromkeys(asked.here, member.cluster.members.own.shown)
            member.say(done(asked, *[part for name in asked.here for part in (name, 1)]))
    for run in list(desk.runs.values()):
        job = desk.node.worker.job(run.run)
        assert job is not None
        ran[job.call.name] = desk.node.shown
        desk.finish(run)
    return ran
