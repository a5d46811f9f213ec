"""The outputs of the coordinator and the worker: actions and events are two disjoint unions of frozen values."""

import typing

import msgspec
import pytest

from mpreg_proto.effects import Cancel, Demand, Effect, Feed, Notify, Run
from mpreg_proto.ids import LinkId
from mpreg_proto.requests import actions
from mpreg_proto.requests.actions import LOCAL, CancelDispatch, RequestAction, RequestEvent, RequestOutput

ACTIONS, EVENTS = typing.get_args(RequestAction), typing.get_args(RequestEvent)


def test_actions_and_events_are_disjoint() -> None:
    assert not set(ACTIONS) & set(EVENTS)
    assert set(typing.get_args(RequestOutput)) == {*ACTIONS, *EVENTS}
    assert {kind.__name__ for kind in EVENTS} == {"CallSettled", "CallFinished", "CreditReturned"}


def test_each_output_of_the_module_is_in_a_union() -> None:
    defined = {
        kind
        for kind in vars(actions).values()
        if isinstance(kind, type) and kind.__module__ == actions.__name__ and issubclass(kind, msgspec.Struct)
    }
    effects = set(typing.get_args(Effect))
    assert defined == {*ACTIONS, *EVENTS} - effects
    assert set(ACTIONS) & effects == {Run, Cancel, Demand, Feed, Notify} and not set(EVENTS) & effects, (
        "an effect is a command"
    )


@pytest.mark.parametrize("kind", [*ACTIONS, *EVENTS], ids=lambda kind: kind.__name__)
def test_frozen_and_documented_outputs(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen and kind.__doc__
    assert not kind.__struct_config__.array_like, "an output never travels"


def test_local_is_no_link_of_a_transport() -> None:
    assert LOCAL == 0
    one = CancelDispatch(LOCAL, 1)
    assert one == CancelDispatch(LOCAL, 1) != CancelDispatch(LinkId(1), 1)
    with pytest.raises(AttributeError):
        one.number = 2  # type: ignore[misc]
