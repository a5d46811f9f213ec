"""Past failures that the simulator found or could have found; they run before any new search.

Two kinds, both run by tests/scenarios/test_corpus.py with all invariants on:

- `scenarios.py`: a short function for each defect, which describes it and asserts the right behaviour. A function stays
  valid when changes make a seed useless, so each defect that is worth keeping becomes one.
- `*.jsonl`: runs saved by `sim.save` (or `mpreg simulate --trace`), whose script is repeated by time. The file holds
  all that they need: scenarios of the command line, or functions that can be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.simulations_corpus import scenarios

SAVED = Path(__file__).parent


def past_scenarios() -> dict[str, Callable[[], None]]:
    """Return the functions of scenarios.py, by name, in their order in the file."""
    own = vars(scenarios).items()
    return {
        name: found
        for name, found in own
        if not name.startswith("_") and callable(found) and getattr(found, "__module__", "") == scenarios.__name__
    }


def saved_runs() -> list[Path]:
    """Return the saved runs, by name."""
    return sorted(SAVED.glob("*.jsonl"))
