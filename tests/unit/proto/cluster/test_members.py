"""Members: which claims raise a standing or a card, refutation of accusations, and expiry."""

import msgspec
import pytest

from mpreg_proto.cluster.anti_entropy import NO_CARD, digest
from mpreg_proto.cluster.members import LAST_INCARNATION, MAX_ACCUSERS, Card, Members, card_hash
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.wire.messages import Claim

ME = MemberId(b"m" * 16)
SHE = MemberId(b"s" * 16)
ALIVE, SUSPECT, DEAD, LEFT, RETIRED = map(int, Standing)


def some(number: int) -> MemberId:
    return MemberId(number.to_bytes(16, "big"))


def card(name: str = "she", *addresses: str) -> bytes:
    return msgspec.msgpack.encode(Card(name, addresses))


def members(**limits: int) -> Members:
    return Members(ME, Card("me", ("ws://me:1",)), limits=Limits(**limits), now=0)


def test_own_member_is_alive_from_the_start() -> None:
    own = members().own
    assert (own.id, own.key, own.shown, own.addresses) == (ME, (0, Standing.ALIVE), "me#6d6d", ("ws://me:1",))


def test_claim_about_an_unknown_member() -> None:
    for standing in (ALIVE, SUSPECT, DEAD, LEFT, RETIRED):
        known = members()
        (rose,) = known.merge([Claim(SHE, 3, standing, card())], now=5)
        assert known.standing(SHE) == rose.standing == standing
        assert known.merge([Claim(SHE, 3, standing, card())], now=6) == []


def test_precedence_of_incarnation_and_standing() -> None:
    known = members()
    for incarnation, standing, rises in [
        (1, SUSPECT, True),
        (1, ALIVE, False),
        (0, LEFT, False),
        (1, DEAD, True),
        (1, LEFT, True),
        (1, DEAD, False),
        (2, ALIVE, True),
        (2, ALIVE, False),
    ]:
        assert bool(known.merge([Claim(SHE, incarnation, standing)], 0)) is rises
    assert known.get(SHE).key == (2, Standing.ALIVE)


def test_retired_overrides_all_and_keeps_only_the_id() -> None:
    known = members()
    known.merge([Claim(SHE, 7, ALIVE, card())], 0)
    (rose,) = known.merge([Claim(SHE, 0, RETIRED)], 1)
    assert rose.standing is Standing.RETIRED
    assert known.get(SHE) is None
    assert known.merge([Claim(SHE, 9, ALIVE, card())], 2) == []
    assert not known.routable(SHE)
    assert known.claim(SHE) == Claim(SHE, 0, RETIRED)
    assert SHE not in [claim.member for claim in digest(known)]


@pytest.mark.parametrize(
    "claim",
    [
        Claim(b"", 0, ALIVE),
        Claim(b"short", 0, ALIVE),
        Claim(SHE + b"x", 0, ALIVE),
        Claim(SHE, -1, ALIVE),
        Claim(SHE, LAST_INCARNATION + 1, ALIVE),
        Claim(SHE, 0, 5),
        Claim(SHE, 0, -1),
        Claim(SHE, 0, ALIVE, b"\xc1"),
        Claim(SHE, 0, ALIVE, b"\x91" * 5000),
        Claim(SHE, 0, ALIVE, msgspec.msgpack.encode([1, 2])),
        Claim(SHE, 0, ALIVE, card("n" * 257)),
        Claim(SHE, 0, ALIVE, card("n", *"abcdefghijklmnopq")),
        Claim(SHE, 0, ALIVE, card("n", "a" * 1025)),
        Claim(SHE, 0, ALIVE, card("n", *["a" * 1000] * 9)),
    ],
)
def test_malformed_claim(claim: Claim) -> None:
    known = members()
    assert known.merge([claim], 0) == []
    assert [held.id for held in known.all()] == [ME]


def test_card_with_unknown_fields_kept_as_bytes() -> None:
    known = members()
    longer = msgspec.msgpack.encode(["she", ["ws://she:1"], [1, 2], "", "9.9", "a field of tomorrow"])
    known.merge([Claim(SHE, 0, ALIVE, longer)], 0)
    assert known.get(SHE).addresses == ("ws://she:1",)
    assert known.claim(SHE).card == longer


@pytest.mark.parametrize("first", [0, 1])
def test_conflict_of_two_cards_for_one_incarnation(first: int) -> None:
    cards = sorted([card("one"), card("two")], key=card_hash)
    known = members()
    known.merge([Claim(SHE, 0, ALIVE, cards[first])], 0)
    known.merge([Claim(SHE, 0, ALIVE, cards[1 - first])], 0)
    assert known.claim(SHE).card == cards[1]
    assert known.drain_card_conflicts() == [SHE]


def test_card_that_arrives_after_its_claim() -> None:
    known = members()
    known.merge([Claim(SHE, 0, ALIVE, card("old"))], 0)
    known.merge([Claim(SHE, 1, SUSPECT)], 0)
    assert known.get(SHE).name == "old"
    assert known.claim(SHE).card == b"", "an old card is not the new incarnation's"
    assert Claim(SHE, 1, SUSPECT, NO_CARD) in digest(known), "so that it is sent"
    (rose,) = known.merge([Claim(SHE, 1, ALIVE, card("new"))], 0)
    assert (rose.name, rose.key) == ("new", (1, Standing.SUSPECT))
    assert known.claim(SHE).card == card("new")


def test_unchanged_card_that_arrives_after_its_claim() -> None:
    known = members()
    known.merge([Claim(SHE, 0, ALIVE, card("she"))], 0)
    known.merge([Claim(SHE, 1, ALIVE)], 0)
    known.merge([Claim(SHE, 1, ALIVE, card("she"))], 0)
    assert known.claim(SHE).card == card("she"), "who refutes keeps the card, and it is then the new incarnation's"


@pytest.mark.parametrize("accused", [0, 1, 41])
@pytest.mark.parametrize("standing", [SUSPECT, DEAD])
def test_one_refutation_of_repeated_accusations(accused: int, standing: int) -> None:
    known = members()
    (rose,) = known.merge([Claim(ME, accused, standing)] * 3, 0)
    assert rose.id == ME
    assert rose.key == (accused + 1, Standing.ALIVE)
    assert rose.claim().card == msgspec.msgpack.encode(Card("me", ("ws://me:1",)))
    assert not known.id_retired


def test_forged_own_card_or_incarnation() -> None:
    known = members()
    known.merge([Claim(ME, 4, ALIVE)], 0)
    assert known.own.incarnation == 5
    known.merge([Claim(ME, 5, ALIVE, card("forged"))], 0)
    assert (known.own.incarnation, known.own.name, known.drain_card_conflicts()) == (6, "me", [ME])
    assert known.merge([Claim(ME, 6, ALIVE), Claim(ME, 2, DEAD)], 0) == []


@pytest.mark.parametrize("claim", [Claim(ME, 0, RETIRED), Claim(ME, 0, LEFT), Claim(ME, LAST_INCARNATION, SUSPECT)])
def test_own_id_retired(claim: Claim) -> None:
    known = members()
    assert known.merge([claim], 0) == []
    assert known.id_retired
    assert known.own.key == (0, Standing.ALIVE)


def test_no_refutation_after_leaving() -> None:
    known = members()
    assert known.leave(9).claim().standing == LEFT
    assert known.merge([Claim(ME, 0, DEAD), Claim(ME, 3, SUSPECT), Claim(ME, 0, RETIRED)], 10) == []
    assert (known.own.standing, known.own.since, known.id_retired) == (Standing.LEFT, 9, False)


def test_declared_standing_only_rises() -> None:
    known = members()
    assert known.declare(SHE, Standing.SUSPECT, 0) is None
    known.merge([Claim(SHE, 2, ALIVE, card())], 1)
    assert known.declare(SHE, Standing.SUSPECT, 2).key == (2, Standing.SUSPECT)
    assert known.declare(SHE, Standing.SUSPECT, 3) is None
    assert known.get(SHE).since == 2
    assert known.declare(SHE, Standing.DEAD, 4).standing is Standing.DEAD
    assert known.declare(SHE, Standing.SUSPECT, 5) is None
    assert known.declare(SHE, Standing.RETIRED, 6).standing is Standing.RETIRED


def test_declare_rejects_own_id_alive_and_left() -> None:
    known = members()
    known.merge([Claim(SHE, 0, ALIVE)], 0)
    for member, standing in [(SHE, Standing.LEFT), (SHE, Standing.ALIVE), (ME, Standing.SUSPECT)]:
        with pytest.raises(AssertionError):
            known.declare(member, standing, 0)


def test_card_update_raises_the_incarnation() -> None:
    known = members()
    own = known.update_card(Card("me", ("ws://new:1",)), 3)
    assert (own.incarnation, own.addresses, own.claim().card) == (1, ("ws://new:1",), card("me", "ws://new:1"))


def test_dead_members_retire_and_are_forgotten() -> None:
    known = members()
    known.merge([Claim(SHE, 0, DEAD, card())], SECOND)
    known.merge([Claim(some(1), 0, LEFT)], 2 * SECOND)
    due = known.next_collection()
    assert due == SECOND + DEFAULT.dead_for
    assert known.collect(due - 1) == []
    assert [held.id for held in known.collect(due)] == [SHE]
    assert [held.id for held in known.collect(due + SECOND)] == [some(1)]
    known.collect(due + DEFAULT.retired_for - 1)
    assert known.standing(SHE) is Standing.RETIRED
    assert known.next_collection() == due + DEFAULT.retired_for
    known.collect(due + DEFAULT.retired_for)
    assert known.standing(SHE) is None
    known.collect(due + DEFAULT.retired_for + SECOND)
    assert known.next_collection() is None


def test_limit_of_living_members() -> None:
    known = members(members=3)
    known.merge([Claim(some(number), 0, ALIVE) for number in range(5)], 0)
    assert [held.id for held in known.all()] == [ME, some(0), some(1)]
    known.merge([Claim(some(0), 0, DEAD), Claim(some(7), 0, ALIVE), Claim(some(0), 1, ALIVE)], 0)
    assert known.routable(some(0)), "a known member comes back, whatever the bound"
    assert known.living == 4
    assert known.merge([Claim(some(8), 0, SUSPECT)], 0) == []


def test_limits_of_dead_and_retired_members() -> None:
    known = members(dead_members=2, retired_members=2)
    known.merge([Claim(some(number), 0, DEAD) for number in range(5)], 0)
    assert [held.id for held in known.all()] == [ME, some(3), some(4)]
    assert known.drain_evicted() == [some(0), some(1), some(2)]
    assert [known.standing(some(number)) for number in range(3)] == [None, Standing.RETIRED, Standing.RETIRED]


def suspicion(incarnation: int, *accusers: MemberId) -> Claim:
    return Claim(SHE, incarnation, SUSPECT, accusers=accusers)


@pytest.mark.parametrize("standing", [ALIVE, SUSPECT])
def test_accusers_end_with_a_new_incarnation(standing: int) -> None:
    known = members()
    known.merge([suspicion(0, some(1), some(2), some(3))], 0)
    known.merge([Claim(SHE, 1, standing)], 1)
    assert known.get(SHE).accusers == ()
    known.declare(SHE, Standing.SUSPECT, 2)
    assert known.get(SHE).accusers == known.claim(SHE).accusers == (ME,)


@pytest.mark.parametrize("standing", [DEAD, LEFT])
def test_accusers_end_with_a_suspicion(standing: int) -> None:
    known = members()
    known.merge([suspicion(0, some(1), some(2))], 0)
    known.merge([Claim(SHE, 0, standing)], 1)
    assert known.get(SHE).accusers == known.claim(SHE).accusers == ()
    assert known.merge([suspicion(0, some(3))], 2) == []
    assert known.get(SHE).accusers == ()


def test_accusers_of_one_incarnation_are_joined() -> None:
    known = members()
    (rose,) = known.merge([suspicion(1, some(3))], 0)
    assert known.drain_confirmed() == [], "it rose, so it is returned already"
    assert known.merge([suspicion(1, some(1)), suspicion(1, some(3)), suspicion(0, some(2))], 1) == []
    assert rose.accusers == (some(1), some(3)) and rose.since == 0
    assert known.drain_confirmed() == [rose]
    assert known.drain_confirmed() == []
    assert known.merge([suspicion(1, some(1), some(3))], 2) == [] and known.drain_confirmed() == []


@pytest.mark.parametrize("turned", [False, True])
def test_accusers_with_the_smallest_ids_are_kept(turned: bool) -> None:
    known = members()
    claims = [suspicion(0, some(number)) for number in range(MAX_ACCUSERS + 5)]
    known.merge(reversed(claims) if turned else claims, 0)
    assert known.get(SHE).accusers == tuple(some(number) for number in range(MAX_ACCUSERS))


def test_accusers_that_no_honest_member_names() -> None:
    known = members()
    known.merge([suspicion(0, SHE, MemberId(b"short"), some(1), some(1))], 0)
    assert known.get(SHE).accusers == (some(1),)
    known.merge([Claim(some(5), 0, ALIVE, accusers=(some(1),))], 0)
    assert known.get(some(5)).accusers == ()


def test_stale_ids_of_retired_members() -> None:
    known = members()
    known.merge([Claim(SHE, 0, RETIRED), Claim(some(1), 0, ALIVE)], 0)
    known.merge([Claim(SHE, 0, RETIRED)], 1)
    assert known.drain_stale_ids() == []
    known.merge([Claim(SHE, 3, DEAD), Claim(SHE, 0, ALIVE)], 1)
    assert known.drain_stale_ids() == [SHE]
    assert known.drain_stale_ids() == []


def test_time_of_the_last_change_of_standing() -> None:
    known = members()
    for now, (incarnation, standing), since in [
        (1, (0, ALIVE), 1),
        (2, (1, ALIVE), 1),
        (3, (1, SUSPECT), 3),
        (4, (2, SUSPECT), 3),
        (5, (2, DEAD), 5),
        (6, (3, ALIVE), 6),
    ]:
        known.merge([Claim(SHE, incarnation, standing)], now)
        assert (known.get(SHE).incarnation, known.get(SHE).since) == (incarnation, since)


@pytest.mark.parametrize("standing", [DEAD, LEFT])
def test_revived_member_was_dead(standing: int) -> None:
    known = members()
    known.merge([Claim(SHE, 0, SUSPECT)], 0)
    assert not known.get(SHE).was_dead
    known.merge([Claim(SHE, 0, standing)], 0)
    assert (known.get(SHE).was_dead, known.living, known.routable(SHE)) == (True, 1, False)
    known.merge([Claim(SHE, 1, ALIVE)], 0)
    assert (known.get(SHE).was_dead, known.living, known.routable(SHE)) == (True, 2, True)
    assert known.next_collection() is None, "it is not retired any more"


def test_limit_of_reported_card_conflicts() -> None:
    known = members()
    for number in range(200):
        known.merge([Claim(SHE, 0, ALIVE, card(str(number)))], 0)
    assert len(known.drain_card_conflicts()) == 100


def test_last_incarnation_of_the_own_card() -> None:
    known = members()
    known.merge([Claim(ME, LAST_INCARNATION - 1, ALIVE)], 0)
    assert (known.own.incarnation, known.id_retired) == (LAST_INCARNATION, False)
    assert known.update_card(Card("other"), 0).name == "me" and known.id_retired
