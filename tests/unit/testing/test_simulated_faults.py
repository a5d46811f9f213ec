"""Faults and callers of a simulation: links and processes that die, dials that hang, sleep, JSON, own requests."""

from __future__ import annotations

import json

import pytest

from mpreg_proto.errors import ErrorCode
from mpreg_proto.limits import DEFAULT, SECOND, Limits
from mpreg_proto.wire.messages import VERSION, Explanation, View
from mpreg_transports.graph import Graph
from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.runs.failures import action_text
from mpreg_transports.testing.runs.replay import Replay, standard_watchers
from mpreg_transports.testing.simulation.specs import described, restored
from mpreg_transports.testing.simulation.trace import Action
from mpreg_transports.testing.simulation.workload import add, haul


def two(**more: Spec) -> Simulation:
    nodes = {"front": Spec(), "back": Spec(functions={"add": Fn(add, idempotent=True), "haul": Fn(haul)}), **more}
    sim = Simulation(seed=1, nodes=nodes, watchers=standard_watchers())
    sim.run(2)
    return sim


def standing(sim: Simulation, of: str, *, at: str) -> str:
    host = sim.nodes[at]
    return next(row.standing for row in host.node.view(now=host.local).members if row.name == of)


def links(sim: Simulation, one: str, other: str) -> int:
    return sum(wire.ends[1 - side].host.name == other for wire, side in sim.nodes[one].wires.values())


def test_killed_link_carries_nothing_until_its_ends_find_out() -> None:
    sim = two()
    sim.kill_link("front", "back")
    assert links(sim, "front", "back") == 1
    call = sim.call("front", "add", 1, 2)
    assert sim.run(until=call.done, limit=20)
    assert call.value == 3
    sim.settle()
    assert links(sim, "front", "back") == 1 and len(sim.network.dead) == 1


def test_killed_link_of_a_client_costs_its_requests() -> None:
    sim = two()
    first = sim.call("front", "haul", 1, client="c")
    sim.run(1)
    sim.kill_link("c", "front")
    assert sim.run(until=first.done, limit=60)
    assert first.error is not None and first.error.code == ErrorCode.OUTCOME_UNKNOWN
    assert sim.time < 2 + 1 + DEFAULT.gone_after / SECOND + 2


def test_dial_hangs_until_the_core_gives_it_up() -> None:
    sim = two()
    for name in sim.nodes:
        sim.link("front", "back").set(hangs=1.0)
        sim.crash(name)
        sim.restart(name)
    sim.run(DEFAULT.dial / SECOND + 5)
    assert links(sim, "front", "back") == 0 and sim.network.hung >= 2
    sim.link("front", "back").set(hangs=0.0)
    sim.run(20)
    assert links(sim, "front", "back") == 1


def test_dial_of_a_machine_without_power_hangs() -> None:
    sim = two()
    sim.crash("back", silent=True)
    sim.run(25)
    assert sim.network.hung > 0
    sim.restart("back")
    sim.settle()


def test_sleep_of_a_client_ends_its_link() -> None:
    sim = two()
    call = sim.call("front", "haul", 16, client="c")
    sim.run(1)
    sim.stall("c", 40)
    assert sim.run(until=call.done, limit=50)
    assert call.error is not None and sim.time > 42
    sim.settle()


@pytest.mark.parametrize("effects", range(4))
def test_process_dies_in_the_middle_of_its_effects(effects: int) -> None:
    sim = two(third=Spec(functions={"add": Fn(add, idempotent=True)}))
    sim.crash_amid("front", effects=effects)
    calls = [sim.call("front", "add", number) for number in range(20)]
    sim.run(15)
    host = sim.nodes["front"]
    assert not host.alive and host.died_amid
    sim.restart("front")
    assert sim.run(until=lambda: all(call.done() for call in calls), limit=60)
    sim.settle()


def test_json_text_by_post_has_one_answer_and_its_link_ends() -> None:
    sim = two()
    texts = [{"role": "rpc", "u": u, "cmds": [{"name": "a", "fun": "add", "args": [1, 2]}]} for u in ("1", "2")]
    for text in texts:
        client = sim.post("front", json.dumps(text))
    sim.run(5)
    assert [(one["u"], one["r"]) for one in client.answers] == [("1", {"a": 3}), ("2", {"a": 3})]
    assert not client.host.wires
    sim.settle()


def test_post_of_a_client_without_patience_is_cancelled() -> None:
    sim = two()
    text = json.dumps({"role": "rpc", "u": "1", "cmds": [{"name": "a", "fun": "haul"}]})
    client = sim.post("front", text, patience=2)
    sim.run(1)
    assert sim.nodes["back"].running
    sim.run(4)
    assert client.answers == [] and not sim.nodes["back"].running
    sim.settle()


def test_queries_are_answered() -> None:
    sim = two()
    graph = Graph()
    graph.call("add", 1)
    view, plan = sim.query("front"), sim.query("front", graph.request())
    sim.run(2)
    assert isinstance(view.reply, View) and b"back" in view.reply.view
    assert isinstance(plan.reply, Explanation) and [row.name for row in plan.reply.rows] == ["add"]


def test_own_request_of_a_node_and_its_cancellation() -> None:
    sim = two()
    graph, longer = Graph(), Graph()
    graph.call("add", 1, 2)
    longer.call("haul", 3)
    first, second = sim.submit_own("front", graph.request()), sim.submit_own("front", longer.request())
    assert first is not None and second is not None
    sim.run(1)
    sim.cancel_own(second)
    sim.run(1)
    assert first.result is not None and first.result.fault is None
    assert second.result is not None and second.result.fault is not None
    assert second.result.fault.code == ErrorCode.CANCELLED
    sim.crash("front")
    assert sim.submit_own("front", graph.request()) is None


def test_resources_and_addresses_of_a_running_node() -> None:
    sim = two()
    sim.set_resources("back", ["gpu"])
    sim.run(1)
    call = sim.call("front", "add", 1, resources=["gpu"])
    assert sim.run(until=call.done, limit=5) and call.value == 1
    sim.advertise("back", ["sim://back/other"])
    sim.crash("front")
    sim.restart("front")
    sim.run(5)
    host = sim.nodes["front"]
    assert [row.addresses for row in host.node.cluster.members.all() if row.name == "back"] == [("sim://back/other",)]
    sim.settle()


@pytest.mark.parametrize(
    "other", [Spec(cluster_id="another"), Spec(versions=(VERSION + 1, VERSION + 2))], ids=["cluster", "version"]
)
def test_node_that_does_not_belong_here_is_refused(other: Spec) -> None:
    sim = two(stranger=other)
    sim.run(20)
    assert links(sim, "stranger", "front") == 0
    assert [row.name for row in sim.nodes["stranger"].node.view(now=0).members] == ["stranger"]
    sim.settle()


def test_node_that_knows_a_newer_version_too_belongs_here() -> None:
    sim = two(newer=Spec(versions=(VERSION, VERSION + 1)))
    assert standing(sim, "newer", at="front") == "alive"
    sim.settle()


def test_specs_keep_cluster_and_versions() -> None:
    specs = {"a": Spec(cluster_id="another", versions=(VERSION, VERSION + 1), limits=Limits(calls=3)), "b": Spec()}
    assert restored(described(specs)) == specs


def test_saved_run_with_all_these_actions_is_replayed(tmp_path: object) -> None:
    sim = two()
    graph = Graph()
    graph.call("haul", 1)
    text = json.dumps({"role": "rpc", "u": "1", "cmds": [{"name": "a", "fun": "haul"}]})
    sim.post("front", text, patience=1.5)
    sim.query("front")
    own = sim.submit_own("front", graph.request())
    assert own is not None
    sim.run(1)
    sim.cancel_own(own)
    sim.set_resources("back", ["gpu"])
    sim.advertise("back", ["sim://back", "sim://back/b"])
    sim.kill_link("front", "back", which=1)
    sim.stall("post@front", 2)
    sim.crash_amid("back", effects=1)
    sim.run(10)
    sim.restart("back")
    sim.settle()
    file = f"{tmp_path}/run.jsonl"
    sim.trace.save(file)
    again = Replay(file).finish()
    assert again.trace.hash == sim.trace.hash
    texts = [action_text(action) for action in sim.trace.script]
    assert "crash back after 1 effects of an input" in texts and "front itself submits haul (2000000)" in texts


def test_every_new_action_has_a_text() -> None:
    text = action_text(Action(0, "advertise", {"name": "a", "addresses": []}))
    assert text == "a advertises no address"
