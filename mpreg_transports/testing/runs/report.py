"""The report of a simulated test that failed: seed, options, stories of requests, last events, views, the command.

The command runs the seed alone. failures.py does the same for runs of whole scenarios.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mpreg_transports.testing.runs.failures import current_story, last_events, stories, views
from mpreg_transports.testing.simulation.simulation import Simulation
from mpreg_transports.testing.simulation.specs import versions

SHOWN = 12
"""The number of events in a report; a saved trace contains all."""


def simulation_report(sim: Simulation, *, command: str = "", saved: Path | None = None) -> str:
    """Return the report, thirty lines or more: stories of requests, the last events, the view of each node.

    `command` runs the seed alone, or is empty. `saved` is the path of the trace, or None.
    """
    return "\n".join(_lines(sim, command, saved))


def _lines(sim: Simulation, command: str, saved: Path | None) -> Iterator[str]:
    yield f"simulated with seed {sim.seed}, {sim.time:.6f} s and {sim.trace.events} events long, hash {sim.trace.hash}"
    if sim.options:
        yield f"drawn: {', '.join(f'{name}={value}' for name, value in sim.options.items())}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in versions().items())}"
    if story := current_story(sim):
        yield "the request that was handled last:"
        yield from story
    if others := stories(sim):
        yield "what became of other calls:"
        yield from others
    yield "what happened last:"
    yield from last_events(sim, SHOWN)
    yield "how each node sees it:"
    yield from views(sim)
    if command:
        yield f"run it alone: {command}"
    if saved is not None:
        yield f"its script and all events: {saved} (mpreg replay, mpreg_transports.testing.replay)"
