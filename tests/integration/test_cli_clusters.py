"""`mpreg dev` and `mpreg demo`: clusters of child processes, of which none outlives its command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.test_cli import MPREG, PATIENCE, Running, environment, mpreg, ran

APP = """
import os
from mpreg_transports import Server

server = Server(name="mine", port=1, peers=["ws://127.0.0.1:1"])

@server.function
def answer():
    return 41

server.register("pid", os.getpid)
"""
DEMO_REQUESTS = {
    "one call": {"first": "hi there!"},
    "a result as argument": {"second": "hi there!"},
    "two leaves": {"|second": "hi there!", "|third": ["hi there!", "AND ME TOO"]},
    "three calls, one leaf": {"|third": ["hi there!", "hi there!", "AND ME TOO"]},
    "four calls, one leaf": {"|4th": ["hi there!", "hi there!", "AND ME TOO"]},
}


def lives(pid: int) -> bool:
    """Return whether a process runs. A zombie that its absent parent has not reaped counts as ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def listed(demo: Running) -> list[int]:
    """Return the processes in the table that a demo prints first: when the table is complete, all three run."""
    assert demo.process.stdout is not None
    pids = []
    for line in demo.process.stdout:
        if found := re.match(r"(?:balancer|shelf-[ab]) +(\d+) +ws://", line):
            pids.append(int(found[1]))
        if len(pids) == 3:
            return pids
    raise AssertionError("the demo ended before its nodes ran")


def wait_until_gone(pids: list[int]) -> None:
    """Wait until none of the processes runs. Only a parent is notified of their end, and their parent is dead."""
    until = time.monotonic() + PATIENCE
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.02)


def test_demo_shows_the_main_job_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "mpreg.toml").write_text('host = "0.0.0.0"\nport = 1\n', "utf-8")  # the demo ignores this file
    done = mpreg("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [(node["name"], node["resources"]) for node in shown["nodes"]] == [
        ("balancer", []),
        ("shelf-a", ["stdlib-a"]),
        ("shelf-b", ["stdlib-b"]),
    ]
    *requests, pipeline = shown["requests"]
    assert {request["title"]: request["r"] for request in requests} == DEMO_REQUESTS
    where = {row["name"]: row["node"].partition("#")[0] for row in pipeline["trace"]}
    assert where.pop("report") == "balancer"
    assert len(where) == 10
    assert all(node == f"shelf-{re.split('-', name)[1][0]}" for name, node in where.items())
    report = pipeline["r"]["report"]
    assert report["files"] > 400 and report["lines"] > 100_000 and report["longest"]["lines"] > 100
    assert sum(shelf["lines"] for shelf in report["shelves"]) == report["lines"]
    assert not any(lives(node["pid"]) for node in shown["nodes"])


def test_demo_keep_draws_in_80_columns_until_ctrl_c(tmp_path: Path) -> None:
    with Running("demo", "--keep", cwd=tmp_path) as demo:
        pids = listed(demo)
        own = demo.said(r"running until Ctrl-C. Try:  mpreg functions --url (\S+)")[1]
        code, text = ran(mpreg("nodes", "--json", url=own, cwd=tmp_path))
        assert code == 0 and len(json.loads(text)) == 3
        code, out, _ = demo.end(signal.SIGINT)
    assert code == 0
    assert not any(lives(pid) for pid in pids)
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "\x1b" not in out
    for part in ("four calls, one leaf", "where and when each call ran", "measure-b3  shelf-b", "━", "longest"):
        assert part in out
    assert len(re.findall(r"^(?:balancer|shelf-a|shelf-b) +ws://127\.0\.0\.1:\d+$", out, re.MULTILINE)) == 3


def test_demo_interrupted_or_killed_leaves_no_process(tmp_path: Path) -> None:
    with Running("demo", cwd=tmp_path) as asked, Running("demo", cwd=tmp_path) as killed:
        theirs = listed(asked)
        orphans = listed(killed)
        assert asked.end(signal.SIGTERM)[0] == 7
        assert not any(lives(pid) for pid in theirs)
        assert killed.end(signal.SIGKILL)[0] == -signal.SIGKILL
        wait_until_gone(orphans)


def test_dev_restarts_the_cluster_when_the_file_changes(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP, "utf-8")
    with Running("dev", "app.py:server", "--nodes", "2", "--reload", cwd=tmp_path) as dev:
        dev.said("ready; Ctrl-C ends it")
        assert dev.process.stdout is not None
        rows = [dev.process.stdout.readline().split() for _ in range(2)]
        assert [name for name, _ in rows] == ["node-1", "node-2"]
        code, text = ran(mpreg("call", "answer", url=rows[1][1], cwd=tmp_path))
        assert (code, text) == (0, "41\n")
        app.write_text("import nothing_of_the_kind\n", "utf-8")
        dev.said("node-1 did not start: .*No module named 'nothing_of_the_kind'.*; waiting for the next change")
        app.write_text(APP.replace("41", "42 "), "utf-8")
        dev.said("ready again")
        assert ran(mpreg("call", "answer", url=rows[1][1], cwd=tmp_path)) == (0, "42\n")
        pids = [int(ran(mpreg("call", "pid", url=where, cwd=tmp_path))[1]) for _, where in rows]
        code, _, _ = dev.end(signal.SIGINT)
    assert code == 0
    assert not any(lives(pid) for pid in pids)


@pytest.mark.parametrize("words", [("dev", "nope.py:server"), ("dev", "--reload"), ("dev", "--nodes", "0")])
def test_dev_reports_what_it_cannot_do(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*MPREG, *words], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
