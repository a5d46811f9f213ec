"""The names of the package `mpreg_transports.testing`."""

import pytest

from mpreg_transports import testing


def test_dir_lists_the_public_names() -> None:
    assert dir(testing) == sorted(testing.__all__)
    assert all(getattr(testing, name) is not None for name in testing.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        _ = testing.nothing_of_the_kind
