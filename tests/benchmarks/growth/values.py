"""The growth of a value from a few bytes: references that multiply a result, millions of empty lists, circular ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from mpreg_proto.limits import DEFAULT
from mpreg_proto.wire.expansion import expand
from mpreg_proto.wire.values import MalformedValue, Ref, UnsendableValue, ValueCodec
from tests.benchmarks.growth import Growth

_CODEC = ValueCodec()


def rows() -> list[Growth]:
    """Return each measure at a small and a large size."""
    return [
        Growth(
            "references_multiply",
            "bytes of all results of calls that each name the former ten times: 6 and 60 calls",
            multiplied(6),
            multiplied(60),
            most=1.0,
        ),
        Growth(
            "empty_lists",
            "peak bytes of memory while a value of empty lists is refused, for each of its bytes: 2 MiB and 4 MiB",
            peak(lambda: refused_lists(2), size=2 << 20),
            peak(lambda: refused_lists(4), size=4 << 20),
            most=1.5,
        ),
        Growth(
            "circles",
            "peak bytes of memory while lists that hold each other are refused: 2 and 20 of them, each in all",
            peak(lambda: refused_circle(2), size=1),
            peak(lambda: refused_circle(20), size=1),
            most=20.0,
        ),
    ]


def multiplied(calls: int, *, fan: int = 10) -> int:
    """Return the bytes of all results of a chain of calls of `echos`, up to the call that is refused."""
    refs = _CODEC.encode([[Ref("before")] * fan, {}])
    before, total = _CODEC.encode(0), 0
    for _ in range(calls):
        try:
            value = expand(
                _CODEC, refs, {"before": before}, size=DEFAULT.expansion, elements=DEFAULT.expansion_elements
            )
        except MalformedValue:
            break
        assert isinstance(value, list)
        before = _CODEC.encode(value[0])
        total += len(before)
    return total


def peak(work: Callable[[], None], *, size: int) -> float:
    """Return the peak memory of `work` in bytes, divided by `size`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()


def refused_lists(mib: int) -> None:
    """Check that 16 lists of empty lists are refused."""
    row = b"\xdd" + (mib << 16).to_bytes(4, "big") + b"\x90" * (mib << 16)
    try:
        _CODEC.decode(b"\xdc\x00\x10" + row * 16)
    except MalformedValue as error:
        assert error.limit is not None
        return
    raise AssertionError("they were taken")


def refused_circle(members: int) -> None:
    """Check that lists that each hold all of them are refused."""
    lists: list[list[object]] = [[] for _ in range(members)]
    for one in lists:
        one.extend(lists)
    try:
        _CODEC.encode(lists)
    except UnsendableValue:
        return
    raise AssertionError("they were taken")
