"""One run of a simulated test with one seed, and the comparison of two such runs.

This module uses only the outcomes of pytest: a test that skips, or is expected to fail, has not failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pytest

from mpreg_transports.testing.faults.swarm import Swarm
from mpreg_transports.testing.runs.failures import describe_event
from mpreg_transports.testing.simulation.determinism import DeterminismError
from mpreg_transports.testing.simulation.hosts import Host, Spec, World
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.watchers import Watcher


@dataclass(frozen=True)
class Trial:
    """The result of a run. `error` is the error that ended it, or None if it passed."""

    sim: Simulation
    error: BaseException | None


@dataclass(frozen=True)
class Trials:
    """A factory for the simulations of one test: the arguments of `@simulate`."""

    nodes: Mapping[str, Spec] | Callable[[], Mapping[str, Spec]]
    faults: Swarm | None
    invariants: bool
    objects: bool
    watchers: Callable[[], Iterable[Watcher]]

    def run(
        self, test: Callable[..., None], seed: int, *, recording: bool = False, also: tuple[Watcher, ...] = ()
    ) -> Trial:
        """Run the test with this seed; with `recording` all events are kept. An error is in the trial."""
        sim = Simulation(
            seed=seed,
            nodes=self.nodes() if callable(self.nodes) else self.nodes,
            faults=self.faults,
            objects=self.objects,
            watchers=[*(standard() if self.invariants else ()), *self.watchers(), *also],
            recording=recording,
        )
        try:
            test(sim=sim)
            sim.sweep()
        except pytest.xfail.Exception:
            raise
        except (Exception, pytest.fail.Exception) as error:
            return Trial(sim, error)
        return Trial(sim, None)

    def difference(self, test: Callable[..., None], first: Trial, second: Trial) -> DeterminismError | None:
        """Return the error to raise if two runs with the same seed differ, else None.

        May run the test twice more.
        """
        seed = first.sim.seed
        if first.sim.trace.hash == second.sim.trace.hash:
            if type(first.error) is type(second.error):
                return None
            return DeterminismError(
                f"seed {seed} was simulated twice to the same trace, but the test ended once with "
                f"{_shown(first.error)} and once with {_shown(second.error)}: it looks at what is not simulated"
            )
        one, other = EventHashes(), EventHashes()
        self.run(test, seed, recording=True, also=(one,))
        self.run(test, seed, recording=True, also=(other,))
        return DeterminismError(
            f"seed {seed} gives another run each time (hashes {first.sim.trace.hash[:12]} after "
            f"{first.sim.trace.events} events, {second.sim.trace.hash[:12]} after {second.sim.trace.events}): "
            + one.first_difference(other)
        )


class EventHashes(Watcher):
    """A watcher that records the rolling hash after each handled event of a host, to find the first difference."""

    def __init__(self) -> None:
        self._sim: World | None = None
        self._steps: list[tuple[str, int]] = []

    def begin(self, sim: World) -> None:
        self._sim = sim

    def event_handled(self, host: Host) -> None:
        assert self._sim is not None, "a simulation begins before anything happens"
        self._steps.append((self._sim.trace.hash, self._sim.trace.events))

    def first_difference(self, other: EventHashes) -> str:
        """Return a text that describes the first event that differs between the two runs."""
        for (mine, events), (theirs, _) in zip(self._steps, other._steps, strict=False):
            if mine != theirs:
                return f"the first event that differs is {self._describe(events)}"
        if len(self._steps) != len(other._steps):
            return "the test ends at another moment"
        return (
            "later runs are alike, so something outlives a run: a cache, a counter, a list of the module. "
            "Make it in the function that `nodes=` names"
        )

    def _describe(self, events: int) -> str:
        assert self._sim is not None, "a simulation begins before anything happens"
        recorded = list(self._sim.trace.recorded)
        if not 0 < events <= len(recorded):
            return f"number {events}"
        ended = [event for event in recorded[: events - 1] if event.kind == "end"]
        last = f"; the last function that had ended was {ended[-1].text} at {ended[-1].host}" if ended else ""
        return f"number {events}, {describe_event(recorded[events - 1]).strip()}{last}"


def standard() -> tuple[Watcher, ...]:
    """Return watchers for the invariants that hold in every cluster."""
    from mpreg_transports.testing.runs.replay import standard_watchers

    return tuple(standard_watchers())


def _shown(error: BaseException | None) -> str:
    return "no error" if error is None else f"{type(error).__name__}: {error}".split("\n", 1)[0]
