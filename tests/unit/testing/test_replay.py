"""A replay repeats a saved run exactly. A run that cannot be repeated, or that has another end, raises an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing import Chooser, Fn, Simulation, Spec, Violation, Watcher, exponential
from mpreg_transports.testing.faults.swarm import Swarm
from mpreg_transports.testing.runs.replay import Replay, ReplayMismatch, replay, run_case, saved_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.simulation.hosts import NodeHost
from mpreg_transports.testing.simulation.specs import described, import_path, restored
from mpreg_transports.testing.simulation.workload import add, ponder, standard_nodes


async def nap(seconds: float) -> float:
    await sleep(seconds)
    return seconds


NODES = {
    "front": Spec(),
    "back": Spec(functions={"add": Fn(add, duration=exponential(0.01), idempotent=True), "ponder": ponder}),
    "side": Spec(functions={"add": Fn(add, resources=("gpu",))}, resources={"disk"}, peers=("back", "front")),
}


def eventful(sim: Simulation) -> Simulation:
    """Do everything that can be done to a cluster, between its events and among them."""
    call = sim.call("front", "add", 1, 2)
    sim.run(until=call.done)
    sim.schedule(sim.chooser.below("cut", 3), sim.chooser.fraction, "reset")  # draws that a replay does not make
    sim.link("front", "back").set(delay=exponential(0.02), rechunk=0.5, bandwidth=50_000)
    kept = sim.call("front", "ponder", 3)
    sim.schedule(0.01, sim.crash, "side")
    sim.restart("side", after=2.5)
    sim.run(0.03)
    sim.cancel(kept)
    sim.skew("back", drift=4e-4)
    sim.stall("back", 0.7)
    sim.clog(k=2, seconds=1.5)
    for number in range(5):
        sim.call("front", "add", number, wait=1.0, client="other")
        sim.run(0.4)
    sim.vanish("other")
    sim.withdraw("back", "ponder")
    sim.partition({"front"}, {"back"}, oneway=True)
    sim.run(1)
    sim.offer("back", "ponder", ponder)
    sim.heal()
    sim.leave("back")
    sim.run(3)
    sim.settle(5)
    return sim


@pytest.mark.parametrize("objects", [False, True])
def test_replay_repeats_every_action(tmp_path: Path, objects: bool) -> None:
    sim = eventful(Simulation(seed=9, nodes=NODES, objects=objects))
    file = tmp_path / "x.jsonl"
    sim.trace.save(file)
    again = replay(file)
    assert again.trace.hash == sim.trace.hash
    assert again.trace.script == sim.trace.script
    assert (again.now, again._engine.steps, again.trace.events) == (sim.now, sim._engine.steps, sim.trace.events)
    assert [call.result for call in again.calls] == [call.result for call in sim.calls]


def test_trace_has_the_faults_of_a_simulation(tmp_path: Path) -> None:
    sim = Simulation(seed=2, nodes=standard_nodes(3), faults=Swarm(seconds=40, level=0.3))
    sim.run(40)
    sim.trace.save(tmp_path / "x.jsonl")
    assert len(sim.trace.script) > 3
    assert replay(tmp_path / "x.jsonl").trace.hash == sim.trace.hash


def test_recorded_draws_are_saved(tmp_path: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.drawn = 0

        def fraction(self, purpose: str) -> float:
            self.drawn += 1
            return self.drawn * 0.618 % 1

    file = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match="record=True"):
        Simulation(nodes=NODES, chooser=Chooser(Counting())).trace.save(file)
    sim = eventful(Simulation(nodes=NODES, chooser=Chooser(Counting(), record=True)))
    sim.trace.save(file)
    assert replay(file).trace.hash == sim.trace.hash


def test_replay_needs_functions_that_cannot_be_imported(tmp_path: Path) -> None:
    def local(value: int) -> int:
        return value + 1

    nodes = {"a": Spec(), "b": Spec(functions={"local": local})}
    sim = Simulation(seed=1, nodes=nodes)
    sim.run(1)
    call = sim.call("a", "local", 4)
    sim.run(until=call.done)
    file = tmp_path / "x.jsonl"
    sim.trace.save(file)
    with pytest.raises(ValueError, match=r"function 'local' of b cannot be imported by name: pass the same nodes"):
        replay(file)
    assert replay(file, nodes=nodes).trace.hash == sim.trace.hash


def test_specs_come_back_unchanged() -> None:
    again = restored(json.loads(json.dumps(described(NODES))))
    assert described(again) == described(NODES)
    assert again["side"].peers == ("back", "front")
    assert again["back"].functions["ponder"].call is ponder


@pytest.mark.parametrize("call", [lambda: 1, NODES.get, len])
def test_import_path_of_callables_without_a_name(call: Callable[..., Any]) -> None:
    assert import_path(call) in (None, "builtins:len")


def test_error_of_a_missing_function_names_it(tmp_path: Path) -> None:
    sim = Simulation(nodes=NODES)
    file = tmp_path / "x.jsonl"
    sim.trace.save(file)
    file.write_text(file.read_text("utf-8").replace("workload:ponder", "workload:pondered"), "utf-8")
    with pytest.raises(ValueError, match=r"function 'ponder' of back is not there any more"):
        replay(file)


def test_replay_mismatch_of_another_hash(tmp_path: Path) -> None:
    sim = Simulation(seed=3, nodes=NODES)
    sim.run(5)
    file = tmp_path / "x.jsonl"
    sim.trace.save(file)
    other = {**NODES, "back": Spec(functions={"another": add})}
    with pytest.raises(
        ReplayMismatch, match=r"the replay ends with hash [0-9a-f]{32} after \d+ events, the saved run with"
    ):
        replay(file, nodes=other)


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '{"seed": 1}\n[]', "\udcff"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match="is not a saved simulation"):
        Replay(file)


def test_replay_by_steps_can_stop(tmp_path: Path) -> None:
    sim = eventful(Simulation(seed=9, nodes=NODES))
    file = tmp_path / "x.jsonl"
    sim.trace.save(file)
    replay = Replay(file)
    stopped = replay.finish(until=60)
    assert stopped.trace.events == 60
    assert not replay.over
    assert stopped.nodes["front"].node.view(now=stopped.nodes["front"].local).members
    while not replay.over:
        replay.step()
    assert replay.finish().trace.hash == sim.trace.hash


class NoTwoCrashes(Watcher):
    """Not an invariant: fails at the second crash."""

    def __init__(self) -> None:
        self.crashes = 0

    def crashed(self, host: NodeHost) -> None:
        self.crashes += 1
        if self.crashes == 2:
            raise Violation(7, f"{host.name} is the second to crash")


def test_replay_repeats_a_violation(tmp_path: Path) -> None:
    churning = case("churn", seed=1, seconds=30)
    ran = run_case(churning, watchers=lambda: [NoTwoCrashes()])
    assert ran.invariant == 7
    assert str(ran.error).startswith("invariant 7: n")
    file = tmp_path / "x.jsonl"
    ran.sim.trace.save(file)
    with pytest.raises(Violation, match="is the second to crash"):
        replay(file, watchers=[NoTwoCrashes()])
    assert run_case(saved_case(file), watchers=lambda: [NoTwoCrashes()]).invariant == 7


def test_replay_without_the_watcher_of_its_violation(tmp_path: Path) -> None:
    sim = Simulation(seed=1, nodes={"a": Spec()}, watchers=[NoTwoCrashes()])
    with pytest.raises(Violation):
        for _ in range(2):
            sim.run(1)
            sim.crash("a")
            sim.restart("a")
    sim.violation = "a has crashed twice"
    sim.trace.save(tmp_path / "run.jsonl")
    with pytest.raises(ReplayMismatch, match=r"a has crashed twice.*has no .*test_replay:NoTwoCrashes; pass replay"):
        replay(tmp_path / "run.jsonl", watchers=[])
