"""Bounds from above can fail: silent links, waits, errors on arrival, lost calls, routes, observers and digests.

With one method of the core broken on purpose, that invariant reports a violation.
"""

from typing import Any

import msgspec
import pytest

from mpreg_proto import router
from mpreg_proto.cluster.anti_entropy import Buckets
from mpreg_proto.cluster.members import Members
from mpreg_proto.cluster.topology import Rings
from mpreg_proto.limits import SECOND
from mpreg_proto.links import Links
from mpreg_proto.notices import LinkEndCause
from mpreg_proto.requests import faults
from mpreg_proto.requests.coordinator import Coordinator, InFlight
from mpreg_proto.requests.relay import Relay
from mpreg_proto.requests.request_state import History
from mpreg_proto.requests.scheduler import PendingCalls, Scheduler
from mpreg_proto.timers import TimerKind, Timers
from mpreg_proto.wire.messages import GoodbyeReason, Request
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.graph import Graph
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.invariants.links import LinkSilence
from mpreg_transports.testing.invariants.routes import DispatchRoute
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher
from tests.helpers.simulated import cluster, double, violated


async def long(value: int) -> int:
    await sleep(60)
    return value


def pair(watchers: list[Watcher] | None = None) -> Simulation:
    """Return a simulation of a node without functions and of two nodes with the same functions."""
    functions = {"double": double, "long": long}
    nodes = {
        "front": Spec(),
        "left": Spec(functions=functions, resources={"left"}, peers=("right",)),
        "right": Spec(functions=functions),
    }
    return Simulation(seed=3, nodes=nodes, watchers=watchers or invariants())


# -- links ------------------------------------------------------------------------------------------------------------


def test_13_silent_link_that_is_kept_for_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    check = Links._check_keepalive

    def keep(self: Links, session: Any, now: int) -> None:
        if self._busy_on(session.link):
            self._timers.set((TimerKind.PING, session.link), now + SECOND)
        else:
            check(self, session, now)

    monkeypatch.setattr(Links, "_check_keepalive", keep)
    sim = pair()
    sim.run(2)
    sim.call("front", "long", 1, timeout=80, client="a")
    sim.run(1)
    sim.vanish("a", silent=True)
    assert "which was silent for 2" in violated(13, lambda: sim.run(40))


def test_13_link_with_pings_only_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    check = Links._check_keepalive

    def give_up(self: Links, session: Any, now: int) -> None:
        if now - session.last_used > 15 * SECOND:
            self.hang_up(session.link, cause=LinkEndCause.SILENT, reason="no calls")
        else:
            check(self, session, now)

    monkeypatch.setattr(Links, "_check_keepalive", give_up)
    sim = pair([LinkSilence()])
    sim.call("front", "long", 1, timeout=80, wait=5)
    assert "as silent after" in violated(13, lambda: sim.run(60))


def test_14_link_closed_with_calls_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.Machines, "busy_on", lambda *_: False)
    sim = pair()
    sim.run(2)
    sim.call("front", "long", 1, timeout=80, resources={"left"})
    sim.run(1)
    host = sim.nodes["front"]
    link = host.node.cluster.links[sim.nodes["left"].node.me]
    host.node.links.goodbye(link, GoodbyeReason.IDLE, host.local)
    host.node._settle(host.local)
    sim._engine.after(host)
    assert "while ['long'] are out on it" in violated(14, lambda: sim.run(5))


def test_13_link_without_a_hello_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    wake = Links.wake
    monkeypatch.setattr(
        Links, "wake", lambda self, key, now: None if key[0] == TimerKind.HANDSHAKE else wake(self, key, now)
    )
    sim = pair()
    sim.run(2)
    sim.call("front", "double", 1, client="a")
    sim.link("a", "front").set(delay=40)
    assert "no hello" in violated(13, lambda: sim.run(15))


# -- routes -----------------------------------------------------------------------------------------------------------


def relayed_calls(watchers: list[Watcher] | None = None) -> Simulation:
    """Return a simulation in which `front` reaches `left` only through `right`, and has calls for both."""
    sim = pair(watchers)
    sim.partition(["front"], ["left"])
    sim.run(3)
    for number in range(12):
        sim.call("front", "double", number, resources={"left"} if number % 2 else (), wait=5)
    return sim


def test_dispatch_over_a_relay() -> None:
    sim = relayed_calls()
    sim.run(5)
    assert [call.value for call in sim.calls] == [2 * number for number in range(12)]


def test_5_relay_that_runs_a_dispatch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.Machines, "refusal", lambda *_: None)
    handle = router._MESSAGE_HANDLERS[Request]

    def take(self: Any, link: Any, request: Request, now: int) -> None:
        handle(self, link, msgspec.structs.replace(request, to=b""), now)

    monkeypatch.setitem(router._MESSAGE_HANDLERS, Request, take)
    sim = relayed_calls([DispatchRoute()])
    assert "runs 'double'; front chose #" in violated(5, lambda: sim.run(5))


def test_5_dispatch_for_another_member(monkeypatch: pytest.MonkeyPatch) -> None:
    route = Scheduler._route_to

    def astray(self: Scheduler, execution: Any, name: str, member: Any, now: int) -> Any:
        found = route(self, execution, name, member, now)
        return found if found is None or not found[1] else (found[0], b"")

    monkeypatch.setattr(Scheduler, "_route_to", astray)
    sim = relayed_calls()
    assert "front chose #" in violated(5, lambda: sim.run(5))


def test_12_dispatch_that_goes_in_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Relay.request

    def back(self: Relay, link: Any, message: Request, **more: Any) -> Any:
        more["next_hop"] = link
        return request(self, link, message, **more)

    monkeypatch.setattr(Relay, "request", back)
    sim = relayed_calls()
    assert "front -> right -> front" in violated(12, lambda: sim.run(5))


# -- waits and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "number"), [(2.0, 9), (0.5, 14)])
def test_wait_of_another_length(monkeypatch: pytest.MonkeyPatch, factor: float, number: int) -> None:
    wait = PendingCalls.wait_for_offer

    def other(self: PendingCalls, execution: Any, name: str, at: int) -> None:
        wait(self, execution, name, at + round((factor - 1) * execution.request.wait))

    monkeypatch.setattr(PendingCalls, "wait_for_offer", other)
    sim = pair()
    sim.call("front", "nowhere", wait=2)
    assert "request 0 at front" in violated(number, lambda: sim.run(6))


def test_9_grace_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Timers.set
    monkeypatch.setattr(
        Timers, "set", lambda self, key, at: put(self, key, at + 9 * SECOND * (key[0] == TimerKind.DRAIN_GRACE))
    )
    sim = pair()
    sim.run(2)
    sim.call("front", "long", 1, timeout=80, resources={"left"})
    sim.run(1)
    sim.leave("left")
    assert "has not left 10." in violated(9, lambda: sim.run(30))


def test_9_error_that_is_not_sent_on_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "unroutable", lambda *_: [])
    sim = pair()
    sim.run(2)
    graph = Graph()
    graph.call("nowhere", graph.call("double", 1))
    sim.graph("front", graph)
    assert "of a request with error 1001" in violated(9, lambda: sim.run(2))


# -- lost calls -------------------------------------------------------------------------------------------------------


def test_14_idempotent_call_that_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = History.lost

    def never(self: History, *args: Any, **more: Any) -> bool:
        lost(self, *args, **more)
        return False

    monkeypatch.setattr(History, "lost", never)
    sim = cluster()
    sim.call("front", "again", 1, resources={"left"})
    sim.run(1)
    sim.crash("left")
    assert "it is idempotent" in violated(14, lambda: sim.run(3))


def test_10_leaving_node_that_says_nothing_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    end_all = Coordinator.end_all

    def claim_no_start(self: Coordinator, now: int, **more: Any) -> Any:
        return end_all(self, now, started=faults.DRAINING)

    monkeypatch.setattr(Coordinator, "end_all", claim_no_start)
    sim = cluster()
    sim.call("front", "slow", 1, resources={"left"})
    sim.run(1)
    sim.leave("front")
    sim.leave("front")
    assert "['slow'] may have started" in violated(10, lambda: sim.run(1))


def test_15_body_for_a_client_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    close = InFlight.close

    def forget(self: InFlight, *args: Any) -> list[Any]:
        close(self, *args)
        return []

    monkeypatch.setattr(InFlight, "close", forget)
    sim = pair()
    sim.run(2)
    sim.call("front", "long", 1, timeout=80, resources={"left"}, client="a")
    sim.run(1)
    sim.vanish("a")
    assert "goes on with long for a, which is gone" in violated(15, lambda: sim.run(40))


# -- views ------------------------------------------------------------------------------------------------------------


def test_13_wrong_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = cluster()
    monkeypatch.setattr(Rings, "observers_of", lambda self, member: (self.me,))
    assert "computes the observers of" in violated(13, sim.sweep)


def test_4_bucket_hashes_without_catalogues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buckets, "_row", lambda self, member: hash((member.incarnation, member.standing)))
    sim = cluster()
    sim.sweep()
    sim.withdraw("left", "double")
    sim.run(1)
    assert "has the bucket hashes of another view" in violated(4, sim.sweep)


def test_3_accusers_that_replace_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(self: Members, current: Any, claim: Any) -> bool:
        if (claim.incarnation, claim.standing) != current.key or not claim.accusers:
            return False
        current.accusers = tuple(claim.accusers[:1])
        return True

    monkeypatch.setattr(Members, "_add_accusers", replaced)
    nodes = {f"n{number}": Spec() for number in range(6)}
    sim = Simulation(seed=1, nodes=nodes, watchers=invariants())
    sim.run(5)
    sim.crash("n5", silent=True)
    assert "holds the accusers" in violated(3, lambda: sim.run(20))
