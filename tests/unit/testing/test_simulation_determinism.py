"""The same seed gives the same run: forbidden calls of functions, and hashes."""

import _thread
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.simulation.determinism import EVENTS, NAMES, DeterminismError
from mpreg_transports.testing.simulation.durations import exponential
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation


def double(value: int) -> int:
    return 2 * value


async def nap(seconds: float) -> str:
    await sleep(seconds)
    return "rested"


def pair(*, seed: int = 3, functions: dict[str, Any] | None = None, **more: Any) -> Simulation:
    """Return two joined nodes, with all invariants on: `back` offers the functions, clients call `front`."""
    offered = {"double": double, "nap": nap} if functions is None else functions
    nodes = {"front": Spec(), "back": Spec(functions=offered)}
    sim = Simulation(seed=seed, nodes=nodes, watchers=invariants(), **more)
    sim.run(2)
    return sim


def _calls() -> dict[str, Callable[[], Any]]:
    """Return a call of each listed name."""
    given: dict[str, tuple[Any, ...]] = {
        "sleep": (0,), "randint": (1, 2), "randrange": (2,), "choice": ([1],), "choices": ([1],), "shuffle": ([1],),
        "uniform": (0, 1), "sample": ([1], 1), "getrandbits": (3,), "gauss": (0, 1), "expovariate": (1,),
        "randbelow": (2,), "randbits": (2,), "randbytes": (2,), "clock_gettime": (0,), "clock_gettime_ns": (0,),
        **dict.fromkeys(("betavariate", "gammavariate", "vonmisesvariate", "weibullvariate"), (1, 1)),
        "lognormvariate": (0, 1), "paretovariate": (1,), "urandom": (1,), "_urandom": (1,), "getrandom": (1,),
        "start_new_thread": (lambda: None, ()),
    }  # fmt: skip

    def call(owner: Any, name: str) -> Any:
        wanted = (threading.Thread(target=lambda: None),) if owner is threading.Thread else given.get(name, ())
        return getattr(owner, name)(*wanted)

    return {f"{owner.__name__}.{name}": partial(call, owner, name) for owner, name in NAMES}


@pytest.mark.parametrize("name", _calls())
def test_function_that_calls_a_forbidden_name_is_stopped(name: str) -> None:
    ask = _calls()[name]
    ask()  # outside of a simulation it works
    sim = pair(functions={"ask": ask})
    sim.call("front", "ask")
    with pytest.raises(DeterminismError, match=name) as caught:
        sim.run(1)
    assert "test_simulation_determinism.py:" in str(caught.value)
    ask()


def _events() -> dict[str, Callable[[], Any]]:
    events: dict[str, Callable[[], Any]] = {
        "socket.__new__": socket.socket,
        "socket.connect": lambda: _socket.connect(("127.0.0.1", 9)),
        "socket.bind": lambda: _socket.bind(("127.0.0.1", 0)),
        "subprocess.Popen": lambda: subprocess.Popen(["true"]),
        "os.system": lambda: os.system("true"),
        "os.fork": os.fork,
        "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    }
    if sys.version_info >= (3, 12):
        events["_thread.start_new_thread"] = lambda: _Kept.start_new_thread(lambda: None, ())
    if sys.version_info >= (3, 13):
        events["_thread.start_joinable_thread"] = lambda: _Kept.start(threading.Thread(target=lambda: None))
        events["time.sleep"] = lambda: _Kept.sleep(0)
    return events


class _Kept:
    """Taken before a simulation replaces them, in a place where it finds no names: only the audit events are left."""

    sleep = staticmethod(time.sleep)
    start_new_thread = staticmethod(_thread.start_new_thread)
    start = staticmethod(threading.Thread.start)


_socket = socket.socket()
_socket.close()


@pytest.mark.parametrize("event", _events())
def test_function_that_causes_a_forbidden_event_is_stopped(event: str) -> None:
    touch = _events()[event]

    async def body() -> None:
        await sleep(0.1)
        touch()

    sim = pair(functions={"body": body})
    sim.call("front", "body")
    with pytest.raises(DeterminismError, match=event) as caught:
        sim.run(1)
    place = str(caught.value)
    assert "at " in place and ".py:" in place


def test_every_listed_event_is_tested() -> None:
    assert [event for event in _events() if event not in EVENTS] == []
    newer = {"_thread.start_new_thread", "_thread.start_joinable_thread", "time.sleep"}
    assert set(EVENTS) - newer == set(_events()) - newer


def test_coroutine_that_awaits_another_object_is_stopped() -> None:
    class Other:
        def __await__(self) -> Any:
            yield self

    async def body() -> None:
        await Other()

    sim = pair(functions={"body": body})
    sim.call("front", "body")
    with pytest.raises(DeterminismError, match="awaits Other"):
        sim.run(1)


def test_replaced_functions_are_restored() -> None:
    before = [getattr(owner, name) for owner, name in NAMES]
    sim = pair()
    sim.run(1)
    assert [getattr(owner, name) for owner, name in NAMES] == before
    assert random.random() != random.random()
    assert uuid.uuid4() != uuid.uuid4()
    assert secrets.token_bytes(16) != secrets.token_bytes(16)


def _hash(seed: int, *, objects: bool = False, watched: bool = True) -> str:
    nodes = {name: Spec(functions={"double": double, "nap": nap}) for name in "abc"}
    sim = Simulation(seed=seed, nodes=nodes, watchers=invariants() if watched else (), objects=objects)
    sim.link("a", "b").set(delay=exponential(0.02), rechunk=0.5, reset=0.01)
    for value in range(20):
        sim.call("a", "double", value)
        sim.call("b", "nap", 0.2)
        sim.run(0.2)
    sim.crash("c")
    sim.restart("c", after=1)
    sim.settle()
    return sim.trace.hash


@pytest.mark.parametrize("objects", [False, True])
def test_same_seed_gives_the_same_run(objects: bool) -> None:
    hashes = [_hash(seed, objects=objects) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_watchers_do_not_change_a_run() -> None:
    assert _hash(1) == _hash(1, watched=False)
