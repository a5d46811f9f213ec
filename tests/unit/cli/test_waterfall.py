"""The waterfall: the place of each bar, and the width of its columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpreg_proto.wire.messages import Traced
from mpreg_transports.cli.console import format_duration
from mpreg_transports.cli.waterfall import MOST_ROWS, colours_of, legend, short_names, waterfall


def row(name: str, node: str, queued: int, started: int, ended: int, tries: int = 1) -> Traced:
    return Traced(name, node, queued, queued, started, ended, tries, "the only node that can")


def test_bars_show_node_and_time_of_calls() -> None:
    millisecond = 1_000_000
    trace = [
        row("second", "beta#2222", 50 * millisecond, 60 * millisecond, 100 * millisecond),
        row("first", "alpha#1111", 0, 0, 50 * millisecond),
    ]
    assert [line.plain for line in waterfall(trace, width=45)] == [
        "CALL    NODE   0             100 ms       RAN",
        "first   alpha  ━━━━━━━━━━             50.0 ms",
        "second  beta             ··━━━━━━━━   40.0 ms",
    ]


def test_count_of_attempts() -> None:
    lines = [line.plain for line in waterfall([row("a", "n#1", 0, 0, 10, tries=2)], width=60)]
    assert lines[1].endswith("0 us x2")
    assert len(lines[1]) <= 60


def test_ascii_only() -> None:
    lines = waterfall([row("a", "n#1", 0, 5, 10)], width=60, ascii_only=True)
    assert all(line.plain.isascii() for line in lines)


@pytest.mark.parametrize("ascii_only", [False, True])
def test_legend_names_each_mark(ascii_only: bool) -> None:
    text = legend(ascii_only=ascii_only).plain
    drawn = "".join(line.plain for line in waterfall([row("a", "n#1", 0, 5, 10)], width=60, ascii_only=ascii_only)[1:])
    marks = [mark for mark in ("·━" if not ascii_only else ".=") if mark in drawn]
    assert len(marks) == 2 and all(text.count(mark) == 1 for mark in marks)
    assert len(text) <= 80 and text.isascii() is ascii_only


def test_no_lines_for_no_calls() -> None:
    assert waterfall([], width=80) == []


def test_only_the_longest_calls_are_drawn() -> None:
    trace = [row(f"n{number}", "n#1", 0, 0, number + 1) for number in range(MOST_ROWS + 40)]
    lines = [line.plain for line in waterfall(trace, width=80)]
    assert len(lines) == MOST_ROWS + 2
    assert lines[-1] == "and 40 shorter calls"
    assert lines[1].startswith("n100 ") or lines[1].startswith("n40 ")


rows = st.builds(
    lambda name, node, times, tries: row(name, node, *sorted(times), tries=tries),
    st.text(st.characters(categories=["Ll", "Lu", "Lo", "Nd", "Cc", "Zl", "So"]), min_size=1, max_size=60),
    st.text("abcdef#0123", min_size=1, max_size=40),
    st.tuples(*[st.integers(0, 10**14)] * 3),
    st.integers(1, 9),
)


@given(st.lists(rows, min_size=1, max_size=12), st.integers(62, 160))
def test_lines_stay_within_their_width(trace: list[Traced], width: int) -> None:
    lines = waterfall(trace, width=width)
    assert len(lines) == len(trace) + 1
    assert all(line.cell_len <= width for line in lines)
    assert all("\n" not in line.plain for line in lines)


def test_node_names_are_shortened_while_unique() -> None:
    assert short_names(["a#1111", "b#2222", "b#3333", "a#1111", "plain"]) == {
        "a#1111": "a",
        "b#2222": "b#2222",
        "b#3333": "b#3333",
        "plain": "plain",
    }


def test_node_colour_does_not_depend_on_order() -> None:
    assert colours_of({"x#1": "x", "y#2": "y"}) == colours_of({"y#2": "y", "x#1": "x"})


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (-5, "0 us"),
        (0, "0 us"),
        (1_499, "1 us"),
        (999_000, "999 us"),
        (1_000_000, "1.0 ms"),
        (123_400_000, "123 ms"),
        (1_500_000_000, "1.50 s"),
        (100_000_000_000, "100 s"),
        (150_000_000_000, "2 min"),
        (3 * 86_400_000_000_000, "3 d"),
    ],
)
def test_format_of_durations(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    assert len(text) <= 7
