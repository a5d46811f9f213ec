"""The member that a name, the beginning of an id or an address means, and how far it is with leaving."""

from __future__ import annotations

import pytest

from mpreg_proto.cluster.draining import drain_state, find_member
from mpreg_proto.cluster.members import Member
from mpreg_proto.errors import Fault
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import DrainState
from tests.helpers.cluster_network import Network, Peer


def two() -> tuple[Network, Peer]:
    """Return two nodes that know each other, a and b, and the first one."""
    net = Network()
    net.node("a", seeds=())
    net.node("b", seeds=("a",))
    net.run(5)
    return net, net.peers["a"]


def found(peer: Peer, node: str) -> Member:
    member = find_member(peer.cluster, node)
    assert isinstance(member, Member), member
    return member


def fault(peer: Peer, node: str) -> Fault:
    result = find_member(peer.cluster, node)
    assert isinstance(result, Fault), result
    return result


def test_member_by_name_shown_name_id_and_address() -> None:
    net, peer = two()
    other = net.peers["b"].cluster.me
    address = found(peer, "b").addresses[0]
    texts = ["b", found(peer, "b").shown, other.hex(), other.hex()[:4], other.hex()[:6].upper(), address]
    assert [found(peer, text).id for text in texts] == [other] * len(texts)
    assert found(peer, "tcp://" + address.partition("://")[2]).id == other, "a port serves all schemes"
    assert found(peer, "a").id == peer.cluster.me


@pytest.mark.parametrize("node", ["", "c", "b#", "ws://", "://", "62"])
def test_unknown_member(node: str) -> None:
    _, peer = two()
    assert (fault(peer, node).code, fault(peer, node).details["members"]) == (1010, [])


def test_name_of_two_members() -> None:
    net, peer = two()
    first = net.peers["b"].cluster.me
    second = net.node("b", seeds=("a",), identity=b"c" * 16, addresses=("ws://b2:9001",)).cluster.me
    net.run(5)
    error = fault(peer, "b")
    assert error.code == 1010 and sorted(error.details["members"]) == [
        found(peer, one.hex()).shown for one in (first, second)
    ]
    assert found(peer, "ws://b2:9001").id == second


def test_running_member_before_those_that_left() -> None:
    _, peer = two()
    first = found(peer, "b")
    peer.cluster.members.get(first.id).standing = Standing.LEFT  # type: ignore[union-attr]
    assert found(peer, "b") is first and drain_state(peer.cluster, first) is DrainState.LEFT
    peer.cluster.members.get(first.id).standing = Standing.DEAD  # type: ignore[union-attr]
    assert fault(peer, "b").code == 1010 and "DEAD" in fault(peer, "b").message


def test_state_of_a_draining_member() -> None:
    net, peer = two()
    member = found(peer, "b")
    assert drain_state(peer.cluster, member) is None
    net.do(net.peers["b"], net.peers["b"].cluster.drain(net.now))
    net.run(2)
    assert drain_state(peer.cluster, member) is DrainState.DRAINING
