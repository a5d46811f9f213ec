"""Past failures that the simulator found, or could have found: each runs before anything new is searched for.

Two kinds, both run by tests/scenarios/test_corpus.py with all invariants on:

- `scenarios.py`: a short function for each defect, which says what went wrong and asserts what must be. These live on
  when a seed would have died, so what is worth keeping becomes one.
- `*.jsonl`: runs saved by `sim.save` (or `mpreg simulate --trace`), whose script is done again by time. What they need
  is in the file: scenarios of the command line, or functions that can be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.simulations_corpus import scenarios

SAVED = Path(__file__).parent


def past_scenarios() -> dict[str, Callable[[], None]]:
    """The functions of scenarios.py, by name, in the order in which they stand there."""
    own = vars(scenarios).items()
    return {
        name: found
        for name, found in own
        if not name.startswith("_") and callable(found) and getattr(found, "__module__", "") == scenarios.__name__
    }


def saved_runs() -> list[Path]:
    """The saved runs, by name."""
    return sorted(SAVED.glob("*.jsonl"))
