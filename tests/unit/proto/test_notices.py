"""Notices: a closed union of frozen facts, with ids and names but without arguments or secrets."""

import enum
import typing

import msgspec
import pytest

from mpreg_proto import notices
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.notices import CatalogueChanged, Left, LinkClosed, LinkEndCause, Notice, RequestFinished, Standing

KINDS = typing.get_args(Notice)


def test_each_notice_is_in_the_union() -> None:
    defined = {
        kind
        for kind in vars(notices).values()
        if isinstance(kind, type) and kind.__module__ == notices.__name__ and issubclass(kind, msgspec.Struct)
    }
    assert defined == set(KINDS) and len(KINDS) == len(set(KINDS))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_frozen_and_documented_notices(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen and kind.__doc__
    assert not kind.__struct_config__.array_like, "a notice never travels"


def test_one_notice_carries_values() -> None:
    """All other fields are ids, names, numbers and enums."""
    plain = (str, int, type(None), enum.Enum)
    other: list[tuple[str, str]] = []
    for kind in KINDS:
        for name, hint in typing.get_type_hints(kind).items():
            parts = [getattr(part, "__supertype__", part) for part in (typing.get_args(hint) or (hint,))]
            is_id = MemberId in (typing.get_args(hint) or (hint,))
            if not is_id and not all(issubclass(part, plain) for part in parts):
                other.append((kind.__name__, name))
    assert other == [("RequestFinished", "result")] and RequestFinished in KINDS


def test_equality_of_notices() -> None:
    one = CatalogueChanged(MemberId(b"a" * 16), "a", 3)
    assert one == CatalogueChanged(MemberId(b"a" * 16), "a", 3) != CatalogueChanged(MemberId(b"a" * 16), "a", 4)
    assert Left() == Left()
    with pytest.raises(AttributeError):
        one.version = 4  # type: ignore[misc]


def test_end_of_a_link_is_orderly_by_default() -> None:
    assert LinkClosed(LinkId(1), "peer", "").cause is LinkEndCause.ORDERLY
    assert len({cause.value for cause in LinkEndCause}) == len(LinkEndCause.__members__) == 8


def test_order_of_standings() -> None:
    assert sorted(Standing) == list(Standing)
    assert [one.name for one in Standing] == ["ALIVE", "SUSPECT", "DEAD", "LEFT", "RETIRED"]
    assert [int(one) for one in Standing] == [0, 1, 2, 3, 4], "the numbers travel in claims"
