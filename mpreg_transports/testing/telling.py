"""What is said of a simulated run that has failed: its seed, what was drawn, the last events, each node's view, and the
command that does it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_transports.testing.simulation import Simulation
    from mpreg_transports.testing.trace import Event

SHOWN = 12
"""Events that are shown; a saved trace has them all."""


def told(sim: Simulation, *, command: str, saved: Path | None) -> str:
    """Some twenty lines. `command` runs the seed alone; `saved` is where the trace is, if it could be saved."""
    return "\n".join(_lines(sim, command, saved))


def event_words(event: Event) -> str:
    """An event on one line: when, where, what."""
    source = f" from {event.other}" if event.other else ""
    text = " ".join(part for part in (event.kind, event.text, event.label) if part)
    return f"{event.at / 1e9:.6f} s  {event.host}: {text}{source}"


def _lines(sim: Simulation, command: str, saved: Path | None) -> Iterator[str]:
    from mpreg_transports.testing.specs import versions

    yield f"simulated with seed {sim.seed}, {sim.time:.3f} s and {sim.trace.events} events long"
    if sim.options:
        yield f"drawn: {', '.join(f'{name}={value}' for name, value in sim.options.items())}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in versions().items())}"
    yield f"hash: {sim.trace.hash}"
    yield "last events:"
    for event in list(sim.trace.recorded)[-SHOWN:]:
        yield f"  {event_words(event)}"
    yield "views:"
    for name, host in sim.nodes.items():
        if host.alive:
            rows = host.node.view(now=host.local).members
            seen = ", ".join(f"{row.name} {row.standing}" for row in rows if not row.me)
            yield f"  {name} sees {seen or 'nobody'}"
        else:
            yield f"  {name} is down"
    yield f"run it alone: {command}"
    if saved is not None:
        yield f"its script and all events: {saved} (mpreg replay, Simulation.replay)"
