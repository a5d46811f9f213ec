"""A node that has left hangs up links that open later, because nothing else would end them."""

import pytest

from mpreg_proto.effects import Framing, HangUp, Notify
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.notices import Left
from mpreg_proto.rng import Rng


@pytest.mark.parametrize("dialled", [None, Address("ws://127.0.0.1:1")])
def test_link_opened_after_leaving(dialled: Address | None) -> None:
    node = Node(NodeConfig(), me=MemberId(b"a" * 16), rng=Rng(0), entropy=bytes, now=0)
    node.leave(now=1)
    assert node.left
    assert Notify(Left()) in node.drain()
    link = LinkId(1)
    node.link_opened(link, framing=Framing.STREAM, dialled=dialled, now=2)
    assert node.drain() == [HangUp(link, 1001)]
    node.receive(link, b"what comes meanwhile", now=3)
    node.link_closed(link, now=4)
    assert node.drain() == []
    assert node.next_timeout() is None
