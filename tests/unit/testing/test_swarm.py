"""Swarm options and scripts are drawn from the seed alone, up front, and end before the run does."""

from collections import Counter

import pytest

from mpreg_transports.testing.faults.swarm import FAULTS, LEVELS, Options, Swarm
from mpreg_transports.testing.runs.replay import run_case
from mpreg_transports.testing.runs.runs import RunReport, outcomes, run_seed, run_seeds
from mpreg_transports.testing.runs.scenarios import SCENARIOS, case
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation, unpacked
from mpreg_transports.testing.simulation.trace import Action
from mpreg_transports.testing.simulation.workload import Load, standard_nodes, work


def drawn(seed: int) -> tuple[Options, list[Action]]:
    swarm, chooser, nodes = Swarm(), Chooser(Seeded(seed)), standard_nodes(5)
    options = swarm.options(chooser)
    return options, swarm.script(chooser, options, nodes)


def test_draws_depend_on_the_seed_alone() -> None:
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_options_differ_among_seeds() -> None:
    options = [drawn(seed)[0] for seed in range(200)]
    levels = Counter(one.level for one in options)
    assert set(levels) == set(LEVELS)
    assert all(count > 20 for count in levels.values())
    assert all((not one.kinds) == (one.level == 0) for one in options)
    assert {kind for one in options for kind in one.kinds} == set(FAULTS)


@pytest.mark.parametrize("kind", FAULTS)
def test_plain_functions_under_every_fault(kind: str) -> None:
    nodes = {"front": Spec(), "till": Spec(functions={"price": len})}
    sim = Simulation(seed=1, nodes=nodes, faults=Swarm(seconds=6, kinds=(kind,), level=0.3))
    sim.run(8)
    assert not sim.violation


def test_every_fault_is_drawn_and_ends_in_time() -> None:
    names: Counter[str] = Counter()
    for seed in range(60):
        script = drawn(seed)[1]
        names.update(action.name for action in script)
        assert [action.at for action in script] == sorted(action.at for action in script)
        assert all(0 <= action.at <= 60 * SECOND for action in script)
        for action in script:
            if action.name == "stall":
                assert action.at + action.args["seconds"] * SECOND <= 60 * SECOND + 1
    wanted = {
        "crash",
        "restart",
        "leave",
        "stall",
        "skew",
        "partition",
        "heal",
        "set_link",
        "withdraw",
        "offer",
        "vanish",
    }
    assert wanted <= set(names)


def test_node_with_one_seed_does_not_stay_down() -> None:
    """Only through that other node could such a node be found, and the other node may be down itself."""
    for seed in range(80):
        options, script = drawn(seed)
        down = dict.fromkeys(standard_nodes(5), False)
        for action in script:
            if action.name in ("crash", "leave", "restart"):
                down[action.args["name"]] = action.name != "restart"
        assert options.joins == "all" or not any(down.values())


def test_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no fault 'flood'"):
        Swarm(kinds=("flood",)).options(Chooser(Seeded(0)))


def test_simulation_draws_its_faults_and_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    sim = Simulation(seed=12, nodes=standard_nodes(3), faults=Swarm(kinds=("crash",), level=0.3, seconds=20))
    assert capsys.readouterr().out.startswith("seed 12: faults 30% a second of crash; links ")
    sim.run(20)
    crashes = [action for action in sim.trace.script if action.name == "crash"]
    assert crashes
    sim.settle()
    assert all(host.alive or sim.options["joins"] == "all" for host in sim.nodes.values())


def test_settling_stops_faults() -> None:
    sim = Simulation(seed=12, nodes=standard_nodes(3), faults=Swarm(kinds=("crash",), level=0.3, seconds=60))
    sim.run(5)
    sim.settle()
    calm = next(action.at for action in sim.trace.script if action.name == "calm")
    assert [action.name for action in sim.trace.script if action.at > calm] == ["judge"]


def test_work_has_calls_of_every_kind() -> None:
    script = work(Chooser(Seeded(1)), ["n0", "n1"], 60, Load(rate=10))
    requests = [unpacked(action.args["request"]) for action in script if action.name == "submit"]
    assert 450 < len(requests) < 750
    calls = [call for request in requests for call in request.calls]
    assert {call.function for call in calls} >= {
        "add",
        "book",
        "dawdle",
        "solo",
        "fail",
        "unsendable",
        "nowhere",
        "echo",
    }
    assert any(call.resources for call in calls)
    assert any(len(call.dependencies) > 1 for call in calls)
    assert any(len(request.calls) > 4 for request in requests)
    for field in ("partial", "eager", "trace", "wait", "want"):
        share = sum(bool(getattr(request, field)) for request in requests) / len(requests)
        assert 0.03 < share < 0.5, field
    timeouts = [request.timeout for request in requests if request.timeout is not None]
    assert min(timeouts) < SECOND < max(timeouts)
    assert any(action.name == "cancel" for action in script)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_every_scenario_runs(scenario: str) -> None:
    report = run_seed(5, scenario=scenario, seconds=15)
    assert report.violation is None, report.violation.report
    assert report.requests["ok"] > 5
    assert report.options["words"]


def test_unknown_scenario_and_no_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no scenario 'storm'; there are swarm, drivers, steady"):
        case("storm", seed=0)
    with pytest.raises(ValueError, match="at least one node"):
        case(seed=0, nodes=0)


def test_steady_cluster_has_no_errors() -> None:
    ran = run_case(case("steady", seed=1, seconds=20))
    pooled = [call for call in ran.sim.calls if any("pooled" in one.function for one in call.request.calls)]
    counted = outcomes(call for call in ran.sim.calls if call not in pooled)  # pools lose calls by themselves
    assert ran.error is None and pooled
    assert not {"1002", "1022", "1023", "1024", "unanswered"} & set(counted)
    assert counted["ok"] > 0.7 * sum(counted.values())


def test_seeds_in_other_processes_give_the_same_reports() -> None:
    here = [run_seed(seed, seconds=5) for seed in range(3)]
    there = list(run_seeds(range(3), jobs=1, seconds=5))
    assert [key(report) for report in there] == [key(report) for report in here]


def key(report: RunReport) -> tuple[object, ...]:
    return report.seed, report.trace_hash, report.events, report.requests, report.options
