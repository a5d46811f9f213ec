"""Real servers and clients in virtual time, from seeds; `python -m tests.adapters` runs more of them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import anyio.lowlevel
import pytest

from tests.adapters import loops, world
from tests.adapters.plan import drawn_plan
from tests.adapters.planted import bugs, hunt
from tests.adapters.seeds import cases, many
from tests.adapters.world import run
from tests.helpers.repository_files import ROOT
from tests.mutants import mutated

SEEDS = 70


@pytest.mark.parametrize("seed", range(SEEDS))
def test_seed(seed: int) -> None:
    """Each seed on one of the two event loops; the command runs both."""
    (case,) = cases(seed, 1, "alternate")
    report = run(*case)
    assert not report.wrong, report.text


@pytest.mark.parametrize("loop", loops.LOOPS)
@pytest.mark.parametrize("seed", [1, 8, 13])
def test_seed_gives_the_same_run(seed: int, loop: str) -> None:
    """Also in an interpreter with another hash seed."""
    here = run(seed, loop)
    assert run(seed, loop).hash == here.hash
    code = f"from tests.adapters.world import run; print(run({seed}, {loop!r}).hash)"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == here.hash


def test_seeds_give_different_runs() -> None:
    assert len({run(seed, "asyncio").hash for seed in range(4)}) == 4
    assert run(1, "trio").hash != run(1, "asyncio").hash


def test_report_of_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(some: world.World, *args: Any, **options: Any) -> None:
        some.violation("planted")

    monkeypatch.setattr(world.checks, "request_ended", broken)
    seed = next(seed for seed in range(100) if drawn_plan(seed).faults)
    report = run(seed, "trio")
    assert report.line.startswith(f"seed {seed} on trio: planted")
    for part in ("drawn:", "last actions:", "last events:", "tasks at that time:", "client.py"):
        assert part in report.text
    assert report.text.endswith(f"again: uv run python -m tests.adapters --start {seed} --seeds 1 --loop trio")
    assert many([(seed, "trio")], jobs=1, full=False, most=1) == 1
    assert report.line in capsys.readouterr().out


def test_planted_bugs_fit_the_source() -> None:
    some = bugs()
    assert len(some) > 30
    for bug in some:
        compile(mutated(bug), bug.file, "exec")


def test_planted_bug_is_found() -> None:
    (bug,) = [one for one in bugs() if one.title == "contexts: all calls share one context"]
    assert "context of" in hunt(bug, seeds=5, start=0).text


def test_trio_without_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "trio_run", SimpleNamespace(_r=None))
    with pytest.raises(RuntimeError, match=r"no trio\._core\._run\._ALLOW"):
        loops.run(_nothing, loop="trio", seed=1)


@pytest.mark.parametrize("loop", loops.LOOPS)
def test_loop_that_never_waits(loop: str) -> None:
    async def spins() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(loops.Livelock, match="spins"):
        loops.run(spins, loop=loop, seed=1)


async def _nothing() -> None:
    pass
