"""Worker processes of `run_seeds`: they end with the process that started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.test_cli import PATIENCE, environment
from tests.integration.test_cli_clusters import wait_until_gone

PROGRAM = """
import multiprocessing, os
from mpreg_transports.testing.runs.runs import run_seeds

if __name__ == "__main__":
    reports = iter(run_seeds(range(1000), jobs=2, nodes=2, seconds=5))
    next(reports)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), 9)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "killed.py"
    file.write_text(PROGRAM, "utf-8")
    ran = subprocess.run(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=environment(),
    )
    workers = [int(pid) for pid in ran.stdout.split()]
    assert (len(workers), ran.returncode) == (2, -9)
    wait_until_gone(workers)
