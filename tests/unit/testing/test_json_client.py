"""The JSON client of the simulator, and links of native clients with another framing."""

import json
from pathlib import Path
from typing import Any

import pytest

from mpreg_proto.effects import Framing
from mpreg_proto.ids import LinkId
from mpreg_proto.wire.classic import DECODE_IN_STEPS_FROM
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.messages import Message, Request
from mpreg_transports.functions.sleep import sleep
from mpreg_transports.testing.invariants.all import invariants
from mpreg_transports.testing.runs.diagram import plot
from mpreg_transports.testing.runs.failures import action_text
from mpreg_transports.testing.runs.replay import replay
from mpreg_transports.testing.simulation.durations import exponential
from mpreg_transports.testing.simulation.hosts import Host, Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher
from mpreg_transports.testing.simulation.workload import add
from mpreg_transports.values import default_codec


async def nap(seconds: float) -> str:
    await sleep(seconds)
    return "rested"


NODES = {"front": Spec(), "back": Spec(functions={"add": add, "nap": nap}, resources={"disk"})}


def cluster(**more: Any) -> Simulation:
    """Return two joined nodes with all invariants; `back` offers the functions."""
    sim = Simulation(seed=3, nodes=NODES, watchers=invariants(), **more)
    sim.run(2)
    return sim


def request(function: str, *args: Any, number: str = "1") -> dict[str, Any]:
    return {"role": "rpc", "cmds": [{"name": "x", "fun": function, "args": args}], "u": number}


@pytest.mark.parametrize("objects", [False, True])
def test_json_request_and_answer(objects: bool) -> None:
    sim = cluster(objects=objects)
    client = sim.json_client("front")
    client.send(request("add", 1, 2))
    sim.run(1)
    assert client.answers == [{"r": {"x": 3}, "error": None, "u": "1"}]


def test_json_client_of_any_node_and_name() -> None:
    sim = cluster()
    one, other = sim.json_client("back"), sim.json_client("back", client="other@back")
    one.send(request("add", 1, 2))
    other.send(request("add", 3, 4))
    sim.run(1)
    assert [one.answers[0]["r"], other.answers[0]["r"]] == [{"x": 3}, {"x": 7}]
    assert sim.json_client("back").answers is one.answers
    with pytest.raises(ValueError, match="there is no node 'bakc'; there are front, back"):
        sim.json_client("bakc")


def test_invalid_json_leaves_the_link_open() -> None:
    sim = cluster()
    client = sim.json_client("front")
    for text in ("nonsense", "[]", json.dumps(request("nowhere")), json.dumps(request("add", 5))):
        client.send(text)
    sim.run(1)
    assert [one["error"] and one["error"]["code"] for one in client.answers] == [1000, 1000, 1001, None]
    assert len(client.host.wires) == 1


class Arrivals(Watcher):
    """The requests that a node received, as the numbers that are their only arguments."""

    message_types = (Request,)

    def __init__(self) -> None:
        self.numbers: list[Any] = []

    def message_received(self, host: Host, link: LinkId, message: Message | BadRequest) -> None:
        assert isinstance(message, Request)
        if not message.here and host.name == "front":
            ((number, *_), _) = default_codec().decode(message.calls[0].args)
            self.numbers.append(number)


def test_long_json_text_holds_back_the_texts_behind_it() -> None:
    """A node stops reading while it decodes a long text."""
    arrivals = Arrivals()
    sim = Simulation(seed=3, nodes=NODES, watchers=[arrivals])
    sim.run(2)
    client = sim.json_client("front")
    client.send(request("echos", 0, "y" * DECODE_IN_STEPS_FROM))
    for number in range(1, 6):
        client.send(request("echo", number))

    def held() -> int:
        return sum(len(wire.ends[side].unread or ()) for wire, side in sim.nodes["front"].wires.values())

    assert sim.run(until=lambda: held() == 5, limit=1)
    sim.run(1)
    assert (held(), arrivals.numbers, len(client.answers)) == (0, [0, 1, 2, 3, 4, 5], 6)


def test_json_texts_are_never_cut() -> None:
    sim = cluster()
    sim.link("json@front", "front").set(rechunk=1.0, bandwidth=100_000, delay=exponential(0.02))
    client = sim.json_client("front")
    for number in range(5):
        client.send(request("echo", "y" * 50_000 * (number % 2), number=str(number)))
    sim.run(10)
    assert sorted(one["u"] for one in client.answers) == ["0", "1", "2", "3", "4"]
    assert sim.network.rechunked == 0


def test_lost_link_leaves_open_requests_unanswered() -> None:
    sim = cluster()
    client = sim.json_client("front")
    client.send(request("nap", 3, number="lost"))
    sim.run(1)
    sim.crash("front")
    sim.restart("front", after=1)
    sim.run(0.5)
    assert not client.host.wires
    client.send(request("echo", 1, number="while the node is down"))
    sim.run(10)
    assert [one["u"] for one in client.answers] == ["while the node is down"]
    sim.settle()


def test_reset_link_of_a_json_client_is_dialled_again() -> None:
    sim = cluster()
    client = sim.json_client("front")
    sim.link("json@front", "front").set(reset=1.0)
    client.send(request("echo", 1))
    sim.run(1)
    sim.link("json@front", "front").set(reset=0.0)
    assert client.answers == []
    client.send(request("echo", 2))
    sim.run(1)
    assert client.answers == [{"r": {"x": 2}, "error": None, "u": "1"}]
    sim.settle()


def test_partition_delays_json_texts() -> None:
    sim = cluster()
    client = sim.json_client("front")
    client.send(request("echo", 1))
    sim.run(1)
    sim.partition(["front"], ["json@front"], oneway=True)
    client.send(request("echo", 2))
    sim.run(1)
    assert len(client.answers) == 1
    sim.heal()
    sim.run(1)
    assert [one["r"]["x"] for one in client.answers] == [1, 2]


def test_vanished_json_client_starts_again() -> None:
    sim = cluster()
    client = sim.json_client("front")
    client.send(request("nap", 5))
    sim.run(1)
    sim.vanish("json@front")
    sim.run(1)
    assert not sim.nodes["back"].running, "the end of the link cancels the request"
    client.send(request("echo", 2))
    sim.run(1)
    assert [one["r"]["x"] for one in client.answers] == [2]
    sim.settle()


@pytest.mark.parametrize("framing", [Framing.STREAM, Framing.NATIVE_MESSAGES])
@pytest.mark.parametrize("objects", [False, True])
def test_framing_of_a_native_client(framing: Framing, objects: bool) -> None:
    sim = cluster(objects=objects)
    sim.add_client("caller@front", "front", framing=framing)
    sim.link("caller@front", "front").set(rechunk=1.0)
    calls = [sim.call("front", "add", number, client="caller@front") for number in range(5)]
    sim.run(1)
    assert [call.value for call in calls] == [0, 1, 2, 3, 4]
    ((wire, _),) = sim.clients["caller@front"].wires.values()
    assert wire.framing is framing
    assert (sim.network.rechunked > 0) is (framing is Framing.STREAM)
    with pytest.raises(ValueError, match="'caller@front' exists already; add it before its first request"):
        sim.add_client("caller@front", "front", framing=framing)


def test_actions_of_clients_in_a_replay(tmp_path: Path) -> None:
    sim = cluster(recording=True)
    sim.add_client("caller@front", "front", framing=Framing.NATIVE_MESSAGES)
    client = sim.json_client("front")
    client.send(request("add", 1, 2))
    call = sim.call("front", "add", 5, client="caller@front")
    sim.run(0.001)
    client.send("nonsense")
    sim.run(1)
    assert (call.value, len(client.answers)) == (5, 2)
    sim.trace.save(tmp_path / "x.jsonl")
    again = replay(tmp_path / "x.jsonl", nodes=NODES)
    assert again.trace.hash == sim.trace.hash
    assert again.json_client("front").answers == client.answers
    assert [action_text(action) for action in sim.trace.script if action.name in ("add_client", "send_json")] == [
        "caller@front is a client of front, framing native",
        'json@front sends front {"role": "rpc", "cmds": [{"name": "x", "fun": "add", "args":',
        "json@front sends front nonsense",
    ]
    drawn = plot(sim)
    assert "json@front" in drawn and "Request" in drawn
