"""The time that clients have used: where a newcomer starts, and what a turn costs."""

from mpreg_proto.requests.used_time import UsedTime


def entered(*clients: str) -> UsedTime[str]:
    """Return the account of clients that came one after another and wait."""
    used: UsedTime[str] = UsedTime()
    for place, client in enumerate(clients):
        used.enter(client, clients[:place])
    return used


def test_first_clients_start_at_zero() -> None:
    used = entered("a", "b")
    assert (used["a"], used["b"], len(used)) == (0, 0, 2)
    assert "a" in used and "c" not in used


def test_turn_is_charged_and_moves_the_virtual_time() -> None:
    used = entered("a", "b")
    used.take_turn("a", 100, 2)
    assert (used["a"], used["b"]) == (100, 0)
    used.enter("c", ["a", "b"])
    assert used["c"] == 50, "the time at which each of the two has had half of a turn"


def test_newcomer_is_at_most_behind_all_that_wait() -> None:
    used = entered("a")
    for _ in range(5):
        used.take_turn("a", 100, 1)
    used.charge("a", -300)
    used.enter("b", ["a"])
    assert (used["a"], used["b"]) == (200, 201)
    used.enter("c", [])
    assert used["c"] == 500, "nobody waits: the virtual time"


def test_client_that_comes_back_keeps_what_it_has_used() -> None:
    used = entered("a", "b")
    used.charge("a", 900)
    used.enter("a", ["b"])
    assert used["a"] == 900


def test_charge_of_a_client_that_does_not_count() -> None:
    used = entered("a")
    used.charge("b", 5)
    assert "b" not in used


def test_clients_that_are_gone_are_forgotten() -> None:
    used = entered("a")
    for number in range(1_000):
        used.enter(str(number), ["a"])
    assert len(used) < 100 and "a" in used and "999" in used
