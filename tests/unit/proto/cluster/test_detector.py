"""The failure detector: probes, suspicion, and the step from SUSPECT to DEAD."""

import msgspec
import pytest

from mpreg_proto.cluster.actions import AbandonLink, AbortLink, ClusterAction, SendMessage, SendPing
from mpreg_proto.cluster.detector import (
    EXCUSES,
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
    """A detector with a link to each of `others`; its actions are collected in `outs`, its declarations are applied."""

    def __init__(self, *others: MemberId) -> None:
        self.now = 0
        self.links: dict[MemberId, LinkId] = {}
        self.last: dict[LinkId, int] = {}
        self.timers = Timers()
        self.members = Members(ME, Card("me"), limits=Limits(), now=0)
        self.rings = Rings(ME)
        self.dialer = Dialer(
            self.members, self.rings, self.links, seeds=(), timers=Timers(), rng=Rng(0), limits=Limits()
        )  # separate timers, so that its own dials do not interfere
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
            self.merge_claim(other)

    def merge_claim(self, member: MemberId, standing: int = 0, incarnation: int = 0, *accusers: MemberId) -> None:
        card = msgspec.msgpack.encode(Card("she", (f"ws://{member[:1].decode()}:1",)))
        self.follow(Findings(self.members.merge([Claim(member, incarnation, standing, card, accusers)], self.now)))
        for held in self.members.drain_confirmed():
            self.follow(self.detector.member_changed(held, self.now))

    def follow(self, findings: Findings) -> None:
        """Pass each raised member to the detector again, as `Cluster` does."""
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
        """Advance the time to `when`, without ticks."""
        while (at := self.timers.next()) is not None and at <= when:
            self.now = at
            for key in self.timers.due(at):
                due = self.detector.probe_timed_out if key[0] == TimerKind.PROBE else self.detector.suspicion_timed_out
                self.follow(due(MemberId(bytes(key[1])), at))
        self.now = when

    def run(self, when: int) -> None:
        """Advance the time to `when`, with a tick in each `PROBE_INTERVAL`."""
        while self.now < when:
            self.until(min(when, self.now + PROBE_INTERVAL))
            self.tick()

    def unlink(self, member: MemberId) -> None:
        del self.links[member]
        self.follow(self.detector.link_lost(member, self.now))

    def activity(self, member: MemberId) -> None:
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


def test_one_probe_for_each_neighbour_in_a_shuffled_round() -> None:
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


def test_probe_out_of_turn_of_a_neighbour_that_is_not_probed() -> None:
    world = World(ANN)
    world.activity(ANN)
    assert world.detector.probe(ANN, world.now) == [], "it has just sent something"
    world.now += PROBE_INTERVAL
    assert world.detector.probe(ANN, world.now) == [SendPing(world.links[ANN])]
    assert world.detector.probe(ANN, world.now) == [] == world.detector.probe(BOB, world.now)


def test_link_to_a_member_that_is_no_neighbour_is_abandoned_and_the_member_not_accused() -> None:
    many = tuple(MemberId(bytes([65 + number]) * 16) for number in range(40))
    world = World(*many)
    stranger = next(one for one in many if one not in world.rings.neighbours)
    for one in many:
        world.activity(one)
    for confirmed in (False, True):
        abandoned: list[ClusterAction] = []
        for _ in range(5):
            world.now += PROBE_INTERVAL
            assert SendPing(world.links[stranger]) in world.detector.probe(stranger, world.now)
            world.outs = []
            world.until(world.now + PROBE_TIMEOUT)
            assert [one for one in world.outs if isinstance(one, SendMessage)], "its observers are asked"
            if confirmed:
                abandoned += world.detector.indirect_ack_received(stranger, world.now)
            world.until(world.now + PROBE_TIMEOUT)
            assert stranger not in world.detector._probes
        assert abandoned[-1:] == ([AbandonLink(world.links[stranger])] if confirmed else [])
        assert world.members.standing(stranger) is Standing.ALIVE
    del world.links[stranger]
    assert world.detector.probe(stranger, world.now) == []


def test_any_byte_answers_a_probe() -> None:
    world = World(ANN, BOB)
    assert len(world.tick()) == 2
    world.now += 100 * MILLISECOND
    world.activity(ANN)
    world.activity(BOB)
    world.until(10 * SECOND)
    assert world.ann is Standing.ALIVE
    assert len(world.timers) == 0


def test_no_probe_within_the_interval_after_activity() -> None:
    world = World(ANN)
    world.now = 5 * SECOND
    world.activity(ANN)
    world.now += PROBE_INTERVAL - 1
    assert world.tick() == []
    world.now += 1
    assert world.tick() == [SendPing(world.links[ANN])]


def test_ping_req_then_suspicion_without_an_ack() -> None:
    world = World(ANN, BOB, CAT, DAN, EVE)
    (probe,) = world.tick()
    silent = next(member for member, link in world.links.items() if link == probe.link)
    world.until(PROBE_TIMEOUT)
    ping_reqs = world.outs[1:]
    assert [out.message for out in ping_reqs] == [PingReq(silent)] * 3
    assert len({out.link for out in ping_reqs} - {probe.link}) == 3
    assert world.members.standing(silent) is Standing.ALIVE
    world.until(2 * PROBE_TIMEOUT)
    assert world.members.standing(silent) is Standing.SUSPECT
    assert world.members.get(silent).accusers == (ME,)
    assert world.detector.health_multiplier == 2


def test_one_indirect_ack_ends_a_probe() -> None:
    world = World(*EVERYBODY)
    (probe,) = world.tick()
    silent = next(member for member, link in world.links.items() if link == probe.link)
    world.until(PROBE_TIMEOUT)
    world.detector.indirect_ack_received(silent, world.now)
    world.until(20 * SECOND)
    assert world.members.standing(silent) is Standing.ALIVE


def test_indirect_ack_without_a_link_or_after_activity_on_it() -> None:
    for linked in (False, True):
        world = World(*EVERYBODY)
        (probe,) = world.tick()
        probed = next(member for member, link in world.links.items() if link == probe.link)
        world.now = PROBE_TIMEOUT
        if linked:
            world.activity(probed)
        else:
            del world.links[probed]
        assert world.detector.indirect_ack_received(probed, world.now) == []
        assert probed not in world.detector._half_open


def test_ping_req_answered_from_activity_or_by_a_ping() -> None:
    world = World(ANN, BOB, CAT)
    world.now = SECOND
    world.activity(ANN)
    assert world.detector.ping_req_received(world.links[BOB], ANN, SECOND) == [
        SendMessage(world.links[BOB], IndirectAck(ANN))
    ]
    assert world.detector.ping_req_received(world.links[ANN], BOB, 2 * SECOND) == [SendPing(world.links[BOB])]
    assert world.detector.ping_req_received(world.links[CAT], BOB, 2 * SECOND) == [SendPing(world.links[BOB])]
    acks = world.detector.ack_received(BOB, 2 * SECOND)
    assert acks == [SendMessage(world.links[ANN], IndirectAck(BOB)), SendMessage(world.links[CAT], IndirectAck(BOB))]
    assert world.detector.ack_received(BOB, 2 * SECOND) == []
    assert world.detector.ping_req_received(world.links[CAT], DAN, 3 * SECOND) == [], "it is no neighbour of mine"
    assert world.detector.ping_req_received(world.links[CAT], CAT, 3 * SECOND) == [], "it speaks itself"


def test_ping_req_queued_until_the_helper_is_linked() -> None:
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


def test_probe_of_an_unlinked_neighbour_after_its_grace() -> None:
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


def test_link_end_suspects_and_timeout_marks_dead() -> None:
    world = World(ANN)
    world.unlink(ANN)
    assert world.ann is Standing.SUSPECT
    world.fail(ANN)
    world.until(MIN_TIMEOUT - 1)
    assert world.ann is Standing.SUSPECT, "a dial in vain changes nothing"
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_suspicion_timeout_shrinks_with_accusers() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.until(2 * SECOND)
    world.merge_claim(ANN, 1, 0, BOB)
    world.until(suspicion_timeout(2, 7) - 1)
    assert world.ann is Standing.SUSPECT
    world.merge_claim(ANN, 1, 0, CAT)
    world.until(world.now)
    assert world.ann is Standing.DEAD, "three agree, and the second is over"


def test_accusers_that_are_no_observers() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.merge_claim(ANN, 1, 0, *(MemberId(letter * 16) for letter in (b"1", b"2", b"3")))
    world.until(MAX_TIMEOUT - 1)
    assert world.ann is Standing.SUSPECT
    world.until(MAX_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_accuser_counts_after_it_left() -> None:
    world = World(*EVERYBODY)
    world.unlink(ANN)
    world.merge_claim(ANN, 1, 0, BOB, CAT)
    world.merge_claim(BOB, int(Standing.LEFT))
    world.merge_claim(CAT, int(Standing.LEFT))
    world.merge_claim(ANN, 1, 0, DAN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


def test_ping_without_ping_req_on_the_first_accusation() -> None:
    world = World(*EVERYBODY)
    world.merge_claim(ANN, 1, 0, BOB)
    assert world.outs == [SendPing(world.links[ANN])]
    world.until(PROBE_TIMEOUT)
    assert world.outs == [SendPing(world.links[ANN])]
    assert world.members.get(ANN).accusers == (BOB, ME)
    assert world.detector.health_multiplier == 1, "another saw it too"


def test_activity_prevents_accusation_and_dead() -> None:
    world = World(*EVERYBODY)
    world.merge_claim(ANN, 1, 0, BOB, CAT, DAN)
    world.now = 100 * MILLISECOND
    world.activity(ANN)
    world.until(4 * SECOND)
    assert world.ann is Standing.SUSPECT
    assert world.members.get(ANN).accusers == (BOB, CAT, DAN)
    world.merge_claim(ANN, 0, 1)
    world.until(60 * SECOND)
    assert world.ann is Standing.ALIVE
    assert len(world.timers) == 0


def test_failed_dial_accuses_an_unlinked_suspect() -> None:
    world = World(*EVERYBODY)
    del world.links[ANN]
    world.merge_claim(ANN, 1, 0, BOB)
    assert world.outs == [Dial(Address("ws://a:1"))]
    world.now = 10 * MILLISECOND
    world.dialer.dial_failed(Address("ws://a:1"), world.now)
    world.follow(world.detector.dial_failed(Address("ws://a:1"), world.now))
    assert world.members.get(ANN).accusers == (BOB, ME)


def test_suspicion_timeout_of_an_unobserved_member() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.merge_claim(far, 1, 0, *world.rings.observers_of(far)[:3])
    world.until(UNOBSERVED_TIMEOUT - 1)
    assert world.members.standing(far) is Standing.SUSPECT
    world.until(UNOBSERVED_TIMEOUT)
    assert world.members.standing(far) is Standing.DEAD


def test_link_end_of_an_unobserved_member() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.unlink(far)
    assert world.members.standing(far) is Standing.ALIVE


def test_probe_of_a_suspect_that_becomes_a_neighbour() -> None:
    world = World(*EVERYBODY, *(MemberId(bytes([number]) * 16) for number in range(1, 60)))
    far = next(member for member in world.rings.ids() if member not in (ME, *world.rings.neighbours))
    world.merge_claim(far, 1, 0, *world.rings.observers_of(far)[:3])
    world.outs = []
    for other in list(world.rings.ids()):
        if other not in (ME, far):
            world.rings.depart(other)
    world.follow(world.detector.neighbours_changed(0))
    assert SendPing(world.links[far]) in world.outs
    world.until(PROBE_TIMEOUT)
    assert ME in world.members.get(far).accusers


def test_no_suspicion_within_the_grace_after_goodbye() -> None:
    world = World(ANN)
    del world.links[ANN]
    world.detector.link_closed(ANN, 0)
    world.fail(ANN)
    world.until(UNLINKED_GRACE - 1)
    assert world.ann is Standing.ALIVE


@pytest.mark.parametrize("again", [False, True], ids=["once", "after another link"])
def test_grace_begins_with_the_goodbye(again: bool) -> None:
    world = World(ANN, BOB)
    link = world.links.pop(ANN)
    world.detector.link_closed(ANN, 0)
    if again:
        world.now = UNLINKED_GRACE
        world.links[ANN] = link
        world.detector.link_established(ANN)
        del world.links[ANN]
        world.detector.link_closed(ANN, world.now)
    world.now += UNLINKED_GRACE - 1
    assert SendMessage(world.links[BOB], PingReq(ANN)) not in world.tick()
    world.now += 1
    assert SendMessage(world.links[BOB], PingReq(ANN)) in world.tick()


def test_grace_of_a_new_neighbour_begins_with_its_first_turn() -> None:
    world = World(*EVERYBODY)
    crowd = [MemberId(bytes([number]) * 16) for number in range(1, 60)]
    for member in crowd:
        world.merge_claim(member)
    far = next(member for member in EVERYBODY if member not in world.rings.neighbours)
    del world.links[far]
    world.detector.link_closed(far, 0)
    for member in crowd:
        world.merge_claim(member, int(Standing.LEFT))
    world.detector.neighbours_changed(0)
    assert far in world.rings.neighbours
    world.now = UNLINKED_GRACE
    outs = [out for _ in EVERYBODY for out in world.tick()]
    assert PingReq(far) not in [out.message for out in outs if isinstance(out, SendMessage)]


def test_silent_link_of_a_dead_member_is_aborted() -> None:
    world = World(*EVERYBODY)
    world.merge_claim(ANN, 1, 0, BOB, CAT, DAN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD
    assert AbortLink(world.links[ANN]) in world.outs
    world.merge_claim(BOB, 1, 0, CAT)
    world.merge_claim(BOB, int(Standing.LEFT))
    world.merge_claim(CAT, int(Standing.DEAD))
    assert [out for out in world.outs if isinstance(out, AbortLink)] == [AbortLink(world.links[ANN])], (
        "it may have more to say"
    )


# -- local health -----------------------------------------------------------------------------------------------------


def test_stalled_node_discards_its_probes() -> None:
    world = World(ANN, BOB)
    world.tick()
    world.now = 4 * SECOND  # no input was handled until now
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


def test_no_suspicion_by_a_node_stalled_before_its_first_tick() -> None:
    world = World(ANN)
    world.detector.begin(PROBE_INTERVAL)
    world.now = 4 * SECOND
    world.unlink(ANN)
    assert world.ann is Standing.ALIVE


def test_stalled_node_restarts_its_suspicion_timeouts() -> None:
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
    world.activity(BOB)
    world.tick()
    assert world.ann is Standing.SUSPECT, "a second on it is gone still"
    world.until(9 * SECOND + MIN_TIMEOUT)
    assert world.ann is Standing.DEAD, "and the end of a link has the shortest time"


def test_link_end_during_a_stall_and_reconnection() -> None:
    world = World(ANN, BOB)
    world.detector.begin(PROBE_INTERVAL)
    world.now = 8 * SECOND
    world.unlink(ANN)
    world.tick()
    world.links[ANN] = LinkId(9)
    world.detector.link_established(ANN)
    for second in range(8, 20):
        world.now = second * SECOND
        world.activity(ANN)
        world.activity(BOB)
        world.tick()
    assert world.ann is Standing.ALIVE


def test_excuses_of_a_stalled_node_begin_again_after_activity() -> None:
    world = World(ANN)
    world.detector.begin(PROBE_INTERVAL)
    excused = []
    for second in range(10, 10 + 2 * (EXCUSES + 1)):  # no tick comes
        excused.append(world.detector._excuse(ANN, second * SECOND))
        if len(excused) == EXCUSES + 1:
            world.now = second * SECOND + 1
            world.activity(ANN)
    assert excused == 2 * [*EXCUSES * [True], False]


@pytest.mark.parametrize("linked", [True, False])
def test_dead_despite_chronic_lateness(linked: bool) -> None:
    world = World(ANN)
    world.detector.begin(PROBE_INTERVAL)
    if not linked:
        world.unlink(ANN)
        world.merge_claim(ANN, 0, 1)
    for _ in range(60):
        world.now += PROBE_INTERVAL + PROBE_INTERVAL * 6 // 10  # each tick is late
        for key in world.timers.due(world.now):
            due = world.detector.probe_timed_out if key[0] == TimerKind.PROBE else world.detector.suspicion_timed_out
            world.follow(due(MemberId(bytes(key[1])), world.now))
        world.tick()
    assert world.ann is Standing.DEAD


def test_no_suspicion_of_active_members_in_chronic_lateness() -> None:
    world = World(ANN, BOB)
    world.detector.begin(PROBE_INTERVAL)
    for _ in range(60):
        world.now += PROBE_INTERVAL + PROBE_INTERVAL * 6 // 10
        for key in world.timers.due(world.now):
            due = world.detector.probe_timed_out if key[0] == TimerKind.PROBE else world.detector.suspicion_timed_out
            world.follow(due(MemberId(bytes(key[1])), world.now))
        world.tick()
        world.now += MILLISECOND  # bytes that arrived meanwhile are read after the timers
        world.activity(ANN)
        world.activity(BOB)
    assert [world.members.standing(member) for member in (ANN, BOB)] == [Standing.ALIVE, Standing.ALIVE]


# -- small clusters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(ANN,), (ANN, BOB), (ANN, BOB, CAT)])
def test_pause_in_a_small_cluster(others: tuple[MemberId, ...]) -> None:
    """All observers see the same pause, so their agreement is no evidence."""
    world = World(*others)
    world.tick()
    world.run(2 * PROBE_TIMEOUT)
    assert world.ann is Standing.SUSPECT
    world.merge_claim(ANN, 1, 0, *others[1:])
    world.run(5 * SECOND)
    assert world.ann is Standing.SUSPECT
    world.run(2 * PROBE_TIMEOUT + SMALL_CLUSTER_TIMEOUT)
    assert world.ann is Standing.DEAD


@pytest.mark.parametrize("last_activity_at", [0, 1, 500 * MILLISECOND, 999 * MILLISECOND])
@pytest.mark.parametrize("others", [(ANN,), (ANN, BOB, CAT)])
def test_hang_in_a_small_cluster_within_eight_seconds(others: tuple[MemberId, ...], last_activity_at: int) -> None:
    world = World(*others)
    world.now = last_activity_at
    for member in others:
        world.activity(member)  # the last sign of life
    world.now = 999 * MILLISECOND
    world.tick()
    world.run(8 * SECOND + last_activity_at)
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


def _silent_with_indirect_acks(world: World, until: int) -> list[ClusterAction]:
    """Run with no bytes from ANN but an indirect ack for each probe of it; the other links are active."""
    actions: list[ClusterAction] = []
    while world.now < until:
        for member in world.links:
            if member is not ANN:
                world.activity(member)
        world.tick()
        world.until(world.now + PROBE_TIMEOUT + MILLISECOND)
        actions += world.detector.indirect_ack_received(ANN, world.now)
        world.until(world.now + PROBE_TIMEOUT - MILLISECOND)
    return actions


@pytest.mark.parametrize("others", [(ANN, BOB), EVERYBODY])
def test_half_open_link_is_abandoned_after_three_seconds(others: tuple[MemberId, ...]) -> None:
    world = World(*others)
    world.activity(ANN)
    assert _silent_with_indirect_acks(world, SILENT_LINK_TIMEOUT) == []
    assert _silent_with_indirect_acks(world, 30 * SECOND)[:1] == [AbandonLink(world.links[ANN])]
    assert world.ann is Standing.ALIVE


def test_slow_link_with_new_activity_is_kept() -> None:
    world = World(ANN, BOB)
    world.activity(ANN)
    assert _silent_with_indirect_acks(world, 2 * SECOND) == []
    for _ in range(8):
        world.activity(ANN)
        assert _silent_with_indirect_acks(world, world.now + 2 * SECOND) == []


def test_abandoned_link_is_no_suspicion() -> None:
    world = World(ANN, BOB)
    del world.links[ANN]
    world.detector.link_closed(ANN, 0)
    assert world.ann is Standing.ALIVE


def test_timeouts_scale_with_the_local_health_multiplier() -> None:
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
    world.merge_claim(BOB)
    world.links[BOB] = LinkId(7)
    for _ in range(MAX_HEALTH_MULTIPLIER):
        world.tick()
        world.outs += world.detector.ack_received(BOB, world.now)
        world.now += PROBE_INTERVAL
    assert world.detector.health_multiplier == 1


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_displaced_member_is_suspected_then_retired() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    assert world.ann is Standing.SUSPECT
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.RETIRED
    assert world.detector.displaced(ANN, 2) == Findings()
    assert world.detector.displaced(BOB, 2) == Findings(), "unknown"
    assert world.detector.displaced(ME, 2) == Findings()


def test_displaced_dead_member_retires_at_once() -> None:
    world = World(ANN)
    world.merge_claim(ANN, int(Standing.DEAD))
    assert [rose.standing for rose in world.detector.displaced(ANN, 2).declared] == [Standing.RETIRED]


def test_displaced_member_that_others_mark_dead_retires() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    world.merge_claim(ANN, int(Standing.DEAD))
    assert world.ann is Standing.RETIRED


def test_displaced_member_that_refutes_can_become_dead() -> None:
    world = World(ANN)
    world.follow(world.detector.displaced(ANN, 0))
    world.merge_claim(ANN, 0, 1)
    world.unlink(ANN)
    world.until(MIN_TIMEOUT)
    assert world.ann is Standing.DEAD


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.LEFT, Standing.RETIRED])
def test_no_suspicion_of_a_dead_left_or_retired_member(standing: Standing) -> None:
    world = World(ANN)
    world.merge_claim(ANN, int(standing))
    world.unlink(ANN)
    world.until(100 * SECOND)
    assert world.ann is standing
    assert world.tick() == []


def test_no_suspicion_after_stop() -> None:
    world = World(ANN, BOB)
    world.tick()
    world.unlink(ANN)
    world.detector.stop()
    assert len(world.timers) == 0
    assert world.detector.displaced(BOB, 2) == Findings()
    assert world.tick() == []
