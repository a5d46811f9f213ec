"""The outputs of the cluster machine: actions and events are two disjoint unions of frozen values."""

import typing

import msgspec
import pytest

from mpreg_proto.cluster import actions
from mpreg_proto.cluster.actions import ClusterAction, ClusterEvent, ClusterOutput, OffersChanged
from mpreg_proto.effects import Dial, Effect, Notify
from mpreg_proto.requests.actions import RequestOutput

ACTIONS, EVENTS = typing.get_args(ClusterAction), typing.get_args(ClusterEvent)


def test_actions_and_events_are_disjoint() -> None:
    assert not set(ACTIONS) & set(EVENTS)
    assert set(typing.get_args(ClusterOutput)) == {*ACTIONS, *EVENTS}
    assert {kind.__name__ for kind in EVENTS} == {"LinkSelected", "MemberLost", "OffersChanged", "IdRetired"}


def test_each_output_of_the_module_is_in_a_union() -> None:
    defined = {
        kind
        for kind in vars(actions).values()
        if isinstance(kind, type) and kind.__module__ == actions.__name__ and issubclass(kind, msgspec.Struct)
    }
    effects = set(typing.get_args(Effect))
    assert defined == {*ACTIONS, *EVENTS} - effects
    assert set(ACTIONS) & effects == {Dial, Notify} and not set(EVENTS) & effects, "an effect is a command"


def test_outputs_of_the_two_machines_share_notices_only() -> None:
    assert set(typing.get_args(ClusterOutput)) & set(typing.get_args(RequestOutput)) == {Notify}


@pytest.mark.parametrize("kind", [*ACTIONS, *EVENTS], ids=lambda kind: kind.__name__)
def test_frozen_and_documented_outputs(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen and kind.__doc__
    assert not kind.__struct_config__.array_like, "an output never travels"


def test_offers_changed_names_nothing_by_default() -> None:
    one = OffersChanged()
    assert (one.functions, one.members) == ((), ())
    with pytest.raises(AttributeError):
        one.functions = ("f",)  # type: ignore[misc]
