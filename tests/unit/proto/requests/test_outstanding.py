"""Outstanding calls: all counts derive from the open attempts."""

import msgspec

from mpreg_proto.ids import LinkId, MemberId, RequestId
from mpreg_proto.limits import MILLISECOND, SECOND, Limits
from mpreg_proto.requests.graph import Plan, plan
from mpreg_proto.requests.outstanding import Attempt, Outstanding, dispatch_count
from mpreg_proto.requests.placement import NOISE
from mpreg_proto.requests.request_state import Execution
from mpreg_proto.wire.messages import Request
from tests.helpers.node_harness import call

ME, A, B = MemberId(b"me"), MemberId(b"a"), MemberId(b"b")


class One(msgspec.Struct, frozen=True):
    """A candidate as the catalogue returns it."""

    member: MemberId
    shown: str = ""
    exact: bool = True
    suspect: bool = False
    idempotent: bool = False
    version: str = ""


def table(**limits: int) -> Outstanding:
    return Outstanding(ME, {A: LinkId(1)}, Limits(**limits))


def attempt(number: int, name: str, member: MemberId, link: int = 1) -> Attempt:
    request = Request(1, (call(name, "f"),))
    made = plan(request, Limits())
    assert isinstance(made, Plan)
    execution = Execution(RequestId(1), request, made, link=LinkId(9), arrived=0, deadline=1)
    return Attempt(execution, name, number, LinkId(link), One(member), 5, "f")


def test_attempt_until_its_answer_on_its_own_link() -> None:
    now = 0
    out = table()
    first, second = attempt(1, "x", A), attempt(1, "y", A)
    out.add(first)
    out.add(second)
    assert (len(out), out.by_number(1), out.by_member(A), out.by_link(LinkId(1))) == (
        2,
        [first, second],
        [first, second],
        [first, second],
    )
    assert out.pop(1, "x", LinkId(2)) is None and out.pop(2, "x", LinkId(1)) is None
    assert out.pop(1, "z", LinkId(1)) is None and len(out) == 2
    assert out.pop(1, "x", LinkId(1)) is first and out.pop(1, "x", LinkId(1)) is None
    assert (len(out), out.by_number(1), out.waiting(A, now)) == (1, [second], 1)
    assert out.pop(1, "y", LinkId(1)) is second and (len(out), out.by_number(1), out.by_member(A)) == (0, [], [])


def test_attempts_take_credit_until_they_end() -> None:
    out = table()
    out.add(attempt(1, "x", A))
    out.add(attempt(1, "y", A))
    assert out.credits._out == {(A, "f"): 2}
    out.pop(1, "x", LinkId(1))
    out.credits.refused(A, "f")
    assert (out.credits._out, out.credits._windows) == ({(A, "f"): 1}, {(A, "f"): 1})
    out.pop(1, "y", LinkId(1))
    out.forget(A)
    assert (out.credits._out, out.credits._windows) == ({}, {})


def test_attempts_by_member_and_by_link() -> None:
    out = table()
    one, other, third = attempt(1, "x", A, 1), attempt(2, "x", B, 2), attempt(3, "x", A, 3)
    for each in (one, other, third):
        out.add(each)
    assert out.by_member(A) == [one, third] and out.by_member(B) == [other] and out.by_member(ME) == []
    assert [out.by_link(LinkId(link)) for link in (1, 2, 3, 4)] == [[one], [other], [third], []]


def test_busy_links() -> None:
    out = table()
    for each in (attempt(1, "x", A, 1), attempt(1, "y", A, 1), attempt(2, "x", B, 2)):
        out.add(each)
    assert out.busy_on(LinkId(1)) and out.busy_on(LinkId(2)) and not out.busy_on(LinkId(3))
    out.pop(1, "x", LinkId(1))
    assert out.busy_on(LinkId(1)) and out.has(1)
    out.pop(1, "y", LinkId(1))
    out.pop(2, "x", LinkId(2))
    assert not out.busy_on(LinkId(1)) and not out.has(1) and not out._by_link


def test_late_result_of_a_forgotten_member() -> None:
    now = 0
    out = table()
    out.add(attempt(1, "x", A))
    out.record_result(A, 4, 100, now)
    out.mark_unreachable(B, now)
    out.pop(1, "x", LinkId(1))
    out.forget(A)
    out.record_result(A, 4, 100, now)  # a late result
    assert (out.waiting(A, now), out._reported_queues, out._mean_runtime, out._by_member) == (0, {}, {}, {})
    now += Limits().unreachable
    out.mark_unreachable(A, now)
    assert out.unreachable == (A,), "what was believed of B is no longer"


def test_unique_increasing_dispatch_numbers() -> None:
    drawn = iter([0, 5, (1 << 23) - 1])
    out = Outstanding(ME, {}, Limits(), last_number=(1 << 40) - 3, draw_number=lambda: next(drawn))
    numbers = [out.next_number() for _ in range(3)]
    assert len(set(numbers)) == 3 and max(numbers) < 1 << 63 and out.last_number == 1 << 40
    drawn = iter([0, 5, 1])
    out = Outstanding(ME, {}, Limits(), draw_number=lambda: next(drawn))
    numbers = [out.next_number() for _ in range(3)]
    assert [dispatch_count(number) for number in numbers] == [1, 2, 3] and numbers[1] > numbers[2]
    for number in numbers:
        out.add(attempt(number, "x", A))
    assert out.latest(0) == numbers and out.latest(1) == numbers[1:] and out.latest(3) == []


def test_full_member_counts_attempts_of_this_node_only() -> None:
    now = 0
    out = table(calls_per_worker=2)
    out.record_result(A, 100, 0, now)
    assert not out.full(A)
    for number in (1, 2):
        out.add(attempt(number, "x", A))
    assert out.full(A) and not out.full(B)
    out.pop(1, "x", LinkId(1))
    assert not out.full(A)


def test_reported_queue_counts_for_a_second() -> None:
    out = table()
    now = 10 * SECOND
    out.add(attempt(1, "x", A))
    out.record_result(A, 4, 0, now)
    assert (out.waiting(A, now), out.waiting(B, now)) == (5, 0)
    now += SECOND - 1
    assert out.waiting(A, now) == 5
    now += 1
    assert out.waiting(A, now) == 1
    out.record_result(A, 4, 0, now)
    out.record_result(A, 0, 0, now)
    assert out.waiting(A, now) == 1


def test_delay_from_calls_and_mean_runtime() -> None:
    now = 0
    out = table()
    assert out.delay(A, now) == 0
    out.add(attempt(1, "x", A))
    assert out.delay(A, now) == 2 * MILLISECOND, "unknown until one has ended"
    out.record_result(A, 0, 80 * MILLISECOND, now)
    assert out.delay(A, now) == 80 * MILLISECOND
    out.record_result(A, 0, 160 * MILLISECOND, now)
    assert out.delay(A, now) == 90 * MILLISECOND
    out.record_result(A, 0, 0, now)
    assert out.delay(A, now) == 90 * MILLISECOND, "nothing ran, nothing is learnt"
    out.add(attempt(2, "x", A))
    assert out.delay(A, now) == 180 * MILLISECOND


def test_forgotten_member_has_no_reported_queue_or_runtime() -> None:
    now = 0
    out = table()
    out.record_result(A, 4, 80 * MILLISECOND, now)
    out.forget(A)
    out.forget(B)
    out.add(attempt(1, "x", A))
    assert (out.waiting(A, now), out.delay(A, now)) == (1, 2 * MILLISECOND)


def test_reachable_member_without_a_recent_failed_dial() -> None:
    now = 0
    out = table()
    assert [out.connected(member) for member in (ME, A, B)] == [True, True, False]
    assert [out.reachable(member, now) for member in (ME, A, B)] == [True, True, True]
    for member in (ME, A, B):
        out.mark_unreachable(member, now)
    assert [out.reachable(member, now) for member in (ME, A, B)] == [True, True, False]
    now += Limits().unreachable
    assert out.reachable(B, now)


def test_member_with_a_silent_link_is_not_reachable() -> None:
    silent: list[tuple[LinkId, int]] = []
    out = Outstanding(ME, {A: LinkId(1), B: LinkId(2)}, Limits(), silent=lambda link, now: (link, now) in silent)
    assert out.reachable(A, 5) and out.reachable(B, 5)
    silent.append((LinkId(1), 5))
    assert not out.reachable(A, 5) and out.reachable(A, 6) and out.reachable(B, 5)


def test_delay_of_a_member_without_a_link() -> None:
    now = 0
    out = table()
    assert out.delay(B, now) > NOISE > out.delay(A, now) == 0
