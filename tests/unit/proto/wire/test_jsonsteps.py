"""Long JSON texts in steps: the same trees and faults as parsing at once, and bounded work in each step."""

import json
import random

import pytest

from mpreg_proto.wire import jsonsteps, jsonvalues
from mpreg_proto.wire.jsonvalues import MalformedJson
from mpreg_proto.wire.value_limits import MAX_ARRAY, MAX_DEPTH


def outcome(text: str | bytes) -> object:
    """Return the result of parsing in steps: a tree, or the text of a fault."""
    steps = jsonsteps.loads(text)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        except MalformedJson as error:
            return ("malformed", str(error), error.limit)


def at_once(text: str | bytes) -> object:
    """Return the result of parsing at once."""
    try:
        return jsonvalues.loads(text)
    except MalformedJson as error:
        return ("malformed", str(error), error.limit)


def drawn(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(9)
    if depth > 5 or kind < 4:
        scalars = [1, -2, 1.5, True, None, "a", "é\\x", "\U0001f600", "q" * rng.randrange(40), 10**20, 1e300, ""]
        return rng.choice(scalars)
    if kind < 7:
        return [drawn(rng, depth + 1) for _ in range(rng.randrange(6))]
    return {f"k{rng.randrange(30)}": drawn(rng, depth + 1) for _ in range(rng.randrange(6))}


@pytest.mark.parametrize("window", [16, 64, 300])
def test_steps_equal_parsing_at_once(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonsteps, "WINDOW", window)
    rng = random.Random(window)
    for _ in range(1500):
        text = json.dumps(drawn(rng), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 1]))
        if rng.random() < 0.6:
            at = rng.randrange(len(text) + 1)
            text = rng.choice(
                [text[:at], text[:at] + rng.choice('[]{},:"x1 \\') + text[at:], text[:at] + text[at + 1 :]]
            )
        expected, found = at_once(text), outcome(text)
        if isinstance(expected, tuple) and "Illegal trailing comma" in expected[1]:  # named by Python 3.13
            assert isinstance(found, tuple) and found[2] == expected[2], text
        else:
            assert found == expected, text


@pytest.mark.parametrize(
    "text",
    [
        '["\\ud800"]',
        '["' + "x" * 100 + '\\udc00"]',
        '{"\\ud800": 1}',
        '[{"a": 1, "a": 2}]',
        '{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "a": 1}',
        "[NaN]",
        "[1e999]",
        "[" + "1" * 5000 + "]",
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" * 100_000,
        '{"a":' * 100_000,
        "[1 2]",
        "",
        " ",
        "[] x",
        '{"' + "k" * 2000 + '": 1}',
        '["\x01"]',
    ],
)
def test_odd_texts(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonsteps, "WINDOW", 32)
    assert outcome(text) == at_once(text)


def test_invalid_utf8() -> None:
    assert outcome(b'["\xff"]') == at_once(b'["\xff"]')


@pytest.mark.parametrize("element", ["1", '"a"', "[]"])
def test_array_over_the_limit_is_counted_not_kept(element: str) -> None:
    text = f"[{','.join([element] * (MAX_ARRAY + 70_000))}]"
    _, words, limit = outcome(text)  # type: ignore[misc]
    assert limit == {"limit": "array entries", "value": MAX_ARRAY, "came": MAX_ARRAY + 70_000}, words


@pytest.mark.parametrize("element", ["1,", '"a",', "[],", '{"a":1},', "1.5,", '[1,"a",{"b":[]}],'])
def test_bounded_work_of_a_step(element: str) -> None:
    """A text of 40 windows takes at least 20 steps."""
    size = 40 * jsonsteps.WINDOW
    steps = jsonsteps.loads("[" + element * (size // len(element)) + "x")
    count = 0
    with pytest.raises(MalformedJson):
        while True:
            next(steps)
            count += 1
    assert count >= 20
