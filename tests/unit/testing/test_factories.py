"""Functions of a factory: made for each life of a node, so that a crash loses what they remembered."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mpreg_transports.testing import (
    ClusterMachine,
    DeterminismError,
    Fn,
    Simulation,
    Spec,
    Swarm,
    memory_cluster,
    replay,
    saved_case,
)
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.functions import offered_functions

LIVES: list[str] = []


def shelf() -> dict[str, Any]:
    """Return functions that share a memory."""
    LIVES.append("one more")
    kept: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        kept[key] = value

    return {"put": Fn(put, idempotent=True), "get": Fn(kept.get, idempotent=True)}


@pytest.fixture(autouse=True)
def lives() -> list[str]:
    LIVES.clear()
    return LIVES


NODES: dict[str, Spec] = {"front": Spec(), "shelf": Spec(functions=shelf)}


def asked(sim: Simulation, function: str, *args: Any) -> Any:
    call = sim.call("front", function, *args, wait=10)
    assert sim.run(until=call.done, limit=40)
    return call.value


@pytest.mark.parametrize("silent", [False, True])
def test_crash_loses_the_memory(silent: bool) -> None:
    sim = Simulation(seed=1, nodes=NODES, watchers=invariants())
    asked(sim, "put", "k", "v")
    assert asked(sim, "get", "k") == "v" and len(LIVES) == 1
    sim.crash("shelf", silent=silent)
    sim.run(30)
    sim.restart("shelf")
    assert asked(sim, "get", "k") is None and len(LIVES) == 2
    sim.settle()


def test_mapping_keeps_the_memory() -> None:
    sim = Simulation(seed=1, nodes={"front": Spec(), "shelf": Spec(functions=shelf())})
    asked(sim, "put", "k", "v")
    sim.restart("shelf")
    sim.run(30)
    assert asked(sim, "get", "k") == "v" and len(LIVES) == 1


def test_partition_keeps_the_memory() -> None:
    sim = Simulation(seed=1, nodes=NODES)
    asked(sim, "put", "k", "v")
    sim.partition(["shelf"], ["front"])
    sim.run(30)
    sim.heal()
    sim.run(30)
    assert asked(sim, "get", "k") == "v" and len(LIVES) == 1


@pytest.mark.parametrize("factory", [lambda x: {}, lambda *, x: {}, Fn.build], ids=["positional", "keyword", "method"])
def test_factory_that_needs_arguments(factory: Any) -> None:
    text = r"functions: expected a function without arguments.*such as make_functions.* needs some: missing a required"
    with pytest.raises(TypeError, match=text):
        Spec(functions=factory)


@pytest.mark.parametrize("factory", [lambda x=1: {}, dict, shelf], ids=["default", "class", "function"])
def test_factory_without_required_arguments(factory: Any) -> None:
    assert Spec(functions=factory).functions is factory


@pytest.mark.parametrize(("factory", "got"), [(lambda: None, "NoneType"), (lambda: ["price"], "list")])
def test_factory_that_returns_no_mapping(factory: Any, got: str) -> None:
    text = rf"node 'shop': the functions that <lambda> returns: expected a mapping such as .*, got {got}"
    with pytest.raises(TypeError, match=text):
        Simulation(nodes={"shop": Spec(functions=factory)})


def test_withdraw_and_offer_in_one_life() -> None:
    sim = Simulation(seed=1, nodes=NODES)
    asked(sim, "put", "k", "v")
    sim.withdraw("shelf", "get")
    sim.offer("shelf", "get", sim.nodes["shelf"].functions["get"])
    assert asked(sim, "get", "k") == "v"


@pytest.mark.parametrize("kind", ["withdraw", "flap", "crash", "meet", "narrow"])
def test_swarm_calls_no_factory_of_its_own(kind: str) -> None:
    sim = Simulation(seed=4, nodes=NODES, faults=Swarm(seconds=8, kinds=(kind,), level=0.3), watchers=invariants())
    sim.run(9)
    assert len(LIVES) == sim.nodes["shelf"].life


def test_replay_with_the_factory(tmp_path: Path) -> None:
    sim = Simulation(seed=1, nodes=NODES)
    asked(sim, "put", "k", "v")
    sim.restart("shelf")
    asked(sim, "get", "k")
    sim.trace.save(tmp_path / "run.jsonl")
    assert replay(tmp_path / "run.jsonl").trace.hash == sim.trace.hash
    assert saved_case(tmp_path / "run.jsonl").nodes["shelf"].functions is shelf


def test_replay_without_the_factory(tmp_path: Path) -> None:
    def local() -> Mapping[str, Any]:
        return {"one": lambda: 1}

    nodes = {"front": Spec(), "shelf": Spec(functions=local)}
    sim = Simulation(seed=1, nodes=nodes)
    asked(sim, "one")
    sim.trace.save(tmp_path / "run.jsonl")
    with pytest.raises(ValueError, match="the factory of the functions of shelf cannot be imported by name: pass the"):
        replay(tmp_path / "run.jsonl")
    assert replay(tmp_path / "run.jsonl", nodes=nodes).trace.hash == sim.trace.hash


def test_factory_that_is_not_deterministic() -> None:
    with pytest.raises(DeterminismError, match=r"random\.random"):
        Simulation(nodes={"a": Spec(functions=lambda: {"f": Fn(len, duration=random.random())})})


class Wrong:
    """Functions of a pure name that differ between lives."""

    lives = 0

    def __call__(self) -> Mapping[str, Any]:
        Wrong.lives += 1
        return {"one": first if Wrong.lives == 1 else second}


def first(value: int) -> int:
    return value


def second(value: int) -> int:
    return value + 1


def test_function_that_differs_between_lives_is_not_evaluated_again() -> None:
    sim = Simulation(seed=1, nodes={"front": Spec(), "back": Spec(functions=Wrong())}, watchers=invariants())
    assert asked(sim, "one", 1) == 1
    sim.restart("back")
    sim.run(20)
    assert asked(sim, "one", 1) == 2


@pytest.mark.anyio
async def test_kill_loses_the_memory_of_a_real_server() -> None:
    async with memory_cluster(NODES) as cluster, cluster.client("front") as client:
        server = cluster.servers["shelf"]
        await client.call("put", "k", "v")
        assert await client.call("get", "k") == "v" and len(LIVES) == 1
        await cluster.restart("shelf")
        await cluster.agreed()
        assert await client.call("get", "k") is None and len(LIVES) == 2
        assert cluster.servers["shelf"] is server


@pytest.mark.anyio
async def test_functions_of_a_real_server_that_differ_between_lives() -> None:
    offered = [{"one": len, "two": len}, {"two": max}]
    async with memory_cluster({"front": Spec(), "back": Spec(functions=lambda: offered.pop(0))}) as cluster:
        await cluster.restart("back")
        await cluster.agreed()
        assert cluster.servers["back"].functions == ("echo", "echos", "two")
        async with cluster.client("front") as client:
            assert await client.call("two", [3, 5]) == 5


def test_machine_with_a_factory() -> None:
    class Shelf(ClusterMachine):
        nodes = NODES

    machine = Shelf()
    machine.begin(seed=0, absent=0, pace=0.02)
    machine.withdraw(what=("shelf", "get"))
    machine.offer(what=("shelf", "get"))
    machine.restart(node="shelf")
    machine.teardown()
    assert len(LIVES) == 2


def test_offered_functions_replace_the_built_in_ones() -> None:
    def echo(left: int, right: int) -> int:
        return left + right

    offered = offered_functions(lambda: {"echo": Fn(echo, resources={"gpu"})})
    assert set(offered) == {"echo", "echos"}
    assert offered["echo"].call is echo and offered["echo"].resources == ("gpu",)
    assert offered["echos"].idempotent
