"""The view: a frozen value that a JSON round trip keeps, as `/api/status` and `mpreg nodes` need."""

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
    leaving = harness.member("beta")
    harness.advance(2)
    leaving.leave()
    leaving.send(Goodbye("leaving"))
    leaving.drop()
    harness.advance(3)
    return harness, harness.node.view(now=harness.now)


def test_view_round_trip_through_json() -> None:
    _, seen = view()
    assert msgspec.json.decode(msgspec.json.encode(seen), type=NodeView) == seen


def test_members_in_the_view_with_their_last_change() -> None:
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


def test_functions_in_the_view() -> None:
    _, seen = view()
    assert [(row.function, row.resources, row.idempotent, row.version) for row in seen.functions] == [
        ("f", ("r", "x"), True, "2"),
        ("g", ("s", "t"), False, ""),
    ]
    assert (seen.functions[0].signature, seen.functions[0].doc) == ("(a)", "F.")


def test_waiting_calls_in_the_view() -> None:
    """In the queue of the node itself, and in its backlog, whose members have no place."""
    harness = NodeHarness([spec("slow", concurrency=1)])
    alpha, client = harness.member("alpha", spec("far", concurrency=1)), harness.client()
    for number in range(5):
        client.send(Request(number, (call("x", "slow"),)))
        client.send(Request(10 + number, (call("x", "far"),)))
    worker, backlog = harness.node.worker, harness.node.coordinator.pending_calls.backlog
    assert worker.queued == 1 and backlog.count("slow") == 3
    assert harness.node.view(now=harness.now).waiting == {"far": backlog.count("far"), "slow": 4}
    assert backlog.count("far") == 5 - len(alpha.take(Request)) > 0
    client.drop()
    assert harness.node.view(now=harness.now).waiting == {}


def test_draining_member_in_the_view_unless_suspected() -> None:
    harness = NodeHarness()
    alpha = harness.member("alpha", spec("f"))
    alpha.deliver(alpha.cluster.drain(harness.now + SECOND))

    def standing(name: str) -> str:
        return next(row.standing for row in harness.node.view(now=harness.now).members if row.name == name)

    assert (standing("alpha"), standing("local")) == ("draining", "alive")
    alpha.send(Gossip((Claim(alpha.cluster.me, 0, int(Standing.SUSPECT)),)))
    assert standing("alpha") == "suspect"
    harness.node.leave(now=harness.now)
    assert standing("local") == "left", "nothing was left to do"


def test_draining_own_node_in_the_view() -> None:
    harness = NodeHarness([spec("slow")])
    peer = harness.client()
    peer.send(Request(1, (call("x", "slow", 1),)))
    harness.node.leave(now=harness.now)
    assert [row.standing for row in harness.node.view(now=harness.now).members] == ["draining"]


def test_view_is_independent_of_the_node() -> None:
    harness, seen = view()
    before = msgspec.json.encode(seen)
    harness.node.leave(now=harness.now)
    harness.flush()
    assert msgspec.json.encode(seen) == before
    assert harness.node.view(now=harness.now).draining
    with pytest.raises(AttributeError):
        seen.draining = True  # type: ignore[misc]
