"""The configuration of a node: its defaults, and the use that a node makes of each field."""

import msgspec
import pytest

from mpreg_proto.effects import Dial, Framing, Send
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.wire import dialects
from mpreg_proto.wire.handshake import hello
from mpreg_proto.wire.messages import Hello, Refused
from tests.helpers.node_harness import CODEC, NodeHarness, spec

ME = MemberId(b"m" * 16)
X, Y = Address("ws://x:1"), Address("ws://y:1")


def node(config: NodeConfig) -> Node:
    return Node(config, me=ME, rng=Rng(0), entropy=bytes, now=0)


def sent(one: Node, theirs: Hello) -> list[object]:
    """Return the messages that a node sends over a new link after the hello of the peer."""
    link = LinkId(1)
    one.link_opened(link, framing=Framing.NATIVE_MESSAGES, dialled=None, now=0)
    one.receive(link, dialects.encode(theirs), now=0)
    return [dialects.decode(effect.chunks[0]) for effect in one.drain() if isinstance(effect, Send)]


def test_defaults() -> None:
    assert msgspec.structs.asdict(NodeConfig()) == {
        "name": "node",
        "cluster_id": "default-cluster",
        "addresses": (),
        "seeds": (),
        "resources": (),
        "limits": DEFAULT,
    }


def test_frozen_fields_by_name() -> None:
    config = NodeConfig(name="a")
    with pytest.raises(AttributeError):
        config.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        NodeConfig("a")  # type: ignore[misc]
    assert msgspec.structs.replace(config, seeds=(X,)) == NodeConfig(name="a", seeds=(X,)) != config


def test_node_without_configuration_is_alone() -> None:
    one = node(NodeConfig())
    assert one.drain() == [] and one.cluster.synced()
    assert [(row.name, row.me) for row in one.view(now=0).members] == [("node", True)]


def test_name_may_repeat_in_a_cluster() -> None:
    harness = NodeHarness()
    assert harness.node.config.name == "local"
    alpha = harness.member("local", spec("f"))
    rows = harness.node.view(now=harness.now).members
    assert sorted((row.name, row.me) for row in rows) == [("local", False), ("local", True)]
    assert alpha.hung_up is None and len({row.shown for row in rows}) == 2


@pytest.mark.parametrize(
    ("cluster", "member", "accepted"),
    [("blue", b"p" * 16, True), ("red", b"p" * 16, False), ("red", b"", False), ("blue", b"", True), ("", b"", True)],
)
def test_cluster_id_decides_which_peers_are_accepted(cluster: str, member: bytes, accepted: bool) -> None:
    messages = sent(node(NodeConfig(cluster_id="blue")), hello(cluster=cluster, member=member, name="peer"))
    assert any(isinstance(one, Refused) for one in messages) is not accepted
    assert [one.cluster for one in messages if isinstance(one, Hello)] == (["blue"] if accepted else [])


def test_addresses_until_advertise_sets_others() -> None:
    one = node(NodeConfig(addresses=(X,)))
    assert one.cluster.members.own.card.addresses == (X,)
    one.advertise((Y,), now=1)
    assert one.cluster.members.own.card.addresses == (Y,) and one.config.addresses == (X,)


def test_seeds_are_dialled_until_one_answers() -> None:
    one = node(NodeConfig(seeds=(X, Y)))
    assert one.drain() == [Dial(X), Dial(Y)]
    for address in (X, Y):
        one.dial_failed(address, now=1)
    dialled: set[Address] = set()
    while (at := one.next_timeout()) is not None and at <= 10 * SECOND:
        one.wake(now=at)
        for effect in one.drain():
            if isinstance(effect, Dial):
                dialled.add(effect.address)
                one.dial_failed(effect.address, now=at)
    assert dialled == {X, Y}


def test_resources_apply_to_each_function() -> None:
    one = node(NodeConfig(resources=("gpu",)))
    one.offer(spec("f", resources=("disk",)), now=0)
    (row,) = one.view(now=0).functions
    assert (row.function, row.resources) == ("f", ("disk", "gpu"))


def test_limits_of_one_node() -> None:
    assert NodeConfig(limits=Limits(calls=5)).limits.calls == 5
    one, body = node(NodeConfig(limits=Limits(message=256))), CODEC.encode(b"x" * 256)
    sent(one, hello(cluster="", member=b"", name="c"))
    one.receive(LinkId(1), body, now=1)
    (refused,) = [dialects.decode(effect.chunks[0]) for effect in one.drain() if isinstance(effect, Send)]
    assert isinstance(refused, Refused) and refused.fault.code == 1014
