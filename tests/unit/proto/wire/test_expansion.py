"""Expansion of references in arguments: sizes are counted first, and a refused expansion builds nothing."""

import tracemalloc

import pytest

from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.expansion import expand
from mpreg_proto.wire.values import MalformedValue, MissingReference, Ref, ValueCodec
from tests.benchmarks.growth import values as growth

CODEC = ValueCodec()
SIZE, ELEMENTS = DEFAULT.expansion, DEFAULT.expansion_elements


def filled(args: object, *, size: int = SIZE, elements: int = ELEMENTS, **inputs: object) -> object:
    encoded = {name: CODEC.encode(value) for name, value in inputs.items()}
    return expand(CODEC, CODEC.encode(args), encoded, size=size, elements=elements)


def test_one_reference_to_a_value_at_the_limits() -> None:
    for value in ([0] * 1_000_000, (0,) * 1_000_000, dict.fromkeys(range(100000), 0), b"x" * (30 << 20)):
        assert filled([[Ref("a")], {}], a=value) == [[value], {}]


@pytest.mark.parametrize("key", [(None, 1), (1, (2,)), frozenset({1})])
def test_reference_beside_a_map_with_a_container_as_key(key: object) -> None:
    assert filled([[{key: 1}, Ref("a")], {}], a=2) == [[{key: 1}, 2], {}]


@pytest.mark.parametrize("refs", [2, 100])
def test_elements_over_the_default_limit(refs: int) -> None:
    with pytest.raises(MalformedValue) as caught:
        filled([Ref("a")] * refs, a=[0] * 600_000)
    assert caught.value.limit == {"limit": "expansion_elements", "value": 1_000_000, "came": refs * 600_000}


def test_bytes_over_the_default_limit() -> None:
    with pytest.raises(MalformedValue) as caught:
        filled([Ref("a")] * 3, a=b"x" * (30 << 20))
    assert caught.value.limit == {"limit": "expansion", "value": SIZE, "came": 3 * ((30 << 20) + 5)}


def test_bytes_of_all_whole_results_are_counted_first() -> None:
    a, b = [0] * 10, b"x" * 30
    uses = [Ref("a"), Ref("a"), Ref("b"), Ref("b")]
    total = 2 * (len(CODEC.encode(a)) + len(CODEC.encode(b)))
    with pytest.raises(MalformedValue) as caught:
        filled(uses, size=40, elements=15, a=a, b=b)
    assert caught.value.limit == {"limit": "expansion", "value": 40, "came": total}
    with pytest.raises(MalformedValue) as caught:
        filled(uses, size=total, elements=19, a=a, b=b)
    assert caught.value.limit == {"limit": "expansion_elements", "value": 19, "came": 20}
    assert filled(uses, size=total, elements=20, a=a, b=b) == [a, a, b, b]


def test_parts_of_results_count_with_whole_results() -> None:
    given = {"a": [[0] * 5, b"x" * 50], "b": [0] * 5}
    uses = [Ref("b"), Ref("a", (0,)), Ref("a", (0,))]
    total = len(CODEC.encode([0] * 5)) * 3
    assert filled(uses, size=total, elements=15, **given) == [[0] * 5] * 3
    for size, elements, limit, came in ((total - 1, 15, "expansion", total), (total, 14, "expansion_elements", 15)):
        with pytest.raises(MalformedValue) as caught:
            filled(uses, size=size, elements=elements, **given)
        assert caught.value.limit == {"limit": limit, "value": size if limit == "expansion" else elements, "came": came}


def test_refused_expansion_builds_nothing() -> None:
    encoded = {"a": CODEC.encode([[0]] * 100_000)}
    args = CODEC.encode([Ref("a")] * 10)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedValue):
            expand(CODEC, args, encoded, size=SIZE, elements=ELEMENTS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # the lists would take 7 MB


def test_references_in_each_kind_of_container() -> None:
    for args in (
        [Ref("a"), Ref("a")],
        (Ref("a"), (Ref("a"),)),
        {"k": Ref("a"), "l": [Ref("a")]},
        [{1: (Ref("a"), {2})}, Ref("a")],
    ):
        with pytest.raises(MalformedValue) as caught:
            filled(args, elements=19, a=[0] * 10)
        assert caught.value.limit == {"limit": "expansion_elements", "value": 19, "came": 20}
        filled(args, elements=20, a=[0] * 10)


def test_missing_reference_and_malformed_arguments() -> None:
    with pytest.raises(MissingReference):
        filled([Ref("b")], a=1)
    for args in (b"", b"\xc1", b"\x91", b"\xd4\x02\x00", b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(MalformedValue):
            expand(CODEC, args, {"a": b"\x01"}, size=SIZE, elements=ELEMENTS)
        with pytest.raises(MalformedValue):
            expand(CODEC, CODEC.encode([Ref("a")]), {"a": args}, size=SIZE, elements=ELEMENTS)


def test_growth_of_small_inputs() -> None:
    assert growth.multiplied(6) == growth.multiplied(60) < 2_000_000
    circles = [growth.peak(lambda members=members: growth.refused_circle(members), size=1) for members in (2, 20)]  # type: ignore[misc]
    assert circles[1] < 20 * circles[0]
