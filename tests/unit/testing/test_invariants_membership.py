"""Invariants 1 to 6 can fail: members, catalogues, placement.

With one method of the core broken on purpose, that invariant reports a violation.
"""

from typing import Any

import pytest

from mpreg_proto.cluster.catalogue import Catalogue
from mpreg_proto.cluster.index import Index
from mpreg_proto.cluster.members import Members
from mpreg_proto.notices import Standing
from mpreg_proto.requests.backlog import Credits
from mpreg_proto.router import Machines
from tests.helpers.simulated import cluster, violated


def test_1_cell_that_takes_the_last_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_wins(self: Members, held: Any, incarnation: int, standing: Standing, now: int) -> bool:
        if (incarnation, standing) == held.key:
            return False
        self._count_out(held)
        held.incarnation, held.standing = incarnation, standing
        self._count_in(held, now)
        return True

    monkeypatch.setattr(Members, "_raise", last_wins)
    sim = cluster()
    sim.link("front", "right").set(delay=1.7)
    sim.crash("left")
    assert "went from" in violated(1, lambda: sim.run(60))


def test_2_accuser_that_raises_the_incarnation(monkeypatch: pytest.MonkeyPatch) -> None:
    accuse = Members.declare

    def accuse_more(self: Members, member: Any, standing: Standing, now: int) -> Any:
        held = accuse(self, member, standing, now)
        if held is not None:
            held.incarnation += 1
        return held

    monkeypatch.setattr(Members, "declare", accuse_more)
    sim = cluster()
    sim.crash("left")
    assert "never went beyond 0" in violated(2, lambda: sim.run(60))


def test_2_member_that_others_mark_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuse(self: Members, member: Any, standing: Standing, now: int) -> Any:
        held = self._members[member]
        return held if self._raise(held, held.incarnation, Standing.LEFT, now) else None

    monkeypatch.setattr(Members, "declare", accuse)
    sim = cluster()
    sim.crash("left")
    assert "never said so" in violated(2, lambda: sim.run(60))


def test_3_claims_about_unknown_members_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Members._merge

    def merge_known(self: Members, claim: Any, now: int) -> Any:
        return merge(self, claim, now) if claim.member in self._members else None

    monkeypatch.setattr(Members, "_merge", merge_known)
    assert "come to ALIVE 0" in violated(3, cluster)


def test_3_suspect_that_does_not_refute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Members, "_refute", lambda *_: None)
    sim = cluster()
    sim.link("front", "right").set(reset=1.0)
    assert "did not refute" in violated(3, lambda: sim.run(60))


# -- catalogues and placement ------------------------------------------------------------------------------------------


def test_4_replica_that_skips_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Catalogue._write

    def forgetful(self: Catalogue, content: Any, change: Any, value: Any) -> None:
        write(self, content, change, value)
        if content.member != self.me and change.key == "f:double":
            del content.entries[change.key]

    monkeypatch.setattr(Catalogue, "_write", forgetful)
    assert "its owner had hash" in violated(4, cluster)


def test_5_placement_that_ignores_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "_mask", lambda *_: 0)
    sim = cluster()

    def ask() -> None:
        for _ in range(20):
            sim.call("front", "double", 1, resources={"left"})
            sim.run(0.1)

    assert "placed 'double' (double, ['left']) on" in violated(5, ask)


def test_5_placement_that_does_not_rank_suspects_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpreg_proto.requests import scheduler

    monkeypatch.setattr(scheduler, "rank", lambda candidates, loads, *, resources, now: candidates)
    monkeypatch.setattr(Credits, "allowed", lambda self, candidates, function: candidates)
    sim = cluster()
    sim.partition({"left"}, {"right"})
    sim.link("front", "right").set(delay=1.0)  # so that it cannot refute the suspicion of `left` at once

    def ask() -> None:
        for _ in range(400):
            sim.call("front", "double", 1)
            sim.run(0.1)

    assert "is better" in violated(5, ask)


def test_6_node_that_runs_a_function_it_does_not_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machines, "refusal", lambda *_: None)
    sim = cluster()
    sim.partition({"left"}, {"front", "right"}, oneway=True)  # so no node receives the withdrawal
    sim.withdraw("left", "double")
    sim.call("front", "double", 1, resources={"left"})
    assert "runs 'double'" in violated(6, lambda: sim.run(10))
