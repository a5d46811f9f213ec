"""A cluster of real cores in a process whose system calls raise: test_sealed.py runs this in its own interpreter.

`python -m tests.purity.sealed_cluster` imports all of `mpreg_proto`, the simulator and what that needs, which includes
other parts of `mpreg_transports`, anyio and asyncio. Then it makes every callable of socket, ssl, asyncio, threading
and time raise, and os.urandom and random's module-level functions as well. While they are sealed, it runs the scenarios
below on three real `Node`s of a `Simulation`: neither the core nor the simulator may use the system then. It prints one
JSON object: the names of the sealed callables, the scenarios, and the hash of each simulation's trace, which covers all
bytes on the links and must not depend on the interpreter. An audit hook catches what escapes the seal.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import random
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import mpreg_proto
from mpreg_proto.errors import Fault
from mpreg_proto.limits import SECOND
from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import Ref
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.simulation.calls import SimCall
from mpreg_transports.testing.simulation.functions import Fn
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.network import Profile
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher
from tests.helpers.node_harness import call

for module in pkgutil.walk_packages(mpreg_proto.__path__, "mpreg_proto."):
    importlib.import_module(module.name)


class Sealed(BaseException):
    """A call that the core must not make. No `except Exception` can hide it."""


@contextmanager
def seal() -> Iterator[list[str]]:
    """Make the callables raise; yields their names. At the end all is restored: an interpreter needs some to end."""
    asyncios = [module for name, module in sorted(sys.modules.items()) if name.startswith("asyncio.")]
    doomed: list[tuple[ModuleType, str]] = [(os, "urandom")]
    for module in (socket, ssl, asyncio, *asyncios, threading, time):
        doomed += [
            (module, name) for name in sorted(vars(module)) if callable(getattr(module, name)) and name[:2] != "__"
        ]
    for name in sorted(vars(random)):
        value = getattr(random, name)
        if name == "SystemRandom" or (isinstance(getattr(value, "__self__", None), random.Random) and name != "_inst"):
            doomed.append((random, name))
    before = [getattr(module, name) for module, name in doomed]
    for module, name in doomed:
        setattr(module, name, _refusal(f"{module.__name__}.{name}"))
    try:
        yield [f"{module.__name__}.{name}" for module, name in doomed]
    finally:
        for (module, name), value in zip(doomed, before, strict=True):
            setattr(module, name, value)


def _refusal(label: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise Sealed(label)

    return refuse


class Watch:
    """Records audit events that mean I/O, from any depth of the stack, while it is on."""

    _OUTSIDE = ("socket.", "open", "os.", "subprocess.", "import", "ctypes.", "time.sleep", "_thread.start")

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and event.startswith(self._OUTSIDE):
            self.seen.append(f"{event}{args}")


class Scenario:
    """One simulated cluster: front (a balancer), alpha (red) and beta (blue), joined over links that cut all writes."""

    def __init__(self, seed: int) -> None:
        self.log: list[str] = []
        """The nodes whose functions ran to their end, in that order."""
        self.replies = Replies()
        offers = {name: self._functions(name) for name in ("alpha", "beta")}
        nodes = {
            "front": Spec(),
            "alpha": Spec(functions=offers["alpha"], resources={"red"}),
            "beta": Spec(functions=offers["beta"], resources={"blue"}),
        }
        self.sim = Simulation(seed=seed, nodes=nodes, watchers=[self.replies])
        self.sim.set_links(Profile(rechunk=1.0))
        self.until(self._agreed)

    def _functions(self, node: str) -> dict[str, Any]:
        def add(x: int, y: int) -> int:
            self.log.append(node)
            return x + y

        async def hold() -> str:
            await sleep(1)
            self.log.append(node)
            return node

        return {
            "where": Fn(lambda: node, idempotent=True),
            "add": Fn(add, idempotent=True),
            "slow": Fn(hold, idempotent=True),
            "once": Fn(hold),
        }

    def _agreed(self) -> bool:
        """Return whether all nodes have a link to each other and know all functions of each other."""
        hosts = self.sim.nodes.values()
        views = [host.node.view(now=host.local) for host in hosts]
        offered = sum(len(host.offers) for host in hosts)
        return all(
            sum(row.me or (row.linked and row.standing == "alive") for row in view.members) == len(views)
            and len(view.functions) == offered
            for view in views
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until a condition is true, for a minute at most."""
        assert self.sim.run(until=condition, limit=60), f"seed {self.sim.seed}: not within 60 s"

    def ask(self, *calls: Call, **fields: Any) -> SimCall:
        """Send a request to front."""
        return self.sim.submit("front", Request(0, calls, **fields))

    def answer(self, *calls: Call, **fields: Any) -> SimCall:
        """Send a request to front, and let time pass until it has ended."""
        asked = self.ask(*calls, **fields)
        self.until(asked.done)
        return asked

    def running(self, function: str, *nodes: str) -> int:
        """Return the number of bodies of a function that have begun at these nodes and not ended."""
        bodies = [body for node in nodes for body in self.sim.nodes[node].running.values()]
        return sum(body.run.function == function for body in bodies)


class Replies(Watcher):
    """The number of replies to each request, by its label."""

    def __init__(self) -> None:
        self.to: dict[int, int] = {}

    def replied(self, call: SimCall, reply: object) -> None:
        self.to[call.label] = self.to.get(call.label, 0) + 1


def fault(asked: SimCall) -> Fault:
    """Return the fault that a request ended with."""
    assert asked.error is not None, asked.result
    return asked.error.fault


def graph(scenario: Scenario) -> None:
    """A graph across nodes by resources: a diamond, references inside lists and dicts, a part of a result."""
    answer = scenario.answer(
        call("a", "add", 1, 2, resources=("red",)),
        call("b", "add", Ref("a"), 10, resources=("blue",)),
        call("c", "add", Ref("a"), 20, resources=("red",)),
        call("both", "echo", {"sums": [Ref("b"), Ref("c")], "where": Ref("w")}),
        call("w", "where", resources=("blue",)),
        call("part", "echo", Ref("both", ("sums", 1))),
        want=("both", "part"),
    )
    assert answer.values == {"both": {"sums": [13, 23], "where": "beta"}, "part": 23}, answer.result
    assert scenario.log in (["alpha", "beta", "alpha"], ["alpha", "alpha", "beta"]), scenario.log


def json_client(scenario: Scenario) -> None:
    """Classic JSON to any node, and its errors, which leave the connection open."""
    client = scenario.sim.json_client("alpha")
    client.send("nonsense")
    client.send({"role": "rpc", "cmds": [{"name": "x", "fun": "nowhere"}], "u": "1"})
    cmds = [{"name": "x", "fun": "add", "args": [1, 2], "locs": ["blue"]}, {"name": "y", "fun": "echo", "args": ["x"]}]
    client.send({"role": "rpc", "cmds": cmds, "u": "2"})
    scenario.until(lambda: len(client.answers) == 3)
    assert [answer["error"]["code"] for answer in client.answers[:2]] == [1000, 1001], client.answers
    assert client.answers[2] == {"r": {"y": 3}, "error": None, "u": "2"}, client.answers
    assert scenario.log == ["beta"], scenario.log


def crash(scenario: Scenario) -> None:
    """A node with running calls is killed: idempotent calls succeed elsewhere, the other fails with 1023 within 1 s."""
    slow = [scenario.ask(call("s", "slow")) for _ in range(8)]
    once = scenario.ask(call("o", "once", resources=("red",)))
    scenario.until(lambda: scenario.running("once", "alpha") == 1 and scenario.running("slow", "alpha", "beta") == 8)
    assert 0 < scenario.running("slow", "alpha") < 8, "equals share"
    killed = scenario.sim.now
    scenario.sim.crash("alpha")
    scenario.until(once.done)
    assert fault(once).code == 1023, fault(once)
    assert fault(once).details["maybe_executed"] is True
    assert scenario.sim.now - killed < SECOND, scenario.sim.now - killed
    scenario.until(lambda: scenario.running("slow", "beta") == 8)
    scenario.until(lambda: all(one.done() for one in slow))
    assert [one.values for one in slow] == [{"s": "beta"}] * 8
    assert scenario.log == ["beta"] * 8, scenario.log


def drain(scenario: Scenario) -> None:
    """A leaving node finishes its running calls and accepts no new ones; the others mark it LEFT."""
    once = scenario.ask(call("o", "once", resources=("red",)))
    alpha, front = scenario.sim.nodes["alpha"], scenario.sim.nodes["front"]
    scenario.until(lambda: scenario.running("once", "alpha") == 1)
    scenario.sim.leave("alpha")
    scenario.sim.run(0.1)
    assert scenario.answer(call("w", "where")).values == {"w": "beta"}
    nowhere = fault(scenario.answer(call("w", "where", resources=("red",))))
    assert nowhere.code in (1001, 1024), nowhere
    assert nowhere.details["maybe_executed"] is False
    assert (alpha.node.left, once.done()) == (False, False)
    scenario.until(once.done)
    assert once.values == {"o": "alpha"} and alpha.node.left, (once.result, alpha.node.left)
    scenario.until(lambda: not alpha.alive)
    members = front.node.view(now=front.local).members
    assert [row.standing for row in members if row.name == "alpha"] == ["left"], members
    assert scenario.log == ["alpha"], scenario.log


def late(scenario: Scenario) -> None:
    """An answer that comes after the deadline: 1020 in time, and the late answer is dropped."""
    scenario.sim.partition(["alpha"], ["front"], oneway=True)
    asked = scenario.answer(call("x", "add", 1, 2, resources=("red",)), timeout=SECOND // 2)
    assert fault(asked).code == 1020, fault(asked)
    assert SECOND // 2 <= scenario.sim.now - asked.sent <= SECOND * 3 // 4, scenario.sim.now - asked.sent
    scenario.sim.heal()
    scenario.sim.run(1)
    assert asked.result is not None and not asked.result.done
    assert scenario.replies.to == {asked.label: 1}
    assert scenario.answer(call("x", "add", 2, 2, resources=("red",))).values == {"x": 4}
    assert scenario.log == ["alpha", "alpha"], scenario.log


SCENARIOS: tuple[Callable[[Scenario], None], ...] = (graph, json_client, crash, drain, late)


def main() -> None:
    """Seal, run every scenario on a few seeds, print the report."""
    watch, digests = Watch(), []
    with seal() as sealed:
        watch.on = True
        for seed in (1, 2, 3):
            for play in SCENARIOS:
                scenario = Scenario(seed)
                play(scenario)
                digests.append(scenario.sim.trace.hash)
        watch.on = False
    assert watch.seen == [], watch.seen
    print(
        json.dumps({"sealed": sealed, "scenarios": [scenario.__name__ for scenario in SCENARIOS], "digests": digests})
    )


if __name__ == "__main__":
    main()
