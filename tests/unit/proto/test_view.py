"""The view is frozen and plain: what `/api/status` and `mpreg nodes` read must survive JSON."""

import msgspec
import pytest

from mpreg_proto.limits import SECOND
from mpreg_proto.notices import Standing
from mpreg_proto.view import NodeView
from mpreg_proto.wire.messages import Claim, Goodbye, Gossip, Request
from tests.helpers.node_harness import NodeHarness, call, spec


def view() -> tuple[NodeHarness, NodeView]:
    harness = NodeHarness(
        [spec("f", resources=("x",), idempotent=True, version="2", signature="(a)", doc="F.")], resources=("r",)
    )
    harness.member("alpha", spec("g"), resources=("s", "t"))
    gone = harness.member("beta")
    harness.advance(2)
    gone.leave()
    gone.send(Goodbye("leaving"))
    gone.drop()
    harness.advance(3)
    return harness, harness.node.view(now=harness.now)


def test_it_survives_json() -> None:
    _, seen = view()
    assert msgspec.json.decode(msgspec.json.encode(seen), type=NodeView) == seen


def test_it_says_who_is_there_and_since_when() -> None:
    harness, seen = view()
    assert (seen.id, seen.shown, seen.cluster) == (harness.node.me.hex(), harness.node.shown, "default-cluster")
    assert (seen.draining, seen.synced, seen.links) == (False, True, 1)
    rows = [(row.name, row.standing, row.linked, row.me, row.functions, row.resources) for row in seen.members]
    assert rows == [
        ("alpha", "alive", True, False, 1, ("s", "t")),
        ("beta", "left", False, False, 0, ()),
        ("local", "alive", False, True, 1, ("r",)),
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
    harness = NodeHarness()
    alpha = harness.member("alpha", spec("f"))
    alpha.tell(alpha.cluster.drain(harness.now + SECOND))

    def standing(name: str) -> str:
        return next(row.standing for row in harness.node.view(now=harness.now).members if row.name == name)

    assert (standing("alpha"), standing("local")) == ("draining", "alive")
    alpha.send(Gossip((Claim(alpha.cluster.me, 0, int(Standing.SUSPECT)),)))
    assert standing("alpha") == "suspect"
    harness.node.leave(now=harness.now)
    assert standing("local") == "left", "nothing was left to do"


def test_a_node_that_drains_itself_says_so_of_itself() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.client()
    peer.send(Request(1, (call("x", "slow", 1),)))
    harness.node.leave(now=harness.now)
    assert [row.standing for row in harness.node.view(now=harness.now).members] == ["draining"]


def test_it_does_not_change_with_the_node() -> None:
    harness, seen = view()
    before = msgspec.json.encode(seen)
    harness.node.leave(now=harness.now)
    harness.flush()
    assert msgspec.json.encode(seen) == before
    assert harness.node.view(now=harness.now).draining
    with pytest.raises(AttributeError):
        seen.draining = True  # type: ignore[misc]
