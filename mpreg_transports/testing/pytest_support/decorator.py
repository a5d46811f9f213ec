"""The decorator `@simulate`: a test of a simulated cluster, run for many seeds.

    @simulate(seeds=100, nodes={"front": Spec(), "stock": Spec(functions={"take": take})}, faults=Swarm())
    def test_it(sim):
        call = sim.call("front", "take", 3)
        assert sim.run(until=call.done, limit=60)

The decorated function takes the fixture `request` in place of `sim` and runs the test with a new `Simulation` for each
seed: first those that failed before (corpus.py), then 0, 1, 2, ... The first failure ends the test. That seed is run
again to check that it fails in the same way (trials.py), and then reported (report.py). Other fixtures are made once
and shared by all seeds.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from mpreg_transports.testing.faults.swarm import Swarm
from mpreg_transports.testing.runs.corpus import Corpus
from mpreg_transports.testing.runs.report import simulation_report
from mpreg_transports.testing.runs.trials import Trial, Trials
from mpreg_transports.testing.simulation.checks import check_makes_watchers, check_nodes, describe
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

Nodes = Mapping[str, Spec] | Callable[[], Mapping[str, Spec]]
"""The nodes, or a function that makes them for each seed."""


def simulate(
    seeds: int | Sequence[int] = 100,
    *,
    nodes: Nodes,
    faults: Swarm | None = None,
    invariants: bool = True,
    objects: bool = False,
    watchers: Callable[[], Iterable[Watcher]] = tuple,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run the decorated test, which takes `sim`, once for each of `seeds` seeds from 0 on, or for the given seeds.

    `watchers` makes further watchers for each run; `invariants` adds the standard ones; the rest are arguments of
    `Simulation`. `--sim-seed` and `--sim-seeds` override `seeds`. Raises TypeError for a function that is no such test.
    """
    _check_seeds(seeds)
    if not callable(nodes):
        check_nodes(nodes, Spec)
    if faults is not None and not isinstance(faults, Swarm):
        raise TypeError(f"faults: expected Swarm(...), got {describe(faults)}")
    check_makes_watchers(watchers)
    trials = Trials(nodes=nodes, faults=faults, invariants=invariants, objects=objects, watchers=watchers)
    several = range(seeds) if isinstance(seeds, int) else tuple(seeds)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)
        if inspect.iscoroutinefunction(test) or "sim" not in signature.parameters:
            raise TypeError(f"{test.__qualname__}: a simulated test is a plain function that takes `sim`")
        wants_request = "request" in signature.parameters

        @wraps(test)
        def run(*args: Any, request: pytest.FixtureRequest, **fixtures: Any) -> None:
            __tracebackhide__ = True
            if wants_request:
                fixtures["request"] = request
            _run(trials, partial(test, *args, **fixtures), several, request)

        run.__signature__ = _without_sim(signature)  # type: ignore[attr-defined]  # where inspect looks first
        return run

    return decorate


def _check_seeds(seeds: object) -> None:
    if isinstance(seeds, int):
        if seeds < 1:
            raise ValueError(f"seeds={seeds}: at least 1")
    elif isinstance(seeds, str) or not isinstance(seeds, Sequence) or any(type(seed) is not int for seed in seeds):
        raise TypeError(f"seeds={seeds!r:.60}: expected a number of seeds, or a list of seeds such as [3, 7]")


def _without_sim(signature: inspect.Signature) -> inspect.Signature:
    parameters = [one for one in signature.parameters.values() if one.name not in ("sim", "request")]
    wanted = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY)
    return signature.replace(parameters=[*parameters, wanted])


def _run(trials: Trials, test: Callable[..., None], several: Sequence[int], request: pytest.FixtureRequest) -> None:
    """Run the seeds. Raise the error of the first seed that fails, with a report as a note."""
    __tracebackhide__ = True
    name, config = request.node.nodeid, request.config
    corpus = Corpus(getattr(config, "cache", None), _corpus_file(config))
    for seed in _order(config, corpus.seeds(name), several):
        trial = trials.run(test, seed)
        if trial.error is None:
            continue
        corpus.add(name, seed)
        again = trials.run(test, seed, recording=True)
        command = f"pytest {shlex.quote(name)} --sim-seed {seed}"
        if (differs := trials.difference(test, trial, again)) is not None:
            differs.add_note(f"run it alone: {command}")
            raise differs from trial.error
        trial.error.add_note(simulation_report(again.sim, command=command, saved=_saved(again, name, config)))
        raise trial.error


def _order(config: pytest.Config, failed: list[int], several: Sequence[int]) -> list[int]:
    """Return the seeds in their order. Without the plugin the options do not exist."""
    only = config.getoption("sim_seed", None)
    if only:
        return list(only)
    number = config.getoption("sim_seeds", None)
    return list(dict.fromkeys([*failed, *(range(number) if number else several)]))


def _corpus_file(config: pytest.Config) -> Path | None:
    try:
        name = config.getini("sim_corpus")
    except (ValueError, KeyError):  # the plugin is disabled
        return None
    base = config.inipath.parent if config.inipath is not None else config.rootpath
    return base / name if name else None


def _saved(trial: Trial, name: str, config: pytest.Config) -> Path | None:
    """Save the run's script and events for a replay. Return the file, or None if they cannot be saved."""
    cache = getattr(config, "cache", None)
    if cache is None:
        return None
    if isinstance(trial.error, Violation):
        trial.sim.violation = str(trial.error)
    file: Path = cache.mkdir("mpreg") / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-seed{trial.sim.seed}.jsonl"
    try:
        trial.sim.trace.save(file)
    except (ValueError, TypeError):  # nodes without a description; the seed still repeats the run
        return None
    return file
