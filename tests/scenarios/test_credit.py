"""Flow control of clients (docs/explanation/guarantees.md): credit, slow readers, and the shares of a full node."""

from __future__ import annotations

import json

from mpreg_proto.limits import Limits
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.calls import SimCall


def work(number: int) -> int:
    return number


def large(size: int) -> bytes:
    return bytes(size)


def text(size: int) -> str:
    return "x" * size


FUNCTIONS = {
    "work": Fn(work, duration=0.1, concurrency=1_000),
    "large": Fn(large, idempotent=True),
    "text": Fn(text, idempotent=True),
}


def only(limits: Limits | None = None, *, objects: bool = True, checked: bool = True) -> Simulation:
    """Return a simulation of one node with all functions. `checked`: with all invariants."""
    spec = Spec(functions=FUNCTIONS, limits=limits or Limits())
    sim = Simulation(seed=1, nodes={"a": spec}, objects=objects, watchers=invariants() if checked else ())
    sim.run(2)
    return sim


def ends(calls: list[SimCall]) -> dict[int | None, int]:
    """Return how many calls ended with each error code; None is a result."""
    found: dict[int | None, int] = {}
    for call in calls:
        assert call.result is not None, call
        code = None if call.result.fault is None else int(call.result.fault.code)
        found[code] = found.get(code, 0) + 1
    return found


def test_burst_of_one_client_far_beyond_its_credit() -> None:
    sim = only(checked=False)
    calls = [sim.call("a", "work", number, client="c@a", timeout=60) for number in range(5_000)]
    most = 0
    for _ in range(40):
        sim.run(0.05)
        most = max(most, len(sim.nodes["a"].node.coordinator.requests))
    assert ends(calls) == {None: 5_000} and [call.value for call in calls] == list(range(5_000))
    assert most == 1_024, "what a node holds for one client is bounded"
    assert max(call.ended or 0 for call in calls) < 3e9, "five rounds of 0.1 s"


def test_client_that_comes_beside_many_full_ones() -> None:
    """Each of seven clients has its whole credit in flight, and room is left for one more."""
    sim = only(Limits(requests=512, client_requests=64))
    greedy = [sim.call("a", "work", number, client=f"{number % 7}@a", timeout=120) for number in range(700)]
    sim.run(0.05)
    modest = [sim.call("a", "work", number, client="modest@a") for number in range(20)]
    sim.run(5)
    assert ends(greedy) == {None: 700} and ends(modest) == {None: 20}


def test_full_node_refuses_a_client_with_many_before_one_with_few() -> None:
    sim = only(Limits(requests=60, client_requests=20))
    greedy = [sim.call("a", "work", number, client=f"{number % 4}@a", timeout=30) for number in range(80)]
    sim.run(0.05)
    modest = [sim.call("a", "work", number, client="modest@a") for number in range(3)]
    sim.run(5)
    assert ends(modest) == {None: 3}
    assert ends(greedy)[1022] > 10, "each of the four has a fifth of the node's requests at most"


def test_requests_that_wait_go_to_the_same_node_after_a_lost_link() -> None:
    sim = only(Limits(client_requests=5))
    calls = [sim.call("a", "work", number, client="c@a", timeout=20) for number in range(20)]
    sim.run(0.05)
    sim.restart("a")
    sim.run(20)
    assert ends(calls) == {1023: 5, None: 15}, "only what was sent may have started"


def test_deadline_of_requests_that_wait_for_credit() -> None:
    sim = only(Limits(client_requests=1))
    calls = [sim.call("a", "work", number, client="c@a", timeout=1.04) for number in range(40)]
    sim.run(5)
    found = ends(calls)
    assert found.keys() == {None, 1020} and 8 <= found[None] <= 11
    waited = [call for call in calls if call.result and call.result.fault and "credit" in call.result.fault.message]
    assert len(waited) >= 28 and all(call.result.fault.details["maybe_executed"] is False for call in waited)  # type: ignore[union-attr]
    assert all((call.ended or 0) - call.sent <= 1.29e9 for call in calls)


def test_native_client_that_reads_slowly_is_read_and_kept() -> None:
    """Its answers wait for much longer than `Limits.stalled`. Meanwhile cancels and queries come through."""
    sim = only(objects=False)
    sim.link("a", "c@a").set(bandwidth=1_000_000)
    calls = [sim.call("a", "large", 1_000_000, client="c@a", timeout=300) for _ in range(60)]
    sim.run(20)
    session = next(one for one in sim.nodes["a"].node.links.sessions.values() if one.member is None)
    assert session.backlog > Limits().backlog and session.paused == {}
    sim.cancel(calls[-1])
    sim.run(60)
    assert ends(calls[:-1]) == {None: 59}


def test_json_client_that_reads_slowly() -> None:
    """It is not read from 32 MiB of answers on, and a result beyond 48 MiB is 1014; its link stays open."""
    sim = only(Limits(backlog=2_000_000, json_answers=3_000_000), objects=False)
    sim.link("a", "j@a").set(bandwidth=500_000)
    client = sim.json_client("a", client="j@a")
    for number in range(12):
        cmds = [{"name": "x", "fun": "text", "args": [500_000]}]
        client.send(json.dumps({"role": "rpc", "u": f"{number}", "cmds": cmds}))
    sim.run(60)
    codes = [None if answer["error"] is None else answer["error"]["code"] for answer in client.answers]
    assert len(codes) == 12 and codes.count(None) >= 5 and codes.count(1014) >= 1
    refused = next(answer for answer in client.answers if answer["error"] is not None)["error"]["details"]
    assert (refused["limit"], refused["value"]) == ("json_answers", 3_000_000) and refused["came"] > 3_000_000
    client.send('{"role":"rpc","u":"last","cmds":[{"name":"x","fun":"work","args":[7]}]}')
    sim.run(3)
    assert client.answers[-1] == {"r": {"x": 7}, "error": None, "u": "last"}
