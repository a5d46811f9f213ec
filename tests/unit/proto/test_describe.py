"""Texts of foreign objects: bounded and encodable, even if methods of the objects raise."""

import pytest

from mpreg_proto.describe import cut, exception_text, object_text, sendable, short_name, type_name


class _Text(str):
    def __str__(self) -> str:
        raise RuntimeError

    def __len__(self) -> int:
        return 0


class _Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit


class _Hiding(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError


class _Hidden(metaclass=_Hiding):
    pass


def test_cut_text_is_an_exact_str_within_the_bound() -> None:
    short, long = cut(_Text("abc"), 5), cut(_Text("abcdef"), 5)
    assert (short, type(short)) == ("abc", str)
    assert (long, type(long)) == ("ab...", str)


@pytest.mark.parametrize("text", ["é" * 99, "\ud800" * 99, _Text("\udcff" * 99), "x" * 11], ids=ascii)
def test_sendable_text_bounded_after_escaping_surrogates(text: str) -> None:
    made = sendable(text, 10)
    assert type(made) is str
    assert len(made) <= 10
    made.encode()


def test_reason_of_an_error_without_text_is_its_type() -> None:
    assert exception_text(ValueError()) == "ValueError"
    assert exception_text(_Mute()) == "<no text: its __str__ raised SystemExit>"


def test_names_past_a_metaclass() -> None:
    assert short_name(_Hidden) == "_Hidden"
    assert type_name(_Hidden).endswith("._Hidden")
    assert object_text(_Hidden()).startswith("<")
