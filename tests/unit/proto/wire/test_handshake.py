"""The handshake: what two hellos agree on, or why they do not; both sides get the same outcome."""

from itertools import product

import pytest

from mpreg_proto.errors import Fault
from mpreg_proto.ids import MEMBER_ID_BYTES
from mpreg_proto.wire.handshake import FEATURES, Agreed, Authentication, agree, hello, refusal
from mpreg_proto.wire.messages import VERSION, Hello

NODE = hello(cluster="c", member=b"n" * 16, name="node")


def hello_with(low: int, high: int, *features: str) -> Hello:
    return Hello((low, high), features, "c", b"o" * 16, "")


def test_version_and_features_of_the_own_hello() -> None:
    assert (NODE.versions, NODE.features, len(NODE.member)) == ((VERSION, VERSION), FEATURES, MEMBER_ID_BYTES)


@pytest.mark.parametrize(
    ("mine", "theirs", "version"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 9), 3), ((2, 9), (1, 3), 3), ((1, 9), (4, 5), 5), ((3, 3), (1, 3), 3)],
)
def test_highest_common_version(mine: tuple[int, int], theirs: tuple[int, int], version: int) -> None:
    found = agree(hello_with(*mine), hello_with(*theirs))
    assert isinstance(found, Agreed) and found.version == version


@pytest.mark.parametrize("theirs", [(2, 3), (0, 0), (-5, -1), (9, 1), (2**63, 2**64 - 1)])
def test_no_common_version_is_1040_with_both_ranges(theirs: tuple[int, int]) -> None:
    found = agree(NODE, hello_with(*theirs))
    assert isinstance(found, Fault) and found.code == 1040
    assert found.details == {"mine": [1, 1], "yours": list(theirs)}


def test_common_features_in_any_order() -> None:
    mine, theirs = hello_with(1, 1, "a", "b", "d"), hello_with(1, 1, "d", "c", "b", "b")
    first = agree(mine, theirs)
    assert isinstance(first, Agreed) and first.features == ("b", "d")


@pytest.mark.parametrize("size", [1, 15, 17, 1000])
def test_refusal_of_a_member_id_of_another_length(size: int) -> None:
    found = agree(NODE, hello(cluster="c", member=b"x" * size, name=""))
    assert isinstance(found, Fault) and found.code == 1010


@pytest.mark.parametrize(
    ("cluster", "member", "fits"),
    [
        ("c", b"o" * 16, True),
        ("d", b"o" * 16, False),
        ("", b"o" * 16, False),
        ("c", b"", True),
        ("d", b"", False),
        ("", b"", True),
    ],
)
def test_cluster_of_nodes_and_clients(cluster: str, member: bytes, fits: bool) -> None:
    theirs = hello(cluster=cluster, member=member, name="")
    found = agree(NODE, theirs)
    assert isinstance(found, Agreed) is fits
    if isinstance(found, Fault):
        assert (found.code, found.details) == (1005, {"mine": "c", "yours": cluster})


def test_same_outcome_on_both_sides() -> None:
    hellos = [
        Hello(versions, ("a", "b")[:features], cluster, member, "")
        for versions, features, cluster, member in product(
            [(1, 1), (1, 2), (2, 3), (5, 4)], [0, 2], ["", "c", "d"], [b"", b"m" * 16]
        )
    ]
    for mine, theirs in product(hellos, hellos):
        forward, backward = agree(mine, theirs), agree(theirs, mine)
        assert type(forward) is type(backward), (mine, theirs)
        if isinstance(forward, Agreed):
            assert forward == backward
        elif isinstance(backward, Fault):
            assert forward.code == backward.code


def test_agreed_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Agreed(1, ()).version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("verdict", "of_a_node", "of_a_client"),
    [(Authentication.NODE, True, True), (Authentication.CLIENT, False, True), (Authentication.NONE, False, False)],
)
def test_hello_that_a_verdict_allows(verdict: Authentication, of_a_node: bool, of_a_client: bool) -> None:
    for theirs, allowed in ((NODE, of_a_node), (hello(cluster="c", member=b"", name="client"), of_a_client)):
        found = refusal(verdict, theirs)
        assert (found is None) is allowed
        assert found is None or found.code == 1030
