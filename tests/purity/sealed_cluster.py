"""The whole core in a process that can only compute: test_sealed.py runs this in its own interpreter.

`python -m tests.purity.sealed_cluster` imports all of `mpreg_proto`. Then it makes every callable of socket, ssl,
asyncio, threading and time raise, and os.urandom and random's module-level functions as well. Then it runs the stories
below on three real `Node`s. It prints one JSON object: the number of sealed callables, the stories, and a digest of all
bytes on the links, which must not depend on the interpreter. An audit hook catches what escapes the seal.
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
from tests.helpers.cluster import Offer, Ref, VirtualCluster, call

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


def cluster(seed: int) -> tuple[VirtualCluster, list[str]]:
    """Return front (a balancer), alpha (red) and beta (blue); and the log of functions that ran to their end."""
    net, log = VirtualCluster(seed=seed), []

    def noted(node: str, body: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            log.append(node)
            return body(*args)

        return run

    net.start("front")
    for name, color in (("alpha", "red"), ("beta", "blue")):
        net.start(
            name,
            {
                "where": Offer(lambda name=name: name, idempotent=True),
                "add": Offer(noted(name, lambda x, y: x + y), idempotent=True),
                "slow": Offer(noted(name, lambda name=name: name), takes=None, idempotent=True),
                "once": Offer(noted(name, lambda name=name: name), takes=None),
            },
            resources=(color,),
            seeds=("front",),
        )
    net.settle()
    return net, log


def graph(net: VirtualCluster, log: list[str]) -> None:
    """A graph across nodes by resources: a diamond, references inside lists and dicts, a part of a result."""
    answer = net.caller("front").run(
        [
            call("a", "add", 1, 2, resources=("red",)),
            call("b", "add", Ref("a"), 10, resources=("blue",)),
            call("c", "add", Ref("a"), 20, resources=("red",)),
            call("both", "echo", {"sums": [Ref("b"), Ref("c")], "where": Ref("w")}),
            call("w", "where", resources=("blue",)),
            call("part", "echo", Ref("both", ("sums", 1))),
        ],
        want=("both", "part"),
    )
    assert answer.fault is None, answer.fault
    assert answer.values == {"both": {"sums": [13, 23], "where": "beta"}, "part": 23}, answer.values
    assert log == ["alpha", "beta", "alpha"] or log == ["alpha", "alpha", "beta"], log


def json_client(net: VirtualCluster, log: list[str]) -> None:
    """Classic JSON to any node, and its errors, which leave the connection open."""
    client = net.classic("alpha")
    client.send("nonsense")
    client.send({"role": "rpc", "cmds": [{"name": "x", "fun": "nowhere"}], "u": "1"})
    cmds = [{"name": "x", "fun": "add", "args": [1, 2], "locs": ["blue"]}, {"name": "y", "fun": "echo", "args": ["x"]}]
    client.send({"role": "rpc", "cmds": cmds, "u": "2"})
    net.run(lambda: len(client.answers) == 3)
    assert [answer["error"]["code"] for answer in client.answers[:2]] == [1000, 1001], client.answers
    assert client.answers[2] == {"r": {"y": 3}, "error": None, "u": "2"}, client.answers
    assert log == ["beta"], log


def crash(net: VirtualCluster, log: list[str]) -> None:
    """A node with running calls is killed: idempotent calls succeed elsewhere, the other fails with 1023 within 1 s."""
    caller = net.caller("front")
    slow = [caller.ask([call("s", "slow")]) for _ in range(8)]
    once = caller.ask([call("o", "once", resources=("red",))])
    alpha, beta = net.processes["alpha"], net.processes["beta"]
    net.run(lambda: alpha.running("once") and alpha.running("slow") + beta.running("slow") == 8)
    assert 0 < alpha.running("slow") < 8, "equals share"
    killed = net.now
    net.kill("alpha")
    net.run(lambda: once.over)
    assert once.fault is not None and once.fault.code == 1023, once.fault
    assert once.fault.details["maybe_executed"] is True
    assert net.now - killed < 1_000_000_000, net.now - killed
    net.run(lambda: beta.running("slow") == 8)
    for _ in slow:
        beta.finish("slow")
    net.run(lambda: all(answer.over for answer in slow))
    assert [answer.values for answer in slow] == [{"s": "beta"}] * 8
    assert log == ["beta"] * 8, log


def drain(net: VirtualCluster, log: list[str]) -> None:
    """A leaving node finishes its running calls and accepts no new ones; the others mark it LEFT."""
    caller = net.caller("front")
    once = caller.ask([call("o", "once", resources=("red",))])
    alpha = net.processes["alpha"]
    net.run(lambda: alpha.running("once"))
    alpha.leave()
    net.advance(0.1)
    assert caller.run([call("w", "where")]).values == {"w": "beta"}
    nowhere = caller.run([call("w", "where", resources=("red",))])
    assert nowhere.fault is not None and nowhere.fault.code in (1001, 1024), nowhere.fault
    assert nowhere.fault.details["maybe_executed"] is False
    assert (alpha.node.left, once.over) == (False, False)
    alpha.finish("once")
    net.run(lambda: once.over)
    assert once.values == {"o": "alpha"} and alpha.node.left, (once.values, once.fault, alpha.node.left)
    net.run(lambda: not alpha.ends)
    view = net.processes["front"].node.view(now=net.now)
    assert [row.standing for row in view.members if row.name == "alpha"] == ["left"], net.describe()
    assert log == ["alpha"], log


def late(net: VirtualCluster, log: list[str]) -> None:
    """An answer that comes after the deadline: 1020 in time, and the late answer is dropped."""
    caller = net.caller("front")
    net.hold("alpha", "front")
    asked = net.now
    answer = caller.run([call("x", "add", 1, 2, resources=("red",))], timeout=0.5)
    assert answer.fault is not None and answer.fault.code == 1020, answer.fault
    assert 0.5e9 <= net.now - asked <= 0.75e9, net.now - asked
    net.release("alpha", "front")
    net.advance(1)
    assert len(answer.results) == 1 and not answer.values
    assert caller.run([call("x", "add", 2, 2, resources=("red",))]).values == {"x": 4}
    assert log == ["alpha", "alpha"], log


STORIES: tuple[Callable[[VirtualCluster, list[str]], None], ...] = (graph, json_client, crash, drain, late)


def main() -> None:
    """Seal, run every story on a few seeds, print the report."""
    watch, digests = Watch(), []
    with seal() as sealed:
        watch.on = True
        for seed in (1, 2, 3):
            for story in STORIES:
                net, log = cluster(seed)
                story(net, log)
                digests.append(net.digest)
        watch.on = False
    assert watch.seen == [], watch.seen
    print(json.dumps({"sealed": sealed, "stories": [story.__name__ for story in STORIES], "digests": digests}))


if __name__ == "__main__":
    main()
