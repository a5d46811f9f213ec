"""docs/reference/values.md is correct: each row of its tables is sent, and the tables hold all exceptions."""

import json
import re
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from mpreg_proto.wire import value_limits
from mpreg_proto.wire.encode_errors import UnsendableValue
from mpreg_proto.wire.jsonvalues import dumps, to_json
from mpreg_transports.testing.equality import same
from mpreg_transports.values import default_codec
from tests.docs.pages import PAGES
from tests.helpers.hostile_values import CHANGED

PAGE = PAGES["docs/reference/values.md"]
CODEC = default_codec()


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclass
class Tagged(list[int]):
    tag: str = ""


@dataclass
class Config(dict[str, int]):
    tag: str = ""


@dataclass
class Noted:
    x: int = 0


class Colour(Enum):
    RED = 1


class Word(str):
    pass


class Array:
    def tolist(self) -> list[int]:
        return []


class Zone(tzinfo):
    """Two hours ahead, on every day."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=2)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "somewhere"


def noted() -> Noted:
    made = Noted()
    made.note = "more"  # type: ignore[attr-defined]
    return made


def circle() -> list[object]:
    made: list[object] = []
    made.append(made)
    return made


NAMES: dict[str, Any] = {
    **{
        one.__name__: one for one in (Counter, OrderedDict, defaultdict, Decimal, UUID, date, datetime, time, timedelta)
    },
    **{one.__name__: one for one in (timezone, Point, Tagged, Config, Colour, Word, Array, Zone, noted, circle)},
    "Pair": namedtuple("Pair", "x y"),
}


def rows(title: str) -> list[tuple[str, str, str]]:
    """Return the cells of the table under a heading, without backticks."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table]
    assert cells and all(len(row) == 3 for row in cells)
    return [(row[0], row[1], row[2]) for row in cells]


@pytest.mark.parametrize(("sent", "back", "text"), rows("What comes back the same"))
def test_values_that_come_back_the_same(sent: str, back: str, text: str) -> None:
    assert back == "the same"
    value = eval(sent, NAMES)
    check(value, value, text)


@pytest.mark.parametrize(("sent", "back", "text"), rows("What comes back as something else"))
def test_values_that_come_back_changed(sent: str, back: str, text: str) -> None:
    check(eval(sent, NAMES), eval(back, NAMES), text)


def check(value: object, expected: object, text: str) -> None:
    there = CODEC.decode(CODEC.encode(value))
    assert same(there, expected)
    for each in (value, there):
        if text == "refused":
            with pytest.raises(UnsendableValue, match="cannot be sent as JSON"):
                to_json(each, CODEC)
        else:
            assert dumps(to_json(each, CODEC)) == text
            json.loads(text)


@pytest.mark.parametrize(("sent", "place", "why"), rows("What is refused"))
def test_refused_values(sent: str, place: str, why: str) -> None:
    with pytest.raises(UnsendableValue) as caught:
        CODEC.encode(eval(sent, NAMES))
    assert caught.value.path == place
    assert why in caught.value.reason


def test_changed_types_are_all_in_the_table() -> None:
    """The property test of values allows these changes and no others."""
    kinds = {type(eval(sent, NAMES)) for sent, _, _ in rows("What comes back as something else")}
    assert {kind for kind in kinds if kind is not Point} == set(CHANGED)


def test_bounds_match_the_code() -> None:
    section = PAGE.partition("## How much\n")[2]
    numbers = [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*(?<!,)", section)]
    bounds = [value_limits.MAX_DEPTH, value_limits.MAX_MAP, value_limits.MAX_ARRAY, value_limits.MAX_KEY]
    assert numbers[:7] == [*bounds, value_limits.MAX_CONTAINERS, value_limits.MAX_ELEMENTS, value_limits.MAX_SAME_HASH]
