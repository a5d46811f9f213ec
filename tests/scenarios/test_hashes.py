"""The same seed gives the same run: in a fresh interpreter, in any order of its sets, on every Python.

`hashes.json` holds the hashes of 20 seeds. Runs are compared with it, not with each other, so it also shows when a
change of the core or the simulator has changed a run. tests/simulations/hashes.py says how to write it again.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = Path(__file__).with_name("hashes.json")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("order", ["0", "1", "4242"])
def test_hashes_of_seeds(order: str) -> None:
    """Three PYTHONHASHSEEDs: a walk over a set of strings differs among them."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulations", "hashes"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": order},
        capture_output=True,
        text=True,
        check=True,
    )
    kept = json.loads(KEPT.read_text("utf-8"))
    assert len(kept) == 20
    assert len(set(kept.values())) == 20
    assert json.loads(ran.stdout) == kept
