"""A cluster of three simulated nodes runs while sockets, clocks, threads, event loops and entropy all raise.

The scenarios are in sealed_cluster.py, which runs in a child interpreter because pytest itself needs what is sealed.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def report(hash_seed: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.purity.sealed_cluster"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_three_sealed_nodes() -> None:
    assert report("0")["scenarios"] == ["graph", "json_client", "crash", "drain", "late"]


@pytest.mark.parametrize(
    "name",
    [
        "socket.socket",
        "ssl.SSLContext",
        "asyncio.run",
        "asyncio.events.get_running_loop",
        "threading.Lock",
        "threading.Thread",
        "time.monotonic",
        "time.monotonic_ns",
        "time.sleep",
        "os.urandom",
        "random.random",
        "random.randint",
        "random.SystemRandom",
    ],
)
def test_sealed_callables(name: str) -> None:
    assert name in report("0")["sealed"]


def test_digests_do_not_depend_on_the_interpreter() -> None:
    assert len(set(report("0")["digests"])) == len(report("0")["digests"])
    assert report("0")["digests"] == report("12345")["digests"]


def printed(code: str) -> str:
    """Return what `code` prints in a child interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_seal_raises_and_audit_hook_records() -> None:
    code = (
        "from tests.purity.sealed_cluster import Sealed, Watch, seal, time\n"
        "watch = Watch()\n"
        "with seal():\n"
        "    watch.on = True\n"
        "    open('README.md').close()\n"
        "    watch.on = False\n"
        "    try:\n        time.monotonic()\n"
        "    except Sealed as error:\n        print(error, *watch.seen)\n"
    )
    assert printed(code).startswith("time.monotonic open('README.md'")


def test_seal_raises_while_a_simulation_runs() -> None:
    code = (
        "from tests.purity.sealed_cluster import Sealed, Simulation, Spec, seal, time\n"
        "sim = Simulation(nodes={'alone': Spec()})\n"
        "sim.schedule(1, lambda: time.monotonic())\n"
        "with seal():\n"
        "    try:\n        sim.run(2)\n"
        "    except Sealed as error:\n        print(error)\n"
    )
    assert printed(code) == "time.monotonic\n"
