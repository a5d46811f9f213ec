"""Bad drivers of simulated nodes: what they report late or never, and what the core makes of it."""

from typing import Any

import pytest

from mpreg_proto.effects import Framing
from mpreg_proto.links import Links
from mpreg_proto.timers import TimerKind
from mpreg_transports.testing import DriverFaults, Simulation, Spec, Watcher
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.runs.replay import replay, run_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.simulation.workload import add
from tests.helpers.simulated import violated


def pair(driver: DriverFaults, **more: Any) -> Simulation:
    """Return two joined nodes of which `front` has this driver."""
    nodes = {"back": Spec(functions={"add": add}), "front": Spec(driver=driver)}
    sim = Simulation(seed=3, nodes=nodes, watchers=invariants(), **more)
    sim.run(2)
    return sim


def test_late_end_of_a_link() -> None:
    sim = pair(DriverFaults(closes_late=20))
    sim.crash("back")
    sim.run(0.1)
    (wire, side) = next(iter(sim.nodes["front"].wires.values()))
    assert wire.ends[side].closed, "the transport has ended"
    assert sim.nodes["front"].node.links.sessions, "the node has not learned it"
    sim.restart("back")
    sim.run(25)
    call = sim.call("front", "add", 1, 2)
    sim.run(until=call.done)
    assert call.value == 3


def test_late_hang_up_delivers_data_to_a_link_that_the_core_let_go() -> None:
    sim = pair(DriverFaults(hangs_up_late=20))
    front = sim.nodes["front"]
    (link,) = front.node.links.sessions
    front.node.links.hang_up(link)
    front.carry_out()
    assert link in front.node.links._hung_up and link in front.wires
    call = sim.call("back", "echo", 1)  # and back still sends gossip on the link
    sim.run(0.1)
    assert link in front.wires and call.value == 1
    sim.run(25)
    assert link not in front.wires and link not in front.node.links._hung_up


@pytest.mark.parametrize("driver", [DriverFaults(forgets_dials=1), DriverFaults(fails_late=60)])
def test_dial_that_is_never_answered_fails_by_the_timer_of_the_core(driver: DriverFaults) -> None:
    sim = pair(driver)
    sim.crash("back")
    sim.run(1)
    dialling = sim.nodes["front"].node.cluster._dialer._dialling
    assert "sim://back" in dialling
    assert any(key[0] == TimerKind.DIAL_TIMEOUT for key in sim.nodes["front"].node._timers._at)
    sim.restart("back")
    sim.run(30)
    call = sim.call("front", "add", 1, 2)
    sim.run(until=call.done)
    assert call.value == 3


def test_driver_without_backlog() -> None:
    sim = pair(DriverFaults(reports_backlog=False))
    sim.link("front", "back").set(bandwidth=50_000)
    call = sim.call("front", "add", bytes(200_000))
    sim.run(1)
    assert sim.network.waited, "bytes wait"
    assert all(session.backlog == 0 for session in sim.nodes["front"].node.links.sessions.values())
    assert sim.run(until=call.done)
    assert call.value == 200_000


def test_driver_is_saved_with_a_run(tmp_path: Any) -> None:
    driven = DriverFaults(closes_late=2, forgets_dials=0.5)
    sim = pair(driven)
    sim.crash("back")
    sim.run(5)
    sim.trace.save(tmp_path / "run.jsonl")
    again = replay(tmp_path / "run.jsonl", watchers=())
    assert again.trace.hash == sim.trace.hash
    assert again.specs["front"].driver == driven and again.specs["back"].driver == DriverFaults()


@pytest.mark.parametrize("seed", range(4))
def test_bad_drivers_keep_all_invariants(seed: int) -> None:
    drawn = case("drivers", seed=seed, nodes=3, seconds=8)
    assert any(spec.driver != DriverFaults() for spec in drawn.nodes.values())
    assert run_case(drawn, watchers=invariants).error is None


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"closes_late": -1}, ValueError, "closes_late=-1: expected 0 or more"),
        ({"forgets_dials": 2}, ValueError, "forgets_dials=2: expected 0 to 1"),
        ({"fails_late": "long"}, TypeError, "fails_late='long': expected a number, got str"),
    ],
)
def test_driver_of_wrong_kinds(fields: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DriverFaults(**fields)


# -- JSON clients that vanish -----------------------------------------------------------------------------------------


def left_by_a_json_client(*watchers: Watcher) -> Simulation:
    """Return a simulation in which the machine of a JSON client has failed silently, after its answer."""
    sim = Simulation(seed=3, nodes={"front": Spec(), "back": Spec(functions={"add": add})}, watchers=watchers)
    sim.run(2)
    client = sim.json_client("front")
    client.send({"role": "rpc", "cmds": [{"name": "x", "fun": "add", "args": [1, 2]}], "u": "1"})
    sim.run(3)
    assert client.answers[0]["r"] == {"x": 3}
    sim.vanish("json@front", silent=True)
    return sim


def test_link_of_a_json_client_that_vanished_ends() -> None:
    sim = left_by_a_json_client(*invariants())
    front = sim.nodes["front"]
    assert any(session.framing is Framing.CLASSIC_MESSAGES for session in front.node.links.sessions.values())
    sim.settle()
    assert not any(session.framing is Framing.CLASSIC_MESSAGES for session in front.node.links.sessions.values())


def test_json_link_without_keepalive_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Links.start_keepalive

    def only_native(self: Links, session: Any, now: int) -> None:
        if not session.classic:
            started(self, session, now)

    monkeypatch.setattr(Links, "start_keepalive", only_native)
    sim = left_by_a_json_client(*invariants())
    assert "left with link" in violated(15, sim.settle)
