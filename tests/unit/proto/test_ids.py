"""The text that shows a member to users."""

import pytest

from mpreg_proto.ids import show


@pytest.mark.parametrize(
    ("name", "member", "shown"),
    [
        ("trainer", bytes.fromhex("a1b2") + b"x" * 14, "trainer#a1b2"),
        ("", b"\x00" * 16, "#0000"),
        ("a#b", b"\xff\x01" + b"x" * 14, "a#b#ff01"),
    ],
)
def test_shown_name_with_the_first_two_bytes_of_the_id(name: str, member: bytes, shown: str) -> None:
    assert show(name, member) == shown
