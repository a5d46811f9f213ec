"""The names of the package `mpreg_proto`: what a driver imports."""

import inspect
import typing

import pytest

import mpreg_proto
from mpreg_proto import effects, notices


def test_dir_lists_the_public_names() -> None:
    assert dir(mpreg_proto) == sorted(mpreg_proto.__all__)
    assert all(getattr(mpreg_proto, name) is not None for name in mpreg_proto.__all__)


def test_every_effect_outcome_and_notice_is_public() -> None:
    kinds = (*typing.get_args(effects.Effect), *effects.OUTCOMES, *typing.get_args(notices.Notice))
    assert {kind.__name__ for kind in kinds} <= set(mpreg_proto.__all__)


def test_every_public_class_is_documented() -> None:
    found = [getattr(mpreg_proto, name) for name in mpreg_proto.__all__]
    assert all(inspect.getdoc(one) for one in found if isinstance(one, type) or inspect.isfunction(one))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        _ = mpreg_proto.nothing_of_the_kind
