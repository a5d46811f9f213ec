"""The history of the calls of one request: refusals, losses, and eligible candidates."""

from types import SimpleNamespace

from mpreg_proto.errors import Fault
from mpreg_proto.ids import MemberId
from mpreg_proto.requests.request_state import History

FULL = Fault(1022, "full")


def candidate(letter: str, *, idempotent: bool = True, version: str = "1") -> SimpleNamespace:
    return SimpleNamespace(member=MemberId(letter.encode() * 16), idempotent=idempotent, version=version)


A, B, C = (candidate(letter) for letter in "abc")


def test_all_candidates_eligible_at_first() -> None:
    assert History().eligible("x", [A, B]) == [A, B]


def test_refusal_excludes_a_member_until_cleared() -> None:
    history = History()
    history.refused("x", A.member, FULL)
    assert history.eligible("x", [A, B]) == [B] and history.eligible("y", [A, B]) == [A, B]
    assert history.last_refusal("x") == FULL and history.last_refusal("y") is None
    history.clear_refusals("x")
    assert history.eligible("x", [A, B]) == [A, B] and history.last_refusal("x") is None


def test_refusal_kept_over_a_failed_connection() -> None:
    history, unreachable = History(), Fault(1001, "could not connect to b")
    history.refused("x", A.member, FULL)
    history.not_connected("x", B.member, unreachable)
    assert history.eligible("x", [A, B, C]) == [C] and history.last_refusal("x") == FULL
    history.not_connected("y", B.member, unreachable)
    assert history.last_refusal("y") == unreachable


def test_eligible_after_a_loss() -> None:
    history = History()
    assert history.lost("x", A, failovers=2)
    others = [B, candidate("c", version="2"), candidate("d", idempotent=False)]
    assert history.eligible("x", others) == [B] and history.eligible("y", others) == others
    assert history.lost("x", B, failovers=2) and not history.lost("x", C, failovers=2), "three losses are too many"
    assert not history.lost("z", candidate("d", idempotent=False), failovers=2)


def test_possibly_started_until_refused() -> None:
    history = History()
    history.dispatched("x", A)
    assert not history.possibly_started, "an idempotent one may start again"
    history.dispatched("y", candidate("d", idempotent=False))
    assert list(history.possibly_started) == ["y"] and history.tries == {"x": 1, "y": 1}
    history.not_started("y")
    assert not history.possibly_started
