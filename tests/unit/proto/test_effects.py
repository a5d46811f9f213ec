"""Effects and outcomes: closed unions of values, so that a type checker can check that all cases are handled."""

import typing

import msgspec
import pytest

from mpreg_proto import effects
from mpreg_proto.effects import (
    Cancel,
    Demand,
    Dial,
    Effect,
    Feed,
    HangUp,
    KeepAlive,
    Notify,
    Outcome,
    Pause,
    Report,
    Resume,
    Run,
    Send,
)
from mpreg_proto.ids import LinkId, RunId


def test_eleven_effects_and_five_outcomes() -> None:
    assert set(typing.get_args(Effect)) == {
        Send,
        Dial,
        HangUp,
        Run,
        Cancel,
        Demand,
        Feed,
        Notify,
        KeepAlive,
        Pause,
        Resume,
    }
    assert [kind.__name__ for kind in typing.get_args(Outcome)] == [
        "Returned",
        "Raised",
        "Stopped",
        "NotStarted",
        "Lost",
    ]
    defined = {
        kind
        for kind in vars(effects).values()
        if isinstance(kind, type) and kind.__module__ == effects.__name__ and issubclass(kind, msgspec.Struct)
    }
    assert defined == {*typing.get_args(Effect), *typing.get_args(Outcome), Report}


@pytest.mark.parametrize("kind", [*typing.get_args(Effect), *typing.get_args(Outcome)])
def test_frozen_and_documented_effects_and_outcomes(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen and kind.__doc__
    assert not kind.__struct_config__.array_like, "an effect never travels"


def test_equality_of_effects() -> None:
    assert Send(LinkId(1), (b"a", b"b")) == Send(LinkId(1), (b"a", b"b")) != Send(LinkId(2), (b"a", b"b"))
    assert Cancel(RunId(1)) != Cancel(RunId(2))
    with pytest.raises(AttributeError):
        HangUp(LinkId(1), 1000).code = 1001  # type: ignore[misc]
