"""Backoff: pauses between dials double up to a bound, with jitter; ALIVE members share the dials to DEAD ones."""

from mpreg_proto.cluster.dialer import MIN_LINK_AGE, RARE_INTERVAL, RARELY_FROM, AddressRow, Backoff
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.ids import MemberId
from mpreg_proto.limits import SECOND, Limits
from mpreg_proto.rng import Rng

ME, SHE = MemberId(b"m" * 16), MemberId(b"s" * 16)
LIMITS = Limits(dial_first=SECOND, dial_longest=8 * SECOND)


def backoff(*others: int) -> Backoff:
    rings = Rings(ME)
    for number in others:
        rings.enter(MemberId(number.to_bytes(16, "big")))
    return Backoff(rings, Rng(7), LIMITS)


def drawn(pauses: Backoff, failures: int, *, dead: bool) -> list[int]:
    return [pauses.pause(failures, dead=dead) for _ in range(200)]


def test_pause_doubles_up_to_its_maximum_with_full_jitter() -> None:
    pauses = backoff()
    for failures, most in ((0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (10**6, 8)):
        found = drawn(pauses, failures, dead=False)
        assert 0 < min(found) < most * SECOND / 8 and most * SECOND * 7 / 8 < max(found) <= most * SECOND


def test_dials_to_dead_members_shared_by_the_cluster() -> None:
    found = drawn(backoff(1, 2, 3), 1, dead=True)
    assert min(found) >= 4 * 4 * SECOND and max(found) <= 4 * 8 * SECOND
    first = drawn(backoff(1, 2, 3), 0, dead=True)
    assert 0 < min(first) < 4 * SECOND and 4 * 7 * SECOND < max(first) <= 4 * 8 * SECOND, "at any time in the round"
    assert max(drawn(backoff(), 0, dead=True)) <= SECOND, "who is alone has nothing else to do"


def test_rare_dials_after_a_long_silence() -> None:
    pauses, row = backoff(1, 2, 3), AddressRow()
    row.failures = 9
    assert pauses.after_failure(row, RARELY_FROM - 1, dead=True) <= 4 * 8 * SECOND and not row.rare
    assert 0 <= pauses.after_failure(row, RARELY_FROM, dead=True) < 4 * RARE_INTERVAL and row.rare
    assert pauses.after_failure(row, RARELY_FROM, dead=True) == 4 * RARE_INTERVAL
    assert pauses.after_failure(row, RARELY_FROM, dead=False) <= 8 * SECOND


def test_flap_delay_grows_with_short_links() -> None:
    pauses, row = backoff(), AddressRow()
    row.last_member = SHE
    for short in (1, 2, 3):
        assert 0 < pauses.flap_delay(row, SHE, MIN_LINK_AGE - 1) <= SECOND << (short - 1)
        assert row.flaps == short
    assert pauses.flap_delay(row, SHE, MIN_LINK_AGE) == 0 and row.flaps == 0
    assert pauses.flap_delay(row, ME, 0) == 0, "another member answered there"
