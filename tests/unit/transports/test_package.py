"""The names of the package `mpreg_transports`: what `dir` lists, and its version."""

import inspect
from importlib.metadata import PackageNotFoundError, version

import pytest

import mpreg_transports
from mpreg_transports.config.release import installed_version


def test_dir_lists_the_public_names() -> None:
    names = dir(mpreg_transports)
    assert names == sorted(names)
    assert set(names) == {*mpreg_transports.__all__, "__version__"}
    assert all(getattr(mpreg_transports, name) is not None for name in names)


def test_version_is_that_of_the_distribution() -> None:
    assert mpreg_transports.__version__ == version("mpreg")


def test_version_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", none)
    monkeypatch.delitem(vars(mpreg_transports), "__version__", raising=False)
    assert mpreg_transports.__version__ == installed_version() == "0+unknown"
    assert dict(inspect.getmembers(mpreg_transports))["__version__"] == "0+unknown"
    monkeypatch.delitem(vars(mpreg_transports), "__version__")


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        _ = mpreg_transports.nothing_of_the_kind
