"""Who is doubted, when, and what makes a doubt a death."""

import msgspec
import pytest

from mpreg_proto.cluster.actions import AbandonLink, AbortLink, ClusterAction, SendMessage, SendPing
from mpreg_proto.cluster.detector import (
    MAX_HEALTH_MULTIPLIER,
    PROBE_INTERVAL,
    PROBE_TIMEOUT,
    SILENT_LINK_TIMEOUT,
    UNLINKED_GRACE,
    Detector,
    Findings,
)
from mpreg_proto.cluster.dialer import Dialer
from mpreg_proto.cluster.members import Card, Members
from mpreg_proto.cluster.suspicion import (
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    SMALL_CLUSTER_TIMEOUT,
    UNOBSERVED_TIMEOUT,
    suspicion_timeout,
)
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.effects import Dial
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.notices import Standing
from mpreg_proto.rng import Rng
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import Claim, IndirectAck, PingReq

ME = MemberId(b"m" * 16)
ANN, BOB, CAT, DAN, EVE, FAY, GUS = (MemberId(letter.encode() * 16) for letter in "abcdefg")
EVERYBODY = (ANN, BOB, CAT, DAN, EVE, FAY, GUS)


class World:
    """A detector that knows `others`, with a link to each; what it wants is kept in `outs`, its accusations spread."""

    def __init__(self, *others: MemberId) -> None:
        self.now = 0
        self.links: dict[MemberId, LinkId] = {}
        self.last: dict[LinkId, int] = {}
        self.timers = Timers()
        self.members = Members(ME, Card("me"), limits=Limits(), now=0)
        self.rings = Rings(ME)
        self.dialer = Dialer(
            self.members, self.rings, self.links, seeds=(), timers=Timers(), rng=Rng(0), limits=Limits()
        )  # its timers are apart: no dial of its own gets in the way
        self.detector = Detector(
            self.members,
            self.rings,
            self.dialer,
            self.links,
            last_activity=lambda link: self.last.get(link, -(10**12)),
            timers=self.timers,
            rng=Rng(0),
        )
        self.outs: list[ClusterAction] = []
        for number, other in enumerate(others, 1):
            self.links[other] = LinkId(number)
            self.hear(other)

    def hear(self, member: MemberId, standing: int = 0, incarnation: int = 0, *accusers: MemberId) -> None:
        card = msgspec.msgpack.encode(Card("she", (f"ws://{member[:1].decode()}:1",)))
        self.follow(Findings(self.members.merge([Claim(member, incarnation, standing, card, accusers)], self.now)))
        for held in self.members.drain_confirmed():
            self.follow(self.detector.member_changed(held, self.now))

    def follow(self, findings: Findings) -> None:
        """As `Cluster` does: what rose is told to the detector too."""
        waiting = list(findings.declared)
        self.outs += findings.actions
        while waiting:
            one = waiting.pop(0)
            (self.rings.enter if one.routable else self.rings.depart)(one.id)
            more = self.detector.member_changed(one, self.now)
            waiting += more.declared
            self.outs += more.actions
            self.dialer.member_changed(one, self.now)
        self.dialer.neighbours_changed(self.now)

    def tick(self) -> list[ClusterAction]:
        self.outs = []
        self.follow(self.detector.tick(self.now))
        return self.outs

    def until(self, when: int) -> None:
        """Let time pass, without ticks."""
        while (at := self.timers.next()) is not None and at <= when:
            self.now = at
            for key in self.timers.due(at):
                due = self.detector.probe_timed_out if key[0] == TimerKind.PROBE else self.detector.suspicion_timed_out
                self.follow(due(MemberId(bytes(key[1])), at))
        self.now = when

    def run(self, when: int) -> None:
        """Let time pass, with a tick a second."""
        while self.now < when:
            self.until(min(when, self.now + PROBE_INTERVAL))
            self.tick()

    def unlink(self, member: MemberId) -> None:
        del self.links[member]
        self.follow(self.detector.link_lost(member, self.now))

    def bytes_came(self, member: MemberId) -> None:
        self.last[self.links[member]] = self.now

    def fail(self, member: MemberId) -> None:
        address = Address(self.members.get(member).addresses[0])
        self.dialer.connect(member, self.now)
        self.dialer.dial_failed(address, self.now)
        self.follow(self.detector.dial_failed(address, self.now))

    @property
    def ann(self) -> Standing | None:
        return self.members.standing(ANN)


# -- probing ----------------------------------------------------------------------------------------------------------


def test_each_neighbour_has_its_turn_in_a_round_and_rounds_differ() -> None:
    world = World(*EVERYBODY)
    rounds = []
    for _ in range(4):
        probed = []
        for _ in EVERYBODY:
            (probe,) = world.tick()
            probed.append(probe.link)
            member = next(member for member, link in world.links.items() if link == probe.link)
            world.outs += world.detector.ack_received(member, world.now)
            world.now += PROBE_INTERVAL
        rounds.append(probed)
    assert all(sorted(probed) == sorted(world.links.values()) for probed in rounds)
    assert len({tuple(probed) for probed in rounds}) == 4


def test_any_byte_is_an_answer() -> None:
    world = World(ANN, BOB)
    assert len(world.tick()) == 2
    world.now += 100 * MILLISECOND
    world.bytes_came(ANN)
    world.bytes_came(BOB)
    world.until(10 * SECOND)
    assert world.ann is Standing.ALIVE
    assert len(world.timers) == 0


def test_whom_i_just_heard_i_need_not_ask() -> None:
    world = World(ANN)
    world.now = 5 * SECOND
    world.bytes_came(ANN)
    world.now += PROBE_INTERVAL - 1
    assert world.tick() == []
    world.now += 1
    assert world.tick() == [SendPing(world.links[ANN])]


def test_who_does_not_answer_is_asked_about_and_then_accused() -> None:
    world = World(ANN, BOB, CAT, DAN, EVE)
    (probe,) = world.tick()
    silent = next(member for member, link in world.links.items() if link == probe.link)
    world.until(PROBE_TIMEOUT)
    asked = world.outs[1:]
    assert [out.message for out in asked] == [PingReq(silent)] * 3
    assert len({out.link for out in asked} - {probe.link}) == 3
    assert world.members.standing(silent) is Standing.ALIVE
    world.until(2 * PROBE_TIMEOUT)
    assert world.members.standing(silent) is Standing.SUSPECT
    assert world.members.get(silent).accusers == (ME,)
    assert world.detector.health_multiplier == 2


def test_one_who_vouches_is_enough() -> None:
    world = World(*EVERYBODY)
    (probe,) = world.tick()
    silent = next(member for member, link in world.links.items() if link == probe.link)
    world.until(PROBE_TIMEOUT)
    world.detector.indirect_ack_received(silent, world.now)
    world.until(20 * SECOND)
    assert world.members.standing(silent) is Standing.ALIVE


def test_who_is_asked_vouches_at_once_for_whom_it_just_heard_and_else_probes() -> None:
    world = World(ANN, BOB, CAT)
    world.now = SECOND
    world.bytes_came(ANN)
    assert world.detector.ping_req_received(world.links[BOB], ANN, SECOND) == [
        SendMessage(world.links[BOB], IndirectAck(ANN))
    ]
    assert world.detector.ping_req_received(world.links[ANN], BOB, 2 * SECOND) == [SendPing(world.links[BOB])]
    assert world.detector.ping_req_received(world.links[CAT], BOB, 2 * SECOND) == [SendPing(world.links[BOB])]
    told = world.detector.ack_received(BOB, 2 * SECOND)
    assert told == [SendMessage(world.links[ANN], IndirectAck(BOB)), SendMessage(world.links[CAT], IndirectAck(BOB))]
    assert world.detector.ack_received(BOB, 2 * SECOND) == []
    assert world.detector.ping_req_received(world.links[CAT], DAN, 3 * SECOND) == [], "it is no neighbour of mine"
    assert world.detector.ping_req_received(world.links[CAT], CAT, 3 * SECOND) == [], "it speaks itself"


def test_a_helper_without_a_link_is_dialled_and_asked_then() -> None:
    world = World(ANN, BOB, CAT)
    del world.links[CAT]
    del world.links[BOB]
    while not (probes := [out for out in world.tick() if isinstance(out, SendPing)]):
        world.now += PROBE_INTERVAL
    started = world.now
    assert probes == [SendPing(world.links[ANN])]
    world.until(started + PROBE_TIMEOUT)
    assert {out.address for out in world.outs if isinstance(out, Dial)} == {"ws://b:1", "ws://c:1"}
    world.links[CAT] = LinkId(9)
    assert world.detector.link_established(CAT) == [SendMessage(LinkId(9), PingReq(ANN))]
    assert world.detector.link_established(CAT) == []


def test_a_neighbour_that_was_never_reached_is_asked_about_after_five_seconds() -> None:
    world = World(ANN)
    del world.links[ANN]
    assert world.tick() == []
    world.now = UNLINKED_GRACE - 1
    assert world.tick() == []
    world.now = UNLINKED_GRACE + PROBE_INTERVAL
    world.tick()
    world.until(world.now + PROBE_TIMEOUT)
    assert world.ann is Standing.SUSPECT


# -- suspicion --------------------------------------------------------------------------------------------------------


def test_the_end_of_a_stream_is_suspicion_and_time_is_death() -> None:
    world = World(ANN)
    world.unlink(ANN)
    assert world.ann is Standing.SUSPECT
    world.fail(ANN)
    world.until(MIN_TIMEOUT - 1)
    assert world.ann is Standing.SUSPECT, "a dial in vain changes nothing"
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_an_observer_alone_waits_for_long_and_those_who_agree_shorten_it() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.until(2 * SECOND)
    world.hear(ANN, 1, 0, BOB)
    world.until(suspicion_timeout(2, 7) - 1)
    assert world.ann is Standing.SUSPECT
    world.hear(ANN, 1, 0, CAT)
    world.until(world.now)
    assert world.ann is Standing.DEAD, "three agree, and the second is over"


def test_who_is_no_observer_does_not_count() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.hear(ANN, 1, 0, *(MemberId(letter * 16) for letter in (b"1", b"2", b"3")))
    world.until(MAX_TIMEOUT - 1)
    assert world.ann is Standing.SUSPECT
    world.until(MAX_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_an_observer_that_has_gone_since_counts_on() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.hear(ANN, 1, 0, BOB, CAT)
    world.hear(BOB, int(Standing.LEFT))
    world.hear(CAT, int(Standing.LEFT))
    world.hear(ANN, 1, 0, DAN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_the_first_accusation_makes_me_look_at_once_and_agree_without_asking_others() -> None:
    world = World(*EVERYBODY)
    world.hear(ANN, 1, 0, BOB)
    assert world.outs == [SendPing(world.links[ANN])]
    world.until(PROBE_TIMEOUT)
    assert world.outs == [SendPing(world.links[ANN])]
    assert world.members.get(ANN).accusers == (BOB, ME)
    assert world.detector.health_multiplier == 1, "another saw it too"


def test_whom_i_hear_i_do_not_accuse_and_never_call_dead() -> None:
    world = World(*EVERYBODY)
    world.hear(ANN, 1, 0, BOB, CAT, DAN)
    world.now = 100 * MILLISECOND
    world.bytes_came(ANN)
    world.until(4 * SECOND)
    assert world.ann is Standing.SUSPECT
    assert world.members.get(ANN).accusers == (BOB, CAT, DAN)
    world.hear(ANN, 0, 1)
    world.until(60 * SECOND)
    assert world.ann is Standing.ALIVE
    assert len(world.timers) == 0


def test_a_suspect_to_whom_i_have_no_link_is_dialled_and_accused_when_that_fails() -> None:
    world = World(*EVERYBODY)
    del world.links[ANN]
    world.hear(ANN, 1, 0, BOB)
    assert world.outs == [Dial(Address("ws://a:1"))]
    world.now = 10 * MILLISECOND
    world.dialer.dial_failed(Address("ws://a:1"), world.now)
    world.follow(world.detector.dial_failed(Address("ws://a:1"), world.now))
    assert world.members.get(ANN).accusers == (BOB, ME)


def test_who_is_no_observer_waits_for_twelve_seconds() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.hear(far, 1, 0, *world.rings.observers_of(far)[:3])
    world.until(UNOBSERVED_TIMEOUT - 1)
    assert world.members.standing(far) is Standing.SUSPECT
    world.until(UNOBSERVED_TIMEOUT)
    assert world.members.standing(far) is Standing.DEAD


def test_an_end_of_stream_of_whom_i_do_not_watch_is_nothing() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.unlink(far)
    assert world.members.standing(far) is Standing.ALIVE


def test_who_becomes_my_neighbour_as_a_suspect_is_looked_at() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.hear(far, 1, 0, *world.rings.observers_of(far)[:3])
    world.outs = []
    for other in list(world.rings.ids()):
        if other not in (ME, far):
            world.rings.depart(other)
    world.follow(world.detector.neighbours_changed(0))
    assert SendPing(world.links[far]) in world.outs
    world.until(PROBE_TIMEOUT)
    assert ME in world.members.get(far).accusers


def test_after_goodbye_there_is_no_suspicion_while_it_can_be_reached_soon() -> None:
    world = World(ANN)
    del world.links[ANN]
    world.detector.link_closed(ANN, 0)
    world.fail(ANN)
    world.until(UNLINKED_GRACE - 1)
    assert world.ann is Standing.ALIVE


def test_the_silent_link_of_who_is_dead_is_dropped_so_that_its_address_is_dialled() -> None:
    world = World(*EVERYBODY)
    world.hear(ANN, 1, 0, BOB, CAT, DAN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD
    assert AbortLink(world.links[ANN]) in world.outs
    world.hear(BOB, 1, 0, CAT)
    world.hear(BOB, int(Standing.LEFT))
    world.hear(CAT, int(Standing.DEAD))
    assert [out for out in world.outs if isinstance(out, AbortLink)] == [AbortLink(world.links[ANN])], (
        "it may have more to say"
    )


# -- my own health ----------------------------------------------------------------------------------------------------


def test_a_node_that_was_held_up_throws_away_what_it_waited_for() -> None:
    world = World(ANN, BOB)
    world.tick()
    world.now = 4 * SECOND  # nothing was looked at until now
    late = world.now
    for key in world.timers.due(late):
        world.follow(world.detector.probe_timed_out(MemberId(bytes(key[1])), late))
    world.unlink(ANN)
    world.tick()
    world.unlink(BOB)
    assert [world.members.standing(member) for member in (ANN, BOB)] == [Standing.ALIVE, Standing.ALIVE]
    world.now = late + PROBE_INTERVAL
    world.tick()
    assert [world.members.standing(member) for member in (ANN, BOB)] == [Standing.SUSPECT, Standing.SUSPECT]


def test_a_node_that_was_held_up_before_its_first_tick_judges_nobody() -> None:
    world = World(ANN)
    world.detector.begin(PROBE_INTERVAL)
    world.now = 4 * SECOND
    world.unlink(ANN)
    assert world.ann is Standing.ALIVE


def test_verdicts_of_a_node_that_was_held_up_begin_anew() -> None:
    world = World(ANN)
    world.tick()
    world.unlink(ANN)
    world.now = 10 * SECOND
    for key in world.timers.due(world.now):
        world.follow(world.detector.suspicion_timed_out(MemberId(bytes(key[1])), world.now))
    world.tick()
    world.run(10 * SECOND + SMALL_CLUSTER_TIMEOUT - PROBE_INTERVAL // 2)
    assert world.ann is Standing.SUSPECT
    world.run(10 * SECOND + SMALL_CLUSTER_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_link_end_before_the_first_tick_of_a_late_node() -> None:
    world = World(ANN, BOB)
    world.detector.begin(PROBE_INTERVAL)
    world.now = 8 * SECOND
    world.unlink(ANN)
    assert world.ann is Standing.ALIVE, "it stood still since before its first tick"
    world.tick()
    world.until(9 * SECOND)
    assert world.ann is Standing.ALIVE
    world.bytes_came(BOB)
    world.tick()
    assert world.ann is Standing.SUSPECT, "a second on it is gone still"
    world.until(9 * SECOND + MIN_TIMEOUT)
    assert world.ann is Standing.DEAD, "and the end of a link has the shortest time"


def test_link_end_excused_by_lateness_and_mended() -> None:
    world = World(ANN, BOB)
    world.detector.begin(PROBE_INTERVAL)
    world.now = 8 * SECOND
    world.unlink(ANN)
    world.tick()
    world.links[ANN] = LinkId(9)
    world.detector.link_established(ANN)
    for second in range(8, 20):
        world.now = second * SECOND
        world.bytes_came(ANN)
        world.bytes_came(BOB)
        world.tick()
    assert world.ann is Standing.ALIVE


@pytest.mark.parametrize("linked", [True, False])
def test_chronic_lateness_still_ends_in_death(linked: bool) -> None:
    world = World(ANN)
    world.detector.begin(PROBE_INTERVAL)
    if not linked:
        world.unlink(ANN)
        world.hear(ANN, 0, 1)
    for _ in range(60):
        world.now += PROBE_INTERVAL + PROBE_INTERVAL * 6 // 10  # each tick is late
        for key in world.timers.due(world.now):
            due = world.detector.probe_timed_out if key[0] == TimerKind.PROBE else world.detector.suspicion_timed_out
            world.follow(due(MemberId(bytes(key[1])), world.now))
        world.tick()
    assert world.ann is Standing.DEAD


def test_chronic_lateness_accuses_nobody_who_is_heard() -> None:
    world = World(ANN, BOB)
    world.detector.begin(PROBE_INTERVAL)
    for _ in range(60):
        world.now += PROBE_INTERVAL + PROBE_INTERVAL * 6 // 10
        for key in world.timers.due(world.now):
            due = world.detector.probe_timed_out if key[0] == TimerKind.PROBE else world.detector.suspicion_timed_out
            world.follow(due(MemberId(bytes(key[1])), world.now))
        world.tick()
        world.now += MILLISECOND  # what came meanwhile is read after the timers
        world.bytes_came(ANN)
        world.bytes_came(BOB)
    assert [world.members.standing(member) for member in (ANN, BOB)] == [Standing.ALIVE, Standing.ALIVE]


# -- small clusters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(ANN,), (ANN, BOB), (ANN, BOB, CAT)])
def test_pause_in_a_small_cluster(others: tuple[MemberId, ...]) -> None:
    """All observers see the same pause, so that their agreement proves nothing."""
    world = World(*others)
    world.tick()
    world.run(2 * PROBE_TIMEOUT)
    assert world.ann is Standing.SUSPECT
    world.hear(ANN, 1, 0, *others[1:])
    world.run(5 * SECOND)
    assert world.ann is Standing.SUSPECT
    world.run(2 * PROBE_TIMEOUT + SMALL_CLUSTER_TIMEOUT)
    assert world.ann is Standing.DEAD


@pytest.mark.parametrize("heard", [0, 1, 500 * MILLISECOND, 999 * MILLISECOND])
@pytest.mark.parametrize("others", [(ANN,), (ANN, BOB, CAT)])
def test_hang_in_a_small_cluster_within_eight_seconds(others: tuple[MemberId, ...], heard: int) -> None:
    world = World(*others)
    world.now = heard
    for member in others:
        world.bytes_came(member)  # the last sign of life
    world.now = 999 * MILLISECOND
    world.tick()
    world.run(8 * SECOND + heard)
    assert [world.members.standing(member) for member in others] == [Standing.DEAD] * len(others)


def test_link_end_of_a_suspect_in_a_small_cluster() -> None:
    world = World(ANN, BOB)
    world.tick()
    world.run(3 * SECOND)
    assert world.ann is Standing.SUSPECT
    world.unlink(ANN)
    world.until(4 * SECOND - 1)
    assert world.ann is Standing.SUSPECT
    world.until(4 * SECOND)
    assert world.ann is Standing.DEAD


# -- half-open links --------------------------------------------------------------------------------------------------


def _silent_but_vouched(world: World, until: int) -> list[ClusterAction]:
    """ANN's link brings nothing, while another says at each question that she lives; the others are heard."""
    wanted: list[ClusterAction] = []
    while world.now < until:
        for member in world.links:
            if member is not ANN:
                world.bytes_came(member)
        world.tick()
        world.until(world.now + PROBE_TIMEOUT + MILLISECOND)
        wanted += world.detector.indirect_ack_received(ANN, world.now)
        world.until(world.now + PROBE_TIMEOUT - MILLISECOND)
    return wanted


@pytest.mark.parametrize("others", [(ANN, BOB), EVERYBODY])
def test_half_open_link_is_abandoned_after_three_seconds(others: tuple[MemberId, ...]) -> None:
    world = World(*others)
    world.bytes_came(ANN)
    assert _silent_but_vouched(world, SILENT_LINK_TIMEOUT) == []
    assert _silent_but_vouched(world, 30 * SECOND)[:1] == [AbandonLink(world.links[ANN])]
    assert world.ann is Standing.ALIVE


def test_slow_link_that_is_heard_again_is_kept() -> None:
    world = World(ANN, BOB)
    world.bytes_came(ANN)
    assert _silent_but_vouched(world, 2 * SECOND) == []
    for _ in range(8):
        world.bytes_came(ANN)
        assert _silent_but_vouched(world, world.now + 2 * SECOND) == []


def test_abandoned_link_is_no_suspicion() -> None:
    world = World(ANN, BOB)
    del world.links[ANN]
    world.detector.link_closed(ANN, 0)
    assert world.ann is Standing.ALIVE


def test_health_multiplies_patience_and_stays_between_one_and_eight() -> None:
    world = World(ANN)
    for _ in range(20):
        world.detector.refuted()
    assert world.detector.health_multiplier == MAX_HEALTH_MULTIPLIER
    world.tick()
    world.run(2 * PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER - 1)
    assert world.ann is Standing.ALIVE
    world.run(2 * PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER)
    assert world.ann is Standing.SUSPECT
    world.run(2 * PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER + SMALL_CLUSTER_TIMEOUT - 1)
    assert world.ann is Standing.SUSPECT, "a small cluster has one patience"
    world.run(2 * PROBE_TIMEOUT * MAX_HEALTH_MULTIPLIER + SMALL_CLUSTER_TIMEOUT)
    assert world.ann is Standing.DEAD
    assert suspicion_timeout(3, 7, health_multiplier=MAX_HEALTH_MULTIPLIER) == MIN_TIMEOUT * MAX_HEALTH_MULTIPLIER
    world.hear(BOB)
    world.links[BOB] = LinkId(7)
    for _ in range(MAX_HEALTH_MULTIPLIER):
        world.tick()
        world.outs += world.detector.ack_received(BOB, world.now)
        world.now += PROBE_INTERVAL
    assert world.detector.health_multiplier == 1


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_makes_suspect_and_the_dead_retired() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    assert world.ann is Standing.SUSPECT
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.RETIRED
    assert world.detector.displaced(ANN, 2) == Findings()
    assert world.detector.displaced(BOB, 2) == Findings(), "unknown"
    assert world.detector.displaced(ME, 2) == Findings()


def test_evidence_against_the_dead_retires_them_at_once() -> None:
    world = World(ANN)
    world.hear(ANN, int(Standing.DEAD))
    assert [rose.standing for rose in world.detector.displaced(ANN, 2).declared] == [Standing.RETIRED]


def test_who_was_displaced_and_is_said_to_be_dead_is_retired() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    world.hear(ANN, int(Standing.DEAD))
    assert world.ann is Standing.RETIRED


def test_who_was_displaced_and_refutes_is_alive_and_mortal_as_before() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    world.hear(ANN, 0, 1)
    world.unlink(ANN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.LEFT, Standing.RETIRED])
def test_the_gone_are_not_doubted(standing: Standing) -> None:
    world = World(ANN)
    world.hear(ANN, int(standing))
    world.unlink(ANN)
    world.until(100 * SECOND)
    assert world.ann is standing
    assert world.tick() == []


def test_who_leaves_judges_nobody() -> None:
    world = World(ANN, BOB)
    world.tick()
    world.unlink(ANN)
    world.detector.stop()
    assert len(world.timers) == 0
    assert world.detector.displaced(BOB, 2) == Findings()
    assert world.tick() == []
