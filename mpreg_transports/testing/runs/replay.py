"""Runs that can be done again: a `Case` is one by time (a script that may be cut and shrunk), a `Replay` one exactly.

A case says what is done when. A saved trace says it more sharply: after how many steps of the simulation; with the same
draws that gives the same hash, to the last byte. What it never does is guess: a replay that differs says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mpreg_transports.testing.invariants.known_gaps import SETTLED_AFTER
from mpreg_transports.testing.simulation.chooser import Chooser, Seeded, Tape
from mpreg_transports.testing.simulation.determinism import forbid_nondeterminism
from mpreg_transports.testing.simulation.durations import SECOND
from mpreg_transports.testing.simulation.engine import SWEEP
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.specs import restored
from mpreg_transports.testing.simulation.trace import Action, Header, load
from mpreg_transports.testing.simulation.watchers import Violation, Watcher

SETTLING = 65.0
"""Simulated seconds without faults after which liveness is looked at: longer than any request may last."""
Watchers = Callable[[], Iterable[Watcher]]
Progress = Callable[[float], None]
"""Told how many simulated seconds are over."""


class ReplayMismatch(Exception):
    """A replay came to something else than the run that was saved: another version, or a function with a state of its
    own.
    """


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run by time: who takes part, what is done, how long, and that it settles then."""

    seed: int
    nodes: Mapping[str, Spec]
    script: Sequence[Action]
    seconds: float
    settling: float = SETTLING
    scenario: str = ""
    options: dict[str, Any] = {}
    objects: bool = False


class CaseResult(msgspec.Struct, frozen=True):
    """A case that has been run: the simulation at its end, and what ended it early."""

    sim: Simulation
    error: Exception | None

    @property
    def invariant(self) -> int | None:
        """The number of the invariant that does not hold, 0 for an exception, None if all is well."""
        if self.error is None:
            return None
        return self.error.invariant if isinstance(self.error, Violation) else 0


def run_case(
    case: Case,
    *,
    watchers: Watchers | None = None,
    recording: bool = False,
    progress: Progress | None = None,
    sweep_every: int = SWEEP,
) -> CaseResult:
    """Run it and settle. What is raised on the way, by an invariant or by the core, is in the answer.

    `sweep_every`: events between two looks at the whole state, which change nothing of the run.
    """
    sim = Simulation(
        seed=case.seed,
        nodes=case.nodes,
        objects=case.objects,
        watchers=(watchers or standard_watchers)(),
        recording=recording,
    )
    sim.scenario, sim.options = case.scenario, dict(case.options)
    sim.set_sweep_interval(sweep_every)
    try:
        sim.play(case.script)
        _run(sim, case.seconds, 0.0, progress)
        sim.calm()
        soon = min(case.settling, SETTLED_AFTER / SECOND)
        _run(sim, soon, case.seconds, progress)
        sim.judge()  # one view, as soon as that is promised, before what is done now and then has mended it
        _run(sim, case.settling - soon, case.seconds + soon, progress)
        sim.judge()
    except Exception as error:  # whatever the core or a watcher raises is what we look for
        sim.violation = describe_error(error)
        return CaseResult(sim, error)
    return CaseResult(sim, None)


def describe_error(error: Exception) -> str:
    """A violation as it says itself, any other exception with its type."""
    return str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"


def standard_watchers() -> list[Watcher]:
    """All invariants, and what counts situations (coverage.py)."""
    from mpreg_transports.testing.invariants.all import invariants
    from mpreg_transports.testing.runs.coverage import Coverage

    return [*invariants(), Coverage()]


def saved_case(file: str | Path, *, nodes: Mapping[str, Spec] | None = None) -> Case:
    """A saved run by time, to be cut and shrunk. Raises ValueError for what is no saved run."""
    header, actions, _ = load(file)
    ends = [action.at for action in actions if action.name == "calm"]
    seconds = (ends[0] if ends else header.at) / SECOND
    return Case(
        seed=header.seed,
        nodes=nodes if nodes is not None else restored(header.nodes),
        script=[action for action in actions if action.name not in ("calm", "judge")],
        seconds=seconds,
        scenario=header.scenario,
        options=header.options,
        objects=header.objects,
    )


class Replay:
    """A saved run done again, step by step. `sim` is the simulation so far."""

    def __init__(
        self,
        file: str | Path,
        *,
        nodes: Mapping[str, Spec] | None = None,
        watchers: Iterable[Watcher] | None = None,
        recording: bool = True,
    ) -> None:
        """`watchers` are the standard ones if they watched the run that was saved, unless others are given in.

        Raises ValueError for a file that is no saved run or whose functions cannot be imported, OSError.
        """
        self.header, actions, _ = load(file)
        self._actions = deque(actions)
        header = self.header
        if watchers is None:
            watchers = standard_watchers() if header.invariants else ()
        self.sim = Simulation(
            seed=header.seed,
            nodes=nodes if nodes is not None else restored(header.nodes),
            chooser=Chooser(Seeded(header.seed) if header.tape is None else Tape(header.tape)),
            objects=header.objects,
            watchers=watchers,
            recording=recording,
        )
        self.sim.scenario, self.sim.options = header.scenario, header.options

    @property
    def over(self) -> bool:
        """Whether all that was saved has been done."""
        return not self._actions and self.sim.steps >= self.header.steps

    def step(self) -> None:
        """Do what was done next: an action, or the simulation's next step. Raises ReplayMismatch if there is none."""
        sim = self.sim
        with forbid_nondeterminism():
            if self._actions and self._actions[0].step <= sim.steps:
                action = self._actions.popleft()
                sim.now = max(sim.now, action.at)
                sim.perform(action.name, action.args)
            elif sim.next_at() is None:
                raise ReplayMismatch(f"nothing happens any more after step {sim.steps} of {self.header.steps}")
            else:
                sim.step()

    def finish(self, *, until: int | None = None) -> Simulation:
        """Go on to the end, or to event number `until`. Raises ReplayMismatch if the end is another one."""
        sim = self.sim
        while not self.over and (until is None or sim.trace.events < until):
            self.step()
        if self.over:
            sim.now = max(sim.now, self.header.at)
            if sim.trace.hash != self.header.hash:
                raise ReplayMismatch(difference(self.header, sim))
        return sim


def replay(
    file: str | Path, *, nodes: Mapping[str, Spec] | None = None, watchers: Iterable[Watcher] | None = None
) -> Simulation:
    """Do a saved run again, to its end and to the same hash; raises `ReplayMismatch` if it differs.

    `nodes` is needed if functions of theirs cannot be imported. A violation that it ended with is raised again.
    """
    return Replay(file, nodes=nodes, watchers=watchers).finish()


def difference(header: Header, sim: Simulation) -> str:
    """In words, how a replay's end differs from the one that was saved."""
    from mpreg_transports.testing.simulation.specs import versions

    here = versions()
    other = [f"{name} {old} then, {here.get(name)} now" for name, old in header.versions.items() if here[name] != old]
    why = "; ".join(other) or "same versions: a function must have a state of its own, or draws on something unseen"
    return (
        f"the replay ends with hash {sim.trace.hash} after {sim.trace.events} events, "
        f"the saved run with {header.hash} after {header.events} ({why})"
    )


def _run(sim: Simulation, seconds: float, before: float, progress: Progress | None) -> None:
    """In one go, or second by second if somebody wants to see it pass."""
    if progress is None:
        sim.run(seconds)
        return
    done = 0.0
    while done < seconds:
        piece = min(1.0, seconds - done)
        sim.run(piece)
        done += piece
        progress(before + done)
