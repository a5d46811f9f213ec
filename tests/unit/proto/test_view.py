"""The view is frozen and plain: what `/api/status` and `mpreg nodes` read must survive JSON."""

import msgspec
import pytest

from mpreg_proto.limits import SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Claim, Goodbye, News, Request
from tests.helpers.pair import Desk, call, spec


def view() -> tuple[Desk, NodeView]:
    desk = Desk(
        [spec("f", resources=("x",), idempotent=True, version="2", signature="(a)", doc="F.")], resources=("r",)
    )
    desk.member("alpha", spec("g"), resources=("s", "t"))
    gone = desk.member("beta")
    desk.advance(2)
    gone.leave()
    gone.say(Goodbye("leaving"))
    gone.drop()
    desk.advance(3)
    return desk, desk.node.view(now=desk.now)


def test_it_survives_json() -> None:
    _, seen = view()
    assert msgspec.json.decode(msgspec.json.encode(seen), type=NodeView) == seen


def test_it_says_who_is_there_and_since_when() -> None:
    desk, seen = view()
    assert (seen.id, seen.shown, seen.cluster) == (desk.node.me.hex(), desk.node.shown, "default-cluster")
    assert (seen.draining, seen.synced, seen.links) == (False, True, 1)
    rows = [(row.name, row.standing, row.linked, row.me, row.functions, row.resources) for row in seen.members]
    assert rows == [
        ("alpha", "alive", True, False, 1, ("s", "t")),
        ("beta", "left", False, False, 0, ()),
        ("desk", "alive", False, True, 1, ("r",)),
    ]
    assert [row.since for row in seen.members] == [5 * 10**9, 3 * 10**9, 5 * 10**9]
    assert [row.id for row in seen.members][2] == seen.id


def test_it_says_who_offers_what() -> None:
    _, seen = view()
    assert [(row.function, row.resources, row.idempotent, row.version) for row in seen.functions] == [
        ("f", ("r", "x"), True, "2"),
        ("g", ("s", "t"), False, ""),
    ]
    assert (seen.functions[0].signature, seen.functions[0].doc) == ("(a)", "F.")


def test_it_says_who_drains_unless_it_is_in_doubt() -> None:
    desk = Desk()
    alpha = desk.member("alpha", spec("f"))
    alpha.tell(alpha.cluster.drain(desk.now + SECOND))

    def standing(name: str) -> str:
        return next(row.standing for row in desk.node.view(now=desk.now).members if row.name == name)

    assert (standing("alpha"), standing("desk")) == ("draining", "alive")
    alpha.say(News((Claim(alpha.cluster.me, 0, int(Standing.SUSPECT)),)))
    assert standing("alpha") == "suspect"
    desk.node.leave(now=desk.now)
    assert standing("desk") == "left", "nothing was left to do"


def test_a_node_that_drains_itself_says_so_of_itself() -> None:
    desk = Desk([spec("slow")])
    far = desk.client()
    far.say(Request(1, (call("x", "slow", 1),)))
    desk.node.leave(now=desk.now)
    assert [row.standing for row in desk.node.view(now=desk.now).members] == ["draining"]


def test_it_does_not_change_with_the_node() -> None:
    desk, seen = view()
    before = msgspec.json.encode(seen)
    desk.node.leave(now=desk.now)
    desk.flush()
    assert msgspec.json.encode(seen) == before
    assert desk.node.view(now=desk.now).draining
    with pytest.raises(AttributeError):
        seen.draining = True  # type: ignore[misc]
