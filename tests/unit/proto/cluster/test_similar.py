"""The search for close names."""

import pytest

from mpreg_proto.cluster.similar import Names, likeness, most_alike

KNOWN = [f"orders.calculate_shipping_{number}" for number in range(500)] + ["train", "trace", "zip", "echo", "echos"]


def close(name: str) -> list[str]:
    names = Names()
    for one in KNOWN:
        names.add(one)
    return most_alike(name, names.near(name, KNOWN), 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trian", "train"),
        ("rtain", "train"),
        ("echoes", "echos"),
        ("cho", "echo"),
        ("orders.calculate_shipping_77x", "orders.calculate_shipping_77"),
        ("orders.calculate_shiping_123", "orders.calculate_shipping_123"),
        ("rders.calculate_shipping_9", "orders.calculate_shipping_9"),
    ],
)
def test_close_name_of_a_misspelt_name(name: str, expected: str) -> None:
    assert expected in close(name)


def test_no_close_name_for_an_unlike_name() -> None:
    assert close("warehouse") == [] and likeness("abc", "xyz") == 0 and likeness("", "") == 0


def test_removed_name() -> None:
    names = Names(["train", "trace"])
    names.remove("train")
    assert names.near("trian", ["trace"]) == ["trace"] and likeness("train", "train") == 1
