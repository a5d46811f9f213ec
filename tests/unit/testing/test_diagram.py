"""Diagrams are standalone SVG, with a line per host, an arrow per message, and marks for faults."""

import xml.etree.ElementTree as ElementTree

import pytest

from mpreg_transports.testing import Fn, Simulation, Spec
from mpreg_transports.testing.runs.diagram import beside, plot
from mpreg_transports.testing.runs.replay import run_case
from mpreg_transports.testing.runs.scenarios import case
from mpreg_transports.testing.simulation.workload import add, dawdle

SVG = "{http://www.w3.org/2000/svg}"
NODES = {"a": Spec(), "b": Spec(functions={"add": Fn(add, duration=0.01), "dawdle": Fn(dawdle)})}


def small(*, objects: bool = False) -> Simulation:
    sim = Simulation(seed=1, nodes=NODES, objects=objects, recording=True)
    sim.run(1)
    call = sim.call("a", "add", 1, 2)
    sim.run(until=call.done)
    sim.partition({"a"}, {"b"})
    sim.run(0.1)
    sim.heal()
    sim.stall("a", 0.2)
    sim.call("a", "dawdle", 5)
    sim.run(0.5)
    sim.crash("b")
    sim.run(0.5)
    sim.restart("b")
    sim.run(1)
    return sim


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("objects", [False, True])
def test_diagram_of_a_short_run_has_details(objects: bool) -> None:
    root = ElementTree.fromstring(plot(small(objects=objects)))
    shown = texts(root)
    for name in ("a", "b", "client@a", "Request", "Result", "Gossip", "add", "dawdle"):
        assert name in shown, name
    for deed in ("crash b", "restart b", "partition a <-> b", "heal", "stall a for 0.200 s"):
        assert any(text.endswith(deed) for text in shown), deed
    assert any("time is stretched" in text for text in shown)


def test_arrow_goes_down_from_sender_to_receiver() -> None:
    root = ElementTree.fromstring(plot(small(), since=1.0, until=1.1))
    lanes = {text.text: float(text.get("x", "0")) for text in root.iter(f"{SVG}text") if text.get("class") == "host"}
    arrows = [
        line for line in root.iter(f"{SVG}line") if (title := line.find(f"{SVG}title")) is not None and title.text
    ]
    requests = [line for line in arrows if (line.find(f"{SVG}title").text or "").startswith("Request")]  # type: ignore[union-attr]
    ways = [(float(line.get("x1", 0)), float(line.get("x2", 0))) for line in requests]
    assert ways == [(lanes["client@a"], lanes["a"]), (lanes["a"], lanes["b"])]
    assert all(float(line.get("y2", 0)) > float(line.get("y1", 0)) for line in arrows)


def test_diagram_of_a_long_run_is_an_overview_in_true_time() -> None:
    ran = run_case(case("partition", seed=3, seconds=30), watchers=list, recording=True)
    whole = plot(ran.sim, until=40)
    shown = texts(ElementTree.fromstring(whole))
    assert any("true time" in text for text in shown)
    assert "10 s" in shown
    assert "Request" not in [text for text in shown if text != "Request"] and shown.count("Request") == 1, (
        "only the legend"
    )
    assert whole.count("#f2b6a0") >= 1, "the partition is marked"
    assert len(whole) < 2_000_000


def test_diagram_shows_a_violation() -> None:
    sim = small()
    sim.violation = "invariant 3: <b> & 'c' do not agree"
    assert "invariant 3: &lt;b&gt; &amp;" in plot(sim)


def test_order_of_hosts_in_a_diagram() -> None:
    root = ElementTree.fromstring(plot(small(), hosts=["b", "a"]))
    lanes = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "host"]
    assert lanes == ["b", "a"]
    assert beside(["n0", "n1", "b@n1", "a@n0", "a@n1"]) == ["a@n0", "n0", "a@n1", "b@n1", "n1"]


def test_diagram_without_records_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was recorded between 70 s"):
        plot(small(), since=70)
