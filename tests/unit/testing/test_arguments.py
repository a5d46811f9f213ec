"""Slips in tests of clusters: each names what was wrong and what to write.

The bodies are lambdas, so that they look up their names when they run.
"""

# ruff: noqa: PLW0108

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import date
from datetime import datetime as moment
from time import time as clock
from typing import Any

import anyio
import pytest
import trio

from mpreg_proto.effects import Framing
from mpreg_transports import Graph, sleep
from mpreg_transports.testing import (
    Chooser,
    ClusterMachine,
    DeterminismError,
    Fn,
    Profile,
    Seeded,
    SimCall,
    Simulation,
    Spec,
    Swarm,
    Watcher,
    constant,
    exponential,
    memory_cluster,
    shrink,
    simulate,
    uniform,
)


def one() -> int:
    return 1


class Sees(Watcher):
    pass


NODES: dict[str, Any] = {"front": Spec(), "back": Spec(functions={"one": one})}
ANY: Any = None
"""For arguments of the wrong kind."""


def made(**more: Any) -> Simulation:
    return Simulation(**{"seed": 1, "nodes": NODES, **more})


def asked() -> SimCall:
    return made().call("front", "one")


Slip = Callable[[], object]
SPECS: list[tuple[str, Slip]] = [
    ('resources="gpu" is a bare string', lambda: Spec(resources="gpu")),  # type: ignore[arg-type]
    ("peers='front' is a bare text; write peers=('front',)", lambda: Spec(peers="front")),  # type: ignore[arg-type]
    ("functions=[<function one", lambda: Spec(functions=[one])),  # type: ignore[arg-type]
    ("functions['one']=1: expected a function", lambda: Spec(functions={"one": 1})),
    ("the name of a function", lambda: Spec(functions={1: one})),  # type: ignore[dict-item]
    ("limits: expected Limits(...), got dict", lambda: Spec(limits={})),  # type: ignore[arg-type]
    ("driver: expected DriverFaults(...), got str", lambda: Spec(driver="bad")),  # type: ignore[arg-type]
    ("the functions that one returns: expected a mapping", lambda: made(nodes={"a": Spec(functions=ANY or one)})),
    ("Fn(...)=5: expected a function", lambda: Fn(5)),  # type: ignore[arg-type]
    ("duration=-1: expected 0 or more", lambda: Fn(one, duration=-1)),
    ("duration='long': expected a number", lambda: Fn(one, duration="long")),  # type: ignore[arg-type]
    ("concurrency=0: expected 1 or more", lambda: Fn(one, concurrency=0)),
    ("refuses=2: expected 0 to 1", lambda: Fn(one, refuses=2)),
    ('resources="gpu" is a bare string', lambda: Fn(one, resources="gpu")),
    ("seconds=-1: expected 0 or more", lambda: constant(-1)),
    ("most=1: expected 2 or more", lambda: uniform(2, 1)),
    ("mean='x': expected a number", lambda: exponential("x")),  # type: ignore[arg-type]
]
SIMULATIONS: list[tuple[str, Slip]] = [
    ('expected a mapping such as {"front": Spec()}, got list', lambda: made(nodes=["front"])),
    ("nodes is empty, and a cluster has at least one node", lambda: made(nodes={})),
    ("node 'a': expected Spec(functions={...}), got dict", lambda: made(nodes={"a": {"one": one}})),
    ("node 'a': expected Spec(functions={...}), got the class Spec", lambda: made(nodes={"a": Spec})),
    ("node 'a' joins 'b', and there are only a", lambda: made(nodes={"a": Spec(peers=("b",))})),
    ("seed='x': expected a whole number", lambda: made(seed="x")),
    ("faults: expected Swarm(...), got the class Swarm", lambda: made(faults=Swarm)),
    ("faults: expected Swarm(...), got str", lambda: made(faults="stall")),
    ("chooser: expected Chooser(Seeded(7)), got int", lambda: made(chooser=7)),
    ("got the class Sees; write Sees()", lambda: made(watchers=[Sees])),
    ("write watchers=[Sees()]", lambda: made(watchers=Sees())),
    ("got the function made; call it", lambda: made(watchers=made)),
    ("kinds='stall' is a bare text", lambda: Swarm(kinds="stall")),  # type: ignore[arg-type]
    ("there is no fault 'rain'", lambda: Swarm(kinds=("rain",))),
    ("level=3: expected 0 to 1", lambda: Swarm(level=3)),
    ("seconds=-1: expected 0 or more", lambda: Swarm(seconds=-1)),
    ("seed='x': expected a whole number", lambda: Seeded("x")),  # type: ignore[arg-type]
    ("source=7: expected Seeded(7)", lambda: Chooser(7)),  # type: ignore[arg-type]
]
ACTIONS: list[tuple[str, Slip]] = [
    *(
        ("there is no node 'bakc'; there are front, back", slip)
        for slip in (
            lambda: made().crash("bakc"),
            lambda: made().restart("bakc"),
            lambda: made().leave("bakc"),
            lambda: made().stall("bakc", 1),
            lambda: made().skew("bakc", drift=0),
            lambda: made().partition(["bakc"], ["front"]),
            lambda: made().link("front", "bakc"),
            lambda: made().set_link("front", "bakc", Profile()),
            lambda: made().offer("bakc", "one", one),
            lambda: made().withdraw("bakc", "one"),
            lambda: made().json_client("bakc"),
            lambda: made().add_client("me", "bakc", framing=Framing.STREAM),
            lambda: made().graph("bakc", Graph()),
            lambda: made().submit("bakc", ANY),
        )
    ),
    ("expected the name of a node, got Spec", lambda: made().crash(Spec())),  # type: ignore[arg-type]
    ("there is no client 'me'; there are none yet", lambda: made().vanish("me")),
    ("after=-1: expected 0 or more", lambda: made().restart("back", after=-1)),
    ("seconds=-1: expected 0 or more", lambda: made().stall("back", -1)),
    ("drift=-2: expected -0.9 to 10", lambda: made().skew("back", drift=-2)),
    ("write sim.partition(['front'], ['back'])", lambda: made().partition("front", "back")),
    ("one=3: expected a collection of texts", lambda: made().partition(3, ["back"])),  # type: ignore[arg-type]
    ("k=0: expected 1 or more", lambda: made().clog(k=0)),
    ("duration='x': expected a number", lambda: made().link("front", "back").set(delay="x")),  # type: ignore[arg-type]
    ("bandwidth=0.5: expected a whole number", lambda: made().link("front", "back").set(bandwidth=ANY or 0.5)),  # type: ignore[arg-type]
    ("reset=2: expected 0 to 1", lambda: made().link("front", "back").set(reset=2)),
    ("profile: expected Profile(...)", lambda: made().set_links(3)),  # type: ignore[arg-type]
    ("function=3: expected a text", lambda: made().offer("back", 3, one)),  # type: ignore[arg-type]
    ("Fn(...)=3: expected a function", lambda: made().offer("back", "one", 3)),
    ("back offers no 'oen'; it offers echo, echos, one", lambda: made().withdraw("back", "oen")),
    ("write sim.call('front', 'one')", lambda: made().call("front", one)),  # type: ignore[arg-type]
    ("write sim.graph('front', graph)", lambda: made().call("front", Graph())),  # type: ignore[arg-type]
    ("graph: expected a Graph", lambda: made().graph("front", "one")),  # type: ignore[arg-type]
    ("request: expected a Request", lambda: made().submit("front", "one")),  # type: ignore[arg-type]
    ("timeout=-1: expected 0 or more", lambda: made().call("front", "one", timeout=-1)),
    ("wait='x': expected a number", lambda: made().call("front", "one", wait=ANY or "x")),
    ('resources="gpu" is a bare string', lambda: made().call("front", "one", resources="gpu")),
    ("kwargs: expected a mapping, got list", lambda: made().call("front", "one", kwargs=[])),  # type: ignore[arg-type]
    ("client=3: expected a text", lambda: made().call("front", "one", client=3)),  # type: ignore[arg-type]
    ("framing: expected one of Framing", lambda: made().add_client("me", "back", framing="x")),  # type: ignore[arg-type]
    ("call: expected what sim.call returned", lambda: made().cancel("one")),  # type: ignore[arg-type]
    ("this call belongs to another simulation", lambda: made().cancel(asked())),
    ("seconds=-1: expected 0 or more", lambda: made().run(-1)),
    ("seconds='x': expected a number", lambda: made().run("x")),  # type: ignore[arg-type]
    ("write until=call.done", lambda: made().run(until="x")),  # type: ignore[arg-type]
    ("write until=call.done, without parentheses", lambda: made().run(until=asked().done())),  # type: ignore[arg-type]
    ("write until=call.done", lambda: made().run(until=asked())),  # type: ignore[arg-type]
    ("seconds=-1: expected 0 or more", lambda: made().settle(-1)),
    ("after=-1: expected 0 or more", lambda: made().schedule(-1, one)),
    ("act=3: expected a function", lambda: made().schedule(1, 3)),  # type: ignore[arg-type]
]
RUNS: list[tuple[str, Slip]] = [
    ("seeds='x': expected a number of seeds", lambda: simulate(seeds="x", nodes=NODES)),  # type: ignore[arg-type]
    ("seeds=0: at least 1", lambda: simulate(seeds=0, nodes=NODES)),
    ("nodes: expected a mapping", lambda: simulate(nodes=["front"])),  # type: ignore[arg-type]
    ("faults: expected Swarm(...), got the class Swarm", lambda: simulate(nodes=NODES, faults=Swarm)),  # type: ignore[arg-type]
    ("write watchers=lambda: [...]", lambda: simulate(nodes=NODES, watchers=[Sees()])),  # type: ignore[arg-type]
    ("case: expected a Case, such as saved_case(file) returns, got str", lambda: shrink("x.jsonl")),  # type: ignore[arg-type]
    ("nodes: expected a mapping", lambda: memory_cluster(["front"])),  # type: ignore[arg-type]
    ("node 'a': expected Spec", lambda: memory_cluster({"a": {}})),  # type: ignore[dict-item]
    ("there is no node 'bakc'", lambda: memory_cluster(NODES).client("bakc")),
    ("there is no node 'bakc'", lambda: memory_cluster(NODES).cut("front", "bakc")),
    ("ClusterMachine.nodes names no nodes; write nodes =", ClusterMachine),
]


@pytest.mark.parametrize(("text", "slip"), [*SPECS, *SIMULATIONS, *ACTIONS, *RUNS])
def test_slip_names_the_fix(text: str, slip: Slip) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        slip()
    assert text in str(caught.value)


def test_slip_changes_nothing() -> None:
    sim = made()
    for act in (lambda: sim.crash("bakc"), lambda: sim.stall("back", -1), lambda: sim.partition("front", "back")):
        with pytest.raises((TypeError, ValueError)):
            act()
    assert sim.trace.script == []


# -- bodies -----------------------------------------------------------------------------------------------------------


async def waits_in_asyncio() -> None:
    await asyncio.sleep(0.1)


async def waits_for_nothing() -> None:
    await asyncio.sleep(0)


async def waits_in_anyio() -> None:
    await anyio.sleep(0.1)


async def waits_in_trio() -> None:
    await trio.sleep(0.1)


async def waits_with_a_timeout() -> None:
    async with asyncio.timeout(1):
        await sleep(0.1)


BODIES: list[tuple[str, Callable[..., Any]]] = [
    *(
        ("mpreg_transports.sleep", body)
        for body in (waits_in_asyncio, waits_for_nothing, waits_in_anyio, waits_in_trio)
    ),
    ("mpreg_transports.sleep", waits_with_a_timeout),
    ("datetime.datetime.now", lambda: datetime.datetime.now()),
    ("datetime.datetime.now", lambda: datetime.datetime.now(datetime.UTC)),
    ("datetime.datetime.now", lambda: moment.now()),
    ("datetime.datetime.today", lambda: datetime.datetime.today()),
    ("datetime.datetime.utcnow", lambda: datetime.datetime.utcnow()),
    ("datetime.date.today", lambda: datetime.date.today()),
    ("datetime.date.today", lambda: date.today()),
    ("time.time", lambda: clock()),
    ("time.localtime without an argument", lambda: time.localtime()),
    ("time.gmtime without an argument", lambda: time.gmtime(None)),
    ("time.ctime without an argument", lambda: time.ctime()),
    ("time.asctime without an argument", lambda: time.asctime()),
    ("time.strftime without an argument", lambda: time.strftime("%H")),
    ("random.SystemRandom", lambda: random.SystemRandom().random()),
    ("random.SystemRandom", lambda: secrets.SystemRandom().randrange(3)),
    ("random.Random.seed without an argument", lambda: random.Random().random()),
    ("os.getrandom", lambda: os.getrandom(3)),
    ("uuid.uuid4", lambda: uuid.uuid4()),
    ("secrets.token_hex", lambda: secrets.token_hex()),
    ("time.time", functools.partial(lambda: clock())),
]


def ends(body: Callable[..., Any]) -> Any:
    """Return the value of a function of one node."""
    sim = Simulation(nodes={"front": Spec(functions={"body": body})})
    call = sim.call("front", "body")
    sim.run(until=call.done, limit=30)
    return call.value


@pytest.mark.parametrize(("name", "body"), BODIES)
def test_body_that_is_not_deterministic(name: str, body: Callable[..., Any]) -> None:
    with pytest.raises(DeterminismError) as caught:
        ends(body)
    assert name in str(caught.value) and "mpreg_transports.sleep" in str(caught.value)


async def counted() -> Any:
    for number in range(3):
        await sleep(0.1)
        yield number


async def sums() -> int:
    return sum([number async for number in counted()])


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (sums, 3),
        (lambda: datetime.datetime(2020, 2, 3).isoformat(), "2020-02-03T00:00:00"),
        (lambda: moment.fromisoformat("2020-02-03").year, 2020),
        (lambda: isinstance(moment(2020, 2, 3), datetime.datetime), True),
        (lambda: isinstance(datetime.datetime(2020, 2, 3), datetime.date), True),
        (lambda: datetime.datetime.min.year, 1),
        (lambda: issubclass(moment, datetime.date), True),
        (lambda: type(moment(2020, 2, 3)) == datetime.datetime, True),  # noqa: E721
        (lambda: time.gmtime(0).tm_year, 1970),
        (lambda: time.strftime("%Y", time.gmtime(0)), "1970"),
        (lambda: random.Random(5).randrange(1), 0),
    ],
)
def test_body_that_is_deterministic(body: Callable[..., Any], value: Any) -> None:
    assert ends(body) == value
    assert datetime.datetime is moment and datetime.date is date and datetime.datetime.now()


# -- what tests print -------------------------------------------------------------------------------------------------


def test_repr_of_a_spec() -> None:
    assert repr(Spec()) == "Spec()"
    spec = Spec(functions={"one": one, "two": Fn(one, idempotent=True)}, resources={"gpu", "disk"}, peers=("front",))
    assert repr(spec) == (
        "Spec(functions={'one': one, 'two': Fn(one, idempotent=True)}, resources={'disk', 'gpu'}, peers=('front',))"
    )
    many = Spec(functions={f"function-{number}": one for number in range(30)})
    assert repr(many).endswith(", ... 27 more})") and len(repr(many)) < 120
    assert repr(Spec(functions=functools.partial(dict))) == "Spec(functions=partial)"


def test_names_of_a_simulation() -> None:
    assert [name for name in dir(made()) if not name.startswith("_")] == (
        "add_client advertise call calls calm cancel cancel_own chooser clients clog crash crash_amid drain graph heal "
        "json_client judge kill_link leave link network nodes now offer options partition post query restart run "
        "schedule seed set_link set_links set_resources settle skew specs stall submit submit_own sweep time trace "
        "vanish violation withdraw"
    ).split()
