"""Runs that can be repeated: a `Case` by time (a script that may be cut and shrunk), a `Replay` exactly.

A case states which action is performed at which time. A saved trace is more exact: it states the number of steps of the
simulation before each action. With the same draws that gives the same hash, to the last byte. A replay that differs
reports it, and never guesses.
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
from mpreg_transports.testing.simulation.watchers import Violation, Watcher, names_of

SETTLING = 65.0
"""Simulated seconds without faults after which liveness is checked: longer than any request may last."""
AFTER_LATER = 30.0
"""Simulated seconds after the last of the later faults: a link without a word ends, and the views are one again."""
Watchers = Callable[[], Iterable[Watcher]]
Progress = Callable[[float], None]
"""A callback that receives the number of simulated seconds that are over."""


class ReplayMismatch(Exception):
    """A replay ended differently from the saved run.

    The reason is another version, or a function with a state of its own.
    """


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run by time: its nodes, its script, its length, and the time to settle after it."""

    seed: int
    nodes: Mapping[str, Spec]
    script: Sequence[Action]
    seconds: float
    settling: float = SETTLING
    scenario: str = ""
    options: dict[str, Any] = {}
    objects: bool = False
    later: Sequence[Action] = ()
    """Faults, one at a time, in the cluster that has settled, and requests around them; after the rest."""


class CaseResult(msgspec.Struct, frozen=True):
    """The result of a case: the simulation at its end, and the error that ended it early."""

    sim: Simulation
    error: Exception | None

    @property
    def invariant(self) -> int | None:
        """The number of the invariant that does not hold, 0 for another exception, None without an error."""
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
    """Run a case and let it settle. An error of an invariant or of the core is in the result.

    `sweep_every` is the number of events between two sweeps over the whole state; sweeps change nothing in the run.
    """
    sim = Simulation(
        seed=case.seed,
        nodes=case.nodes,
        objects=case.objects,
        watchers=(watchers or standard_watchers)(),
        recording=recording,
    )
    sim._scenario, sim.options = case.scenario, dict(case.options)
    sim._engine.set_sweep_interval(sweep_every)
    try:
        sim._play(case.script)
        _run(sim, case.seconds, 0.0, progress)
        sim.calm()
        soon = min(case.settling, SETTLED_AFTER / SECOND)
        _run(sim, soon, case.seconds, progress)
        sim.judge()  # check the view as soon as it is promised, before periodic repair can hide a defect
        _run(sim, case.settling - soon, case.seconds + soon, progress)
        sim.judge()
        if case.later:
            sim._play(case.later, later=True)
            before = case.seconds + case.settling
            _run(sim, max(0.0, case.later[-1].at / SECOND - before) + AFTER_LATER, before, progress)
            sim.judge()
    except Exception as error:  # an error of the core or of a watcher is what a run searches for
        sim.violation = describe_error(error)
        return CaseResult(sim, error)
    return CaseResult(sim, None)


def describe_error(error: Exception) -> str:
    """Return the text of a violation, or the type and text of any other exception."""
    return str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"


def standard_watchers() -> list[Watcher]:
    """Return watchers for all invariants, and the one that counts situations (coverage.py)."""
    from mpreg_transports.testing.invariants.all import invariants
    from mpreg_transports.testing.runs.coverage import Coverage

    return [*invariants(), Coverage()]


def saved_case(file: str | Path, *, nodes: Mapping[str, Spec] | None = None) -> Case:
    """Return a saved run as a case, which may be cut and shrunk. Raises ValueError for an invalid file."""
    header, actions, _ = load(file)
    ends = [action.at for action in actions if action.name == "calm"]
    end = ends[0] if ends else header.at
    settling = header.options.get("settling", SETTLING)
    settled = end + round(settling * SECOND)
    return Case(
        seed=header.seed,
        nodes=nodes if nodes is not None else restored(header.nodes),
        script=[action for action in actions if action.name not in ("calm", "judge") and action.at <= settled],
        later=[action for action in actions if action.name != "judge" and action.at > settled],
        seconds=end / SECOND,
        settling=settling,
        scenario=header.scenario,
        options=header.options,
        objects=header.objects,
    )


class Replay:
    """The step-by-step replay of a saved run. `sim` is the simulation so far."""

    def __init__(
        self,
        file: str | Path,
        *,
        nodes: Mapping[str, Spec] | None = None,
        watchers: Iterable[Watcher] | None = None,
        recording: bool = True,
    ) -> None:
        """Load a saved run. By default `watchers` are the standard ones if they checked the saved run.

        Raises ValueError for a file that is no saved run or whose functions cannot be imported, OSError.
        """
        self.header: Header
        self.header, actions, _ = load(file)
        self._actions = deque(actions)
        header = self.header
        if watchers is None:
            watchers = standard_watchers() if header.invariants else ()
        self.sim: Simulation = Simulation(
            seed=header.seed,
            nodes=nodes if nodes is not None else restored(header.nodes),
            chooser=Chooser(Seeded(header.seed) if header.tape is None else Tape(header.tape)),
            objects=header.objects,
            watchers=watchers,
            recording=recording,
        )
        self.sim._scenario, self.sim.options = header.scenario, header.options

    @property
    def over(self) -> bool:
        """True if all saved steps and actions have been performed."""
        return not self._actions and self.sim._engine.steps >= self.header.steps

    def step(self) -> None:
        """Perform the next action or the next step of the simulation.

        Raises ReplayMismatch if there is none.
        """
        engine = self.sim._engine
        with forbid_nondeterminism():
            if self._actions and self._actions[0].step <= engine.steps:
                action = self._actions.popleft()
                engine.now = max(engine.now, action.at)
                self.sim._perform(action.name, action.args)
            elif engine.next_at() is None:
                raise ReplayMismatch(f"nothing happens any more after step {engine.steps} of {self.header.steps}")
            else:
                engine.step()

    def finish(self, *, until: int | None = None) -> Simulation:
        """Continue to the end, or to event number `until`. Raises ReplayMismatch if the end differs.

        It also differs if a saved violation does not occur: the error names the watchers that this replay lacks.
        """
        sim = self.sim
        while not self.over and (until is None or sim.trace.events < until):
            self.step()
        if self.over:
            sim._engine.now = max(sim.now, self.header.at)
            if sim.trace.hash != self.header.hash:
                raise ReplayMismatch(difference(self.header, sim))
            if self.header.violation and not sim.violation:
                raise ReplayMismatch(self._without_violation())
        return sim

    def _without_violation(self) -> str:
        """Return the text for a run that ended with the same hash, but without the violation."""
        missing = set(self.header.watchers).difference(names_of(self.sim._engine.observers.watchers))
        text = f"the same run, but nothing raised the saved violation ({self.header.violation})"
        if not missing:
            return f"{text}: a watcher must have changed"
        return f"{text}: this replay has no {', '.join(sorted(missing))}; pass replay(file, watchers=[...]) all of them"


def replay(
    file: str | Path, *, nodes: Mapping[str, Spec] | None = None, watchers: Iterable[Watcher] | None = None
) -> Simulation:
    """Replay a saved run to its end and to the same hash. Raises `ReplayMismatch` if it differs.

    `nodes` is needed if their functions cannot be imported. A violation at the end of the run is raised again.
    """
    return Replay(file, nodes=nodes, watchers=watchers).finish()


def difference(header: Header, sim: Simulation) -> str:
    """Return a text that describes how the end of a replay differs from the saved end."""
    from mpreg_transports.testing.simulation.specs import versions

    here = versions()
    other = [f"{name} {old} then, {here.get(name)} now" for name, old in header.versions.items() if here[name] != old]
    why = "; ".join(other) or "same versions: a function must have a state of its own, or draws on something unseen"
    return (
        f"the replay ends with hash {sim.trace.hash} after {sim.trace.events} events, "
        f"the saved run with {header.hash} after {header.events} ({why})"
    )


def _run(sim: Simulation, seconds: float, before: float, progress: Progress | None) -> None:
    """Run in one piece, or second by second if `progress` is given."""
    if progress is None:
        sim.run(seconds)
        return
    done = 0.0
    while done < seconds:
        piece = min(1.0, seconds - done)
        sim.run(piece)
        done += piece
        progress(before + done)
