"""Timers: equal to a plain table, and without memory for cancelled rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.timers import Key, Timers


def test_due_rows_in_the_order_of_time() -> None:
    timers = Timers()
    for at, name in ((30, "c"), (10, "a"), (20, "b")):
        timers.set((name, at), at)
    assert timers.next() == 10 and len(timers) == 3
    assert timers.due(9) == []
    assert timers.due(20) == [("a", 10), ("b", 20)]
    assert timers.next() == 30 and ("c", 30) in timers and ("a", 10) not in timers
    assert timers.due(10**18) == [("c", 30)] and timers.next() is None and timers.due(10**18) == []


def test_rows_of_one_time_in_the_order_of_set() -> None:
    timers = Timers()
    for name in "cab":
        timers.set((name,), 5)
    timers.set(("c",), 5)
    assert timers.due(5) == [("a",), ("b",), ("c",)]


def test_set_replaces_an_earlier_or_later_time() -> None:
    timers = Timers()
    timers.set(("x",), 10)
    timers.set(("x",), 30)
    assert (timers.next(), timers.due(20), len(timers)) == (30, [], 1)
    timers.set(("x",), 5)
    assert timers.due(5) == [("x",)] and timers.due(100) == []


def test_cancelled_row_can_be_set_again() -> None:
    timers = Timers()
    timers.cancel(("never",))
    timers.set(("x",), 10)
    timers.cancel(("x",))
    assert timers.next() is None and timers.due(100) == []
    timers.set(("x",), 10)
    assert timers.due(10) == [("x",)]


def test_clear_keeps_the_named_kinds() -> None:
    timers = Timers()
    for number in range(4):
        timers.set(("keep" if number % 2 else "go", number), number)
    timers.clear(keep=("keep", "other"))
    assert timers.due(100) == [("keep", 1), ("keep", 3)]


@pytest.mark.parametrize("cancel", [True, False])
def test_no_memory_for_cancelled_or_moved_rows(cancel: bool) -> None:
    timers = Timers()
    timers.set(("stays",), 10**9)
    for number in range(100_000):
        timers.set(("x", number if cancel else 0), number + 1)
        if cancel:
            timers.cancel(("x", number))
    assert len(timers._heap) < 200, len(timers._heap)
    assert timers.due(10**9)[-1] == ("stays",)


operations = st.lists(
    st.tuples(st.sampled_from(["set", "cancel", "due", "next", "clear"]), st.integers(0, 6), st.integers(0, 20)),
    max_size=60,
)


@given(operations)
def test_timers_equal_a_plain_table(steps: list[tuple[str, int, int]]) -> None:
    timers = Timers()
    rows: dict[Key, tuple[int, int]] = {}
    for turn, (what, name, number) in enumerate(steps):
        key: Key = (name % 3, name)
        if what == "set":
            timers.set(key, number)
            rows[key] = (number, turn)
        elif what == "cancel":
            timers.cancel(key)
            rows.pop(key, None)
        elif what == "clear":
            timers.clear(keep=(number % 3,))
            rows = {key: row for key, row in rows.items() if key[0] == number % 3}
        elif what == "due":
            came = sorted((row, key) for key, row in rows.items() if row[0] <= number)
            assert timers.due(number) == [key for _, key in came]
            for _, key in came:
                del rows[key]
        assert timers.next() == min((at for at, _ in rows.values()), default=None)
        assert len(timers) == len(rows) and all(key in timers for key in rows)


def test_order_after_the_table_is_rebuilt() -> None:
    timers = Timers()
    times = [*range(100, 0, -1)]
    for at in times:
        timers.set(("stays", at), at)
    for number in range(1000):
        timers.set(("cancelled", number), 10**9 + number)
        timers.cancel(("cancelled", number))
    assert len(timers._heap) < 400, "it was rebuilt"
    assert timers.next() == 1
    assert timers.due(50) == [("stays", at) for at in range(1, 51)]
    assert timers.due(10**10) == [("stays", at) for at in range(51, 101)]


def test_rows_of_one_time_after_the_table_is_rebuilt() -> None:
    timers = Timers()
    for name in "dcba":
        timers.set((name,), 5)
    for _ in range(1000):
        timers.set(("moved",), 9)
    assert timers.due(9) == [("d",), ("c",), ("b",), ("a",), ("moved",)]
