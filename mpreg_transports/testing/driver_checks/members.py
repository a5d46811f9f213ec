"""A member of the cluster that spreads its addresses and then vanishes: a real `Node` on one blocking socket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from mpreg_proto.config import NodeConfig
from mpreg_proto.effects import Send
from mpreg_proto.ids import MEMBER_ID_BYTES, Address, LinkId, MemberId
from mpreg_proto.node import Node
from mpreg_proto.rng import Rng
from mpreg_proto.wire.framing import Framing
from mpreg_transports.testing.driver_checks.peers import Peer

_LINK = LinkId(1)
clock: Callable[[], int] = time.monotonic_ns


class VanishingMember:
    """A member behind `peer`, which has sent nothing yet. `addresses` are those at which it can allegedly be dialled.

    Of two members the one with the smaller id dials; the id of this one is the largest.
    """

    def __init__(self, peer: Peer, addresses: Sequence[str], *, cluster_id: str, number: int) -> None:
        self._peer = peer
        me = MemberId(bytes([0xFF] * (MEMBER_ID_BYTES - 1) + [number]))
        known = tuple(Address(one) for one in addresses)
        config = NodeConfig(name=f"member-{number}", cluster_id=cluster_id, addresses=known)
        self._node = Node(config, me=me, rng=Rng(number), entropy=os.urandom, now=clock())

    def join(self) -> None:
        """Dial the node under test and exchange hellos and gossip with it. Raises Unexpected."""
        self._node.link_opened(_LINK, framing=Framing.NATIVE_MESSAGES, dialled=Address("test://driver"), now=clock())
        self._flush()
        while sum(row.standing == "alive" for row in self._node.view(now=clock()).members) < 2:
            self._node.receive(_LINK, self._peer.next("the hello and the gossip of a node"), now=clock())
            self._flush()

    def vanish(self) -> None:
        """Reset the connection."""
        self._peer.reset()

    def _flush(self) -> None:
        for effect in self._node.drain():
            if isinstance(effect, Send):
                self._peer.write(b"".join(self._peer.framed(chunk) for chunk in effect.chunks))
