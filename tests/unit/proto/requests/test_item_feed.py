"""The items of a generator on their way: kept until one is taken, collected if the list is needed, counted."""

import pytest

from mpreg_proto.requests.item_feed import ItemFeed, waits_for_itself
from mpreg_proto.wire.messages import Call, ItemsParameter
from mpreg_proto.wire.value_limits import MAX_DEPTH, ValueTooLarge
from mpreg_proto.wire.values import Ref, ValueCodec

CODEC = ValueCodec()
ITEMS = tuple(CODEC.encode(number) for number in range(3))


def stream(*, list_needed: bool = False) -> ItemFeed:
    made = ItemFeed("gen", "use", list_needed=list_needed)
    made.receive(ITEMS)
    return made


def test_items_are_kept_until_the_first_is_taken() -> None:
    made = stream()
    assert made.kept == ITEMS and not made.started and made.size == 3
    assert made.take(0) == made.take(-5) == 0 and not made.started
    assert made.take(1) == 1 and made.started and made.kept == ()
    made.receive(ITEMS)
    assert made.kept == () and made.received == 6 and made.size == 0


def test_credit_is_never_more_than_was_received() -> None:
    made = stream()
    assert made.take(2) == 2
    assert made.take(100) == 1
    assert made.use_all() == 0
    made.receive(ITEMS[:1])
    assert made.use_all() == 1


def test_list_is_collected_only_if_it_is_needed() -> None:
    plain, needed = stream(), stream(list_needed=True)
    assert (plain.list_needed, needed.list_needed) == (False, True)
    for made in (plain, needed):
        assert CODEC.decode(made.joined()) == [0, 1, 2], "none is taken yet"
    assert (plain.list_size, needed.list_size) == (0, 3)
    needed.take(3)
    needed.receive(ITEMS[:1])
    assert CODEC.decode(needed.joined()) == [0, 1, 2, 0]


def test_stream_that_becomes_a_list() -> None:
    made = stream()
    assert made.become_list() == 3 and made.list_needed
    made.receive(ITEMS[1:])
    assert made.use_all() == 2
    assert CODEC.decode(made.joined()) == [0, 1, 2, 1, 2]


def test_list_over_a_limit() -> None:
    deep: object = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    made = ItemFeed("gen", "use", list_needed=False)
    made.receive((CODEC.encode(deep),))
    with pytest.raises(ValueTooLarge):
        made.joined()


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter", "accepted"),
    [
        ([Ref("gen")], {}, ItemsParameter("rows", 0), True),
        ([1, Ref("gen")], {}, ItemsParameter("rows", 1), True),
        ([1], {"rows": Ref("gen")}, ItemsParameter("rows", 1), True),
        ([], {"rows": Ref("gen")}, ItemsParameter("rows"), True),
        ([Ref("gen")], {}, ItemsParameter("rows"), False),
        ([Ref("gen")], {}, None, False),
        ([Ref("gen"), 1], {}, ItemsParameter("rows", 1), False),
        ([[Ref("gen")]], {}, ItemsParameter("rows", 0), False),
        ([Ref("gen", (0,))], {}, ItemsParameter("rows", 0), False),
        ([Ref("gen"), Ref("gen")], {}, ItemsParameter("rows", 0), False),
        ([Ref("gen")], {"more": {"x": Ref("gen", (1,))}}, ItemsParameter("rows", 0), False),
        ([Ref("other")], {}, ItemsParameter("rows", 0), False),
        (["gen"], {}, ItemsParameter("rows", 0), False),
        ([Ref("gen"), (Ref("other"), {2**80})], {}, ItemsParameter("rows", 0), True),
    ],
)
def test_reference_that_is_a_whole_argument(
    args: list[object], kwargs: dict[str, object], parameter: ItemsParameter | None, accepted: bool
) -> None:
    call = Call("use", "use", CODEC.encode([args, kwargs]), ("gen", "other"))
    made = stream()
    assert made.accepts(call, parameter) is accepted
    assert made.accepts(call, parameter) is accepted


@pytest.mark.parametrize(
    "args", [b"", b"\xc1", b"\x92\x90", CODEC.encode(5), CODEC.encode([1, 2]), CODEC.encode([[], []])]
)
def test_unreadable_arguments_accept_nothing(args: bytes) -> None:
    assert not stream().accepts(Call("use", "use", args, ("gen",)), ItemsParameter("rows", 0))


def test_consumer_that_waits_for_the_list() -> None:
    """use(gen, total(gen)): the generator would wait for `use`, that for `total`, and that for the generator."""
    needs = {"use": ("gen", "total"), "total": ("gen",)}
    assert waits_for_itself("gen", "use", dependencies=needs, streams={}, fed={})
    assert not waits_for_itself("gen", "use", dependencies={"use": ("gen", "config")}, streams={}, fed={})


def test_consumer_that_waits_for_the_list_of_a_generator_before_its_own() -> None:
    """A chain first -> gen -> use, and `use` needs the list of `first`, which ends only once `gen` goes on."""
    one = ItemFeed("first", "gen", list_needed=True)
    needs = {"gen": ("first",), "use": ("gen", "first")}
    assert waits_for_itself("gen", "use", dependencies=needs, streams={"first": one}, fed={"gen": one})
    apart = {"gen": ("first",), "use": ("gen", "root"), "root": ("before",)}
    assert not waits_for_itself("gen", "use", dependencies=apart, streams={"first": one}, fed={"gen": one})


def test_consumers_of_two_generators_that_wait_for_each_other() -> None:
    """use-1(gen-1, list of gen-2) and use-2(gen-2, list of gen-1)."""
    one = ItemFeed("gen-1", "use-1", list_needed=True)
    needs = {"use-1": ("gen-1", "gen-2"), "use-2": ("gen-2", "gen-1")}
    assert waits_for_itself("gen-2", "use-2", dependencies=needs, streams={"gen-1": one}, fed={"use-1": one})
    assert not waits_for_itself("gen-2", "use-2", dependencies=needs, streams={}, fed={})
