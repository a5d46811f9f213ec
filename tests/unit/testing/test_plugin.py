"""The pytest plugin, as a project uses it: in its own pytest, loaded by name, with tests that fail.

One run of `PROJECT` shows most of it; each later run checks one thing. The plugin is given by `-p`, so that these tests
do not depend on how mpreg was installed here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mpreg_transports.testing import Spec, Swarm, simulate
from mpreg_transports.testing.runs.corpus import KEPT, Corpus

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = "mpreg_transports.testing.pytest_support.plugin"

PROJECT = """
import itertools

import pytest
from mpreg_transports.testing import Spec, simulate

count, flips = itertools.count(), itertools.count()
seen = []


def take(n):
    return n


def odd():
    return next(count)


NODES = {"front": Spec(), "stock": Spec(functions={"take": take})}


@pytest.mark.parametrize("article", ["pen"])
@simulate(seeds=5, nodes=NODES)
def test_passes(sim, article, tmp_path):
    call = sim.call("front", "take", article)
    assert tmp_path.exists()
    assert sim.run(until=call.done, limit=60)
    assert call.value == article


@simulate(seeds=5, nodes=NODES)
def test_fails_from_3_on(sim):
    seen.append(sim.seed)
    print("order", seen)
    call = sim.call("front", "take", sim.seed)
    sim.run(until=call.done, limit=60)
    assert call.value < 3


class TestClass:
    @simulate([7, 8], nodes=lambda: NODES, invariants=False)
    def test_seeds_by_name(self, sim, request):
        assert sim.seed in (7, 8) and request.node.name == "test_seeds_by_name"


@simulate(nodes={"front": Spec(functions={"odd": odd})})
def test_is_not_deterministic(sim):
    call = sim.call("front", "odd")
    sim.run(until=call.done, limit=60)
    assert call.value == -1


@simulate(nodes=NODES)
def test_looks_elsewhere(sim):
    assert next(flips)


@simulate(nodes=NODES)
def test_skips(sim):
    pytest.skip("not today")


@simulate(nodes=NODES)
def test_is_expected_to_fail(sim):
    pytest.xfail("known")


@simulate(nodes=NODES)
def test_expects_an_error(sim):
    with pytest.raises(ValueError):
        sim.run(1)


@pytest.mark.anyio
async def test_in_memory(mpreg_cluster):
    one, other = await mpreg_cluster(NODES), await mpreg_cluster(NODES)
    for cluster in (one, other):
        async with cluster.client("front") as client:
            assert await client.call("take", 3) == 3
    await one.kill("stock")
    await one.agreed()
    assert other.running == ("front", "stock")
"""


def run(folder: Path, *arguments: str) -> tuple[str, dict[str, str]]:
    """Return the output of a pytest of this folder, and the outcome of each test."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", PLUGIN, "-p", "anyio", "-rA", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    ends = re.findall(r"^(PASSED|FAILED|SKIPPED|XFAIL)\b.*?(?:::)([\w:\[\]-]+)", done.stdout, re.MULTILINE)
    return done.stdout, {name: end for end, name in ends}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_shop.py").write_text(PROJECT)
    (folder / "pytest.ini").write_text("[pytest]\nsim_corpus = seeds/failed.json\n")
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the project's first run."""
    return run(folder)


def simulation_report(output: str, test: str) -> str:
    """Return the report of one failed test."""
    found = re.search(rf"_+ {test} _+\n(.*?)\n(?:_{{10}}|={{10}})", output, re.DOTALL)
    assert found is not None, output
    return found[1]


def test_outcome_of_each_test(first: tuple[str, dict[str, str]]) -> None:
    output, ends = first
    assert ends == {
        "test_passes[pen]": "PASSED",
        "test_fails_from_3_on": "FAILED",
        "TestClass::test_seeds_by_name": "PASSED",
        "test_is_not_deterministic": "FAILED",
        "test_looks_elsewhere": "FAILED",
        "test_is_expected_to_fail": "XFAIL",
        "test_expects_an_error": "FAILED",
        "test_in_memory[asyncio]": "PASSED",
        "test_in_memory[trio]": "PASSED",
    }
    assert "1 skipped" in output


def test_report_of_a_failing_seed(first: tuple[str, dict[str, str]], folder: Path) -> None:
    text = simulation_report(first[0], "test_fails_from_3_on")
    assert "order [0, 1, 2, 3, 3]" in text  # the last one twice
    assert "simulated with seed 3" in text
    assert "run it alone: pytest test_shop.py::test_fails_from_3_on --sim-seed 3" in text
    assert "client@front gets" in text and "alive: stock#" in text
    assert re.search(
        r"request \d+ at front\nE +[\d.]+ s  'take' is ready\nE +[\d.]+ s  'take' was sent to stock#", text
    )
    (saved,) = folder.glob(".pytest_cache/d/mpreg/*test_fails_from_3_on-seed3.jsonl")
    assert str(saved) in text


def test_report_of_a_run_that_is_not_deterministic(first: tuple[str, dict[str, str]]) -> None:
    text = simulation_report(first[0], "test_is_not_deterministic")
    assert "DeterminismError: seed 0 gives another run each time" in text
    assert "the last function that had ended was odd at front" in text
    text = simulation_report(first[0], "test_looks_elsewhere")
    assert "DeterminismError: seed 0 was simulated twice to the same trace" in text


def test_failed_seeds_run_first_and_are_kept_in_the_project(first: tuple[str, dict[str, str]], folder: Path) -> None:
    kept = json.loads((folder / "seeds" / "failed.json").read_text())
    assert kept["test_shop.py::test_fails_from_3_on"] == [3]
    assert sorted(path.name for path in (folder / "seeds").iterdir()) == ["failed.json"]
    output, _ = run(folder, "test_shop.py::test_fails_from_3_on")
    assert "order [3, 3]" in output and "order [3, 3, 0" not in output
    (folder / "seeds" / "failed.json").write_text('{"test_shop.py::test_fails_from_3_on": [2]}')
    output, _ = run(folder, "test_shop.py::test_fails_from_3_on")
    assert "order [2, 3, 3]" in output  # first the file, then the cache


def test_chosen_seeds(first: tuple[str, dict[str, str]], folder: Path) -> None:
    output, ends = run(folder, "-k", "fails_from or by_name", "--sim-seed", "7", "--sim-seed=1")
    assert "order [7, 7]" in output and ends["TestClass::test_seeds_by_name"] == "FAILED"
    output, ends = run(folder, "-k", "fails_from", "--sim-seeds", "2", "-p", "no:cacheprovider", "-o", "sim_corpus=")
    assert ends["test_fails_from_3_on"] == "PASSED" and "order [0, 1]" in output


def test_decorated_tests_without_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(PROJECT)
    output, ends = run(tmp_path, "-k", "fails_from", "-p", f"no:{PLUGIN}")
    assert ends == {"test_fails_from_3_on": "FAILED"} and "order [0, 1, 2, 3, 3]" in output


# -- without a pytest inside ------------------------------------------------------------------------------------------


def test_entry_point_imports_no_other_module_of_mpreg() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"mpreg": PLUGIN}
    lines = f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    packages = [PLUGIN.rsplit(".", count)[0] for count in (3, 2, 1)]
    assert done.stdout.split() == [*packages, PLUGIN]


def test_simulate_refuses_other_functions() -> None:
    mark = simulate(nodes={"front": Spec()}, faults=Swarm())

    async def waits(sim: object) -> None:
        pass

    with pytest.raises(TypeError, match="waits: a simulated test is a plain function that takes `sim`"):
        mark(waits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes `sim`"):
        mark(lambda: None)
    with pytest.raises(ValueError, match="at least 1"):
        simulate(0, nodes={"front": Spec()})


class Kept:
    """A cache like that of pytest."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def get(self, key: str, default: object) -> object:
        return self.values.get(key, default)

    def set(self, key: str, value: object) -> None:
        self.values[key] = value


def test_corpus_drops_only_the_oldest_seeds(tmp_path: Path) -> None:
    file, cache = tmp_path / "deep" / "seeds.json", Kept()
    corpus = Corpus(cache, file)
    assert corpus.seeds("a") == []
    for seed in [*range(KEPT + 2), 5]:
        corpus.add("a", seed)
    corpus.add("b", 1)
    wanted = [*(seed for seed in range(2, KEPT + 2) if seed != 5), 5]
    assert Corpus(None, file).seeds("a") == Corpus(cache, None).seeds("a") == corpus.seeds("a") == wanted
    assert corpus.seeds("b") == [1] and Corpus(None, None).seeds("a") == []


@pytest.mark.parametrize(
    ("text", "why"), [("{", "not JSON"), ("[1]", "does not map"), ('{"a": ["1"]}', "does not map")]
)
def test_broken_corpus_is_refused_and_broken_cache_ignored(tmp_path: Path, text: str, why: str) -> None:
    file, cache = tmp_path / "seeds.json", Kept()
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        Corpus(None, file).seeds("a")
    cache.set("mpreg/seeds", "nonsense")
    assert Corpus(cache, None).seeds("a") == []
