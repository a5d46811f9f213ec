"""The command line as users run it: real processes, real output, real exit codes.

The system chooses the ports. The tests wait only for lines and for processes to end, and no process outlives its test.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mpreg_proto.view import NodeView
from mpreg_transports import SyncClient

PATIENCE = 60.0
"""Seconds until a test that hangs fails. No test waits this long otherwise."""
MPREG = [sys.executable, "-m", "mpreg_transports.cli"]
APP = '''
import pathlib, threading
from mpreg_transports import Server

server = Server(name="trainer", resources={"gpu"})
never = threading.Event()

@server.function(idempotent=True)
def train(rows, deep=False):
    """Train on rows."""
    return {"rows": rows, "deep": deep}

@server.function
def add(x, y):
    return x + y

@server.function
def fail(text):
    raise ValueError(text)

@server.function
def hold():
    never.wait()

@server.function
def hold_until(started, released):
    pathlib.Path(started).touch()
    with open(released) as pipe:
        return pipe.read()
'''


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without its mpreg settings; 80 columns, no colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MPREG_")}
    return {**kept, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **more}


class Running:
    """A command that keeps running; it ends with its test at the latest."""

    def __init__(
        self, *words: str, cwd: Path, env: dict[str, str] | None = None, command: Sequence[str] = MPREG
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *words],
            cwd=cwd,
            env=env or environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.unasked: list[str] = []

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def said(self, pattern: str) -> re.Match[str]:
        """Return the first line on stderr that contains `pattern` and was not returned before, in any order."""
        assert self.process.stderr is not None
        for line in self.unasked:
            if found := re.search(pattern, line):
                self.unasked.remove(line)
                return found
        for line in self.process.stderr:
            if found := re.search(pattern, line):
                return found
            self.unasked.append(line)
        raise AssertionError(f"no {pattern!r} in {self.unasked}")

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        """Send a signal; return the exit code and the rest of the output."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def wait_until(url: str, condition: Callable[[NodeView], bool]) -> None:
    """Wait until the view of a node fulfils a condition."""
    end = time.monotonic() + PATIENCE
    with SyncClient(url) as client:
        while not condition(client.view()):
            assert time.monotonic() < end


def waiting(view: NodeView) -> int:
    """Return the number of calls that a node has outstanding at others."""
    return sum(row.waiting for row in view.members if not row.me)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with `app.py`."""
    path = tmp_path_factory.mktemp("cli")
    (path / "app.py").write_text(APP, "utf-8")
    return path


@pytest.fixture(scope="module")
def url(here: Path) -> Iterator[str]:
    """A cluster of two: `trainer` offers the app's functions and holds `gpu`; tests connect to its peer `door`."""
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as trainer:
        there = trainer.said(r"node trainer is ready at (ws://127\.0\.0\.1:\d+)")[1]
        with Running("serve", "--name", "door", "--port", "0", "--peer", there, cwd=here) as door:
            own = door.said(r"node door is ready at (ws://127\.0\.0\.1:\d+)")[1]
            door.said("trainer is ALIVE")
            wait = '[{"name":"known","fun":"add","args":[1,2]}]'
            request = f'{{"role":"rpc","cmds":{wait},"wait":20}}'
            assert mpreg("run", "-", url=own, stdin=request, cwd=here).returncode == 0
            yield own


def mpreg(*words: str, cwd: Path, url: str = "ws://127.0.0.1:1", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*MPREG, *words],
        cwd=cwd,
        env=environment(MPREG_URL=url),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def ran(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and stdout of a command that wrote nothing to stderr."""
    assert done.stderr == ""
    return done.returncode, done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and the first line of stderr of a command that printed no data and no traceback."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[0]


# -- call, run, explain -----------------------------------------------------------------------------------------------


def test_call_prints_only_the_result(here: Path, url: str) -> None:
    assert ran(mpreg("call", "add", "-1", "2.5", url=url, cwd=here)) == (0, "1.5\n")
    assert ran(mpreg("call", "echo", "hi there!", url=url, cwd=here)) == (0, "hi there!\n")
    done = mpreg("call", "train", '{"a":[1]}', "--kw", "deep=true", "--resource", "gpu", "--json", url=url, cwd=here)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"rows": {"a": [1]}, "deep": True}


def test_each_failure_has_its_line_and_exit_code(here: Path, url: str) -> None:
    code, line = refused(mpreg("call", "fail", "no", url=url, cwd=here))
    assert code == 1
    assert re.fullmatch(r"mpreg: fail failed on trainer#[0-9a-f]{4}: ValueError: no", line)
    done = mpreg("call", "trian", "1", url=url, cwd=here)
    assert refused(done) == (4, "mpreg: no node offers 'trian'; did you mean 'train'?")
    assert "mpreg functions" in done.stderr
    assert refused(mpreg("call", "hold", "--timeout", "0.1", url=url, cwd=here))[0] == 5
    done = mpreg("call", "add", "1", "2", cwd=here)
    assert refused(done) == (3, "mpreg: cannot reach a node at ws://127.0.0.1:1: connection refused")
    assert "mpreg serve" in done.stderr and "--url" in done.stderr


def test_run_prints_leaves_and_draws_a_timeline(here: Path, url: str) -> None:
    cmds = [
        {"name": "sum", "fun": "add", "args": [1, 2]},
        {"name": "trained", "fun": "train", "args": ["sum"], "locs": ["gpu"]},
        {"name": "alone", "fun": "echo", "args": ["sum "]},
    ]
    (here / "request.json").write_text(json.dumps(cmds), "utf-8")
    leaves = {"trained": {"rows": 3, "deep": False}, "alone": "sum "}
    done = mpreg("run", "request.json", "--timeline", url=url, cwd=here)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert json.loads(lines[0]) == leaves
    assert all(len(line) <= 80 for line in lines)
    drawn = {line.split()[0]: line.split()[1] for line in lines[3:]}
    assert drawn["sum"] == drawn["trained"] == "trainer"
    assert drawn["alone"] in ("trainer", "door")
    code, text = ran(mpreg("run", "-", "--json", url=url, cwd=here, stdin=json.dumps({"role": "rpc", "cmds": cmds})))
    assert (code, json.loads(text)) == (0, leaves)


def test_partial_run_prints_results_and_the_cause(here: Path, url: str) -> None:
    cmds = [
        {"name": "a", "fun": "fail", "args": ["x"]},
        {"name": "b", "fun": "echo", "args": ["a"]},
        {"name": "c", "fun": "echo", "args": [1]},
    ]
    request = json.dumps({"role": "rpc", "cmds": cmds, "on_error": "partial"})
    done = mpreg("run", "-", url=url, cwd=here, stdin=request)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"c": 1})
    assert "ValueError: x" in done.stderr.splitlines()[0]


def test_bad_requests_are_wrong_usage(here: Path, url: str) -> None:
    cycle = '[{"name":"a","fun":"echo","args":["b"]},{"name":"b","fun":"echo","args":["a"]}]'
    assert refused(mpreg("run", "-", url=url, cwd=here, stdin=cycle))[0] == 2
    assert refused(mpreg("run", "-", url=url, cwd=here, stdin="{")) == (
        2,
        "mpreg: stdin: not JSON that can be read: Expecting property name enclosed in double quotes (at 1)",
    )


def test_explain_names_the_node_and_runs_nothing(here: Path, url: str) -> None:
    cmds = '[{"name":"a","fun":"fail","args":["x"]},{"name":"b","fun":"echo","args":["a"]}]'
    code, text = ran(mpreg("explain", "-", "--json", url=url, cwd=here, stdin=cmds))
    assert code == 0
    first, second = json.loads(text)
    assert [node.partition("#")[0] for node in first["nodes"]] == ["trainer"]
    assert sorted(node.partition("#")[0] for node in second["nodes"]) == ["door", "trainer"]
    assert first["why"] == "the only node that can"
    cmds = '[{"name":"a","fun":"nope"},{"name":"b","fun":"fail","args":["a"]}]'
    done = mpreg("explain", "-", url=url, cwd=here, stdin=cmds)
    assert done.returncode == 4
    assert "nowhere" in done.stdout and "no node offers 'nope'" in done.stdout and "trainer#" in done.stdout
    assert done.stderr.splitlines()[0] == "mpreg: 1 of 2 calls can run nowhere now: a"


def test_interrupted_call_is_reported(here: Path, url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "released")
    started = tmp_path / "started"
    words = ("call", "hold_until", str(started), str(tmp_path / "released"))
    with (
        Running(*words, cwd=here, env=environment(MPREG_URL=url)) as call,
        open(tmp_path / "released", "w"),  # open() returns when the function opens its end: it runs
    ):
        code, out, err = call.end(signal.SIGINT)
    assert (code, out) == (7, "")
    first, second = err.splitlines()
    assert first == "mpreg: interrupted; the request was cancelled"
    assert re.fullmatch(r"  may have started: hold_until on trainer#[0-9a-f]{4}", second)


def test_interrupted_run_lists_each_call_that_started(here: Path, url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "released")
    held = {"name": "held", "fun": "hold_until", "args": [str(tmp_path / "started"), str(tmp_path / "released")]}
    calls = [{"name": "rows", "fun": "train", "args": [1]}, held, {"name": "next", "fun": "add", "args": ["held", 1]}]
    request = tmp_path / "request.json"
    request.write_text(json.dumps(calls))
    with SyncClient(url) as client:
        before = waiting(client.view())  # threads of other tests that go on
    with (
        Running("run", str(request), cwd=here, env=environment(MPREG_URL=url)) as run,
        open(tmp_path / "released", "w"),
    ):
        wait_until(url, lambda view: waiting(view) == before + 1)  # rows has ended
        code, out, err = run.end(signal.SIGINT)
    assert (code, out) == (7, "")
    lines = [re.sub("#[0-9a-f]{4}", "", line) for line in err.splitlines()]
    assert lines == [
        "mpreg: interrupted; the request was cancelled",
        "  had ended:        train on trainer (call rows)",
        "  may have started: hold_until on trainer (call held)",
    ]


def test_interrupted_call_of_which_nothing_had_started(here: Path, url: str, tmp_path: Path) -> None:
    request = {"role": "rpc", "cmds": [{"name": "x", "fun": "offered_later"}], "wait": 60}
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    with Running("run", str(file), cwd=here, env=environment(MPREG_URL=url)) as run:
        wait_until(url, lambda view: view.requests == 1)
        code, out, err = run.end(signal.SIGINT)
    assert (code, out) == (7, "")
    assert err == "mpreg: interrupted; the request was cancelled\n  nothing had started\n"


# -- drain ------------------------------------------------------------------------------------------------------------


def test_drain_lets_another_node_leave(here: Path) -> None:
    with Running("serve", "--name", "door", "--port", "0", cwd=here) as door:
        own = door.said(r"ready at (\S+)")[1]
        with Running("serve", "app.py:server", "--port", "0", "--peer", own, cwd=here) as node:
            node.said(r"ready at (\S+)")
            door.said("trainer.* is ALIVE")
            done = mpreg("drain", "trainer", "--json", "--timeout", "30", url=own, cwd=here)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["node"].startswith("trainer#")
            assert re.sub("#[0-9a-f]{4}", "", done.stderr).splitlines()[-1] == "mpreg: trainer has left"
            assert node.process.wait(PATIENCE) == 0
            node.said("leaving: door has drained this node")
        again = mpreg("drain", "trainer", url=own, cwd=here)
        assert (again.returncode, again.stdout) == (0, "") and "has left" in again.stderr


def test_drain_of_the_node_that_is_asked(here: Path) -> None:
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as node:
        own = node.said(r"ready at (\S+)")[1]
        done = mpreg("drain", own, url=own, cwd=here)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert re.sub("#[0-9a-f]{4}", "", done.stderr).splitlines()[-1] == "mpreg: trainer has left"
        assert node.process.wait(PATIENCE) == 0


def test_drain_waits_for_running_calls_within_its_timeout(here: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "released")
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as node:
        own = node.said(r"ready at (\S+)")[1]
        words = ("call", "hold_until", str(tmp_path / "started"), str(tmp_path / "released"))
        with Running(*words, cwd=here, env=environment(MPREG_URL=own)) as call:
            with open(tmp_path / "released", "w") as pipe:
                done = mpreg("drain", "trainer", "--timeout", "0.5", url=own, cwd=here)
                assert (done.returncode, done.stdout) == (5, "")
                assert "has not left within 0.5 s: it takes no new calls" in done.stderr
                pipe.write("finished")
            out, _ = call.process.communicate(timeout=PATIENCE)
            assert (call.process.returncode, out) == (0, "finished\n")
        assert node.process.wait(PATIENCE) == 0


def test_drain_of_a_node_that_is_not_there(here: Path, url: str) -> None:
    for node in ("nobody", "ws://10.1.2.3"):
        code, text = refused(mpreg("drain", node, url=url, cwd=here))
        assert code == 2 and node in text
    assert refused(mpreg("drain", "ws://", url=url, cwd=here))[0] == 2
    assert refused(mpreg("drain", "trainer", url="ws://127.0.0.1:1", cwd=here))[0] == 3


# -- nodes, functions, check ------------------------------------------------------------------------------------------


def test_nodes_and_functions_list_the_cluster(here: Path, url: str) -> None:
    code, text = ran(mpreg("nodes", "--json", url=url, cwd=here))
    assert code == 0
    assert {row["name"]: (row["standing"], row["resources"], row["me"]) for row in json.loads(text)} == {
        "door": ("alive", [], True),
        "trainer": ("alive", ["gpu"], False),
    }
    code, text = ran(mpreg("functions", url=url, cwd=here))
    assert code == 0
    assert "train(rows, deep=False)" in text and "Train on rows." in text and "WAITING" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    code, text = ran(mpreg("functions", "--json", url=url, cwd=here))
    assert code == 0 and {row["waiting"] for row in json.loads(text)} == {0}


def test_check_reports_the_state_of_a_node(here: Path, url: str) -> None:
    code, text = ran(mpreg("check", url, "--json", cwd=here))
    found = json.loads(text)
    assert (code, found["protocol"], found["synced"], found["members"]) == (0, 1, True, {"alive": 2})
    assert found["node"].startswith("door#") and 0 < found["rtt"] < found["reached"] * 1000
    assert json.loads(mpreg("check", "--url", url, "--json", cwd=here).stdout)["node"] == found["node"]
    assert refused(mpreg("check", url, "--url", url, cwd=here))[0] == 2
    assert refused(mpreg("check", "ws://127.0.0.1:1", cwd=here))[0] == 3
    assert refused(mpreg("check", "127.0.0.1:1", cwd=here))[0] == 2


# -- serve ------------------------------------------------------------------------------------------------------------


def test_sigterm_lets_running_calls_finish_and_exits_0(here: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "released")
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as node:
        own = node.said(r"ready at (\S+)")[1]
        words = ("call", "hold_until", str(tmp_path / "started"), str(tmp_path / "released"))
        with Running(*words, cwd=here, env=environment(MPREG_URL=own)) as call:
            with open(tmp_path / "released", "w") as pipe:
                node.process.send_signal(signal.SIGTERM)
                node.said(
                    "SIGTERM: leaving the cluster, running calls have 10 s to finish, a second signal ends them at once"
                )
                pipe.write("finished")
            out, _ = call.process.communicate(timeout=PATIENCE)
            assert (call.process.returncode, out) == (0, "finished\n")
        assert node.process.wait(PATIENCE) == 0


def test_second_signal_ends_a_call_that_never_returns(here: Path) -> None:
    with Running("serve", "app.py:server", "--port", "0", cwd=here) as node:
        own = node.said(r"ready at (\S+)")[1]
        assert refused(mpreg("call", "hold", "--timeout", "0.2", url=own, cwd=here))[0] == 5  # its thread continues
        node.process.send_signal(signal.SIGINT)
        node.said("SIGINT")
        assert node.end(signal.SIGINT)[0] == 0


def test_serve_reports_what_it_cannot_do(here: Path, url: str) -> None:
    port = url.rpartition(":")[2]
    assert refused(mpreg("serve", "--port", port, cwd=here)) == (
        9,
        f"mpreg: cannot listen on 127.0.0.1:{port}: address already in use; "
        "choose another with --port, or 0 for any free one",
    )
    code, line = refused(mpreg("serve", "--host", "0.0.0.0", cwd=here))
    assert code == 2 and "--insecure" in line
    assert refused(mpreg("serve", "app:nope", cwd=here)) == (2, "mpreg: app has no 'nope'; Servers in it: server")


def test_program_that_runs_its_own_server_is_refused(tmp_path: Path) -> None:
    program = f"{APP}\nserver.port = 0\nserver.run()\n"
    (tmp_path / "program.py").write_text(program, "utf-8")
    code, line = refused(mpreg("serve", "program.py:server", cwd=tmp_path))
    assert code == 2
    assert 'write `if __name__ == "__main__":` above that line' in line
    assert line.endswith(f"(program.py, line {len(program.splitlines())})")
    with Running(cwd=tmp_path, command=[sys.executable, "program.py"]) as node:
        own = node.said(r"node trainer is ready at (\S+) \(7 functions, resources gpu\)")[1]
        assert refused(mpreg("call", "fail", "no", url=own, cwd=tmp_path))[0] == 1
        node.said("fail failed: ValueError: no")
        code, out, err = node.end(signal.SIGTERM)
    assert (code, out) == (0, "")
    assert "SIGTERM: leaving the cluster" in err


def test_loggers_of_the_served_program_are_unchanged(tmp_path: Path) -> None:
    program = (
        APP
        + """
import logging
logging.getLogger("mine").setLevel(logging.DEBUG)

@server.function
def loggers():
    logging.getLogger("mine").debug("of no interest")
    logging.getLogger("mine").warning("said by mine")
    root = logging.getLogger()
    return [logging.getLevelName(root.level), len(root.handlers), logging.getLogger("mine").level]
"""
    )
    (tmp_path / "app.py").write_text(program, "utf-8")
    setup = 'import logging\nlogging.basicConfig(level="INFO", format="MINE %(name)s %(message)s")\n'
    (tmp_path / "with_setup.py").write_text(setup + program, "utf-8")
    for target, level, handlers, said in (("app", "WARNING", 0, "^said"), ("with_setup", "INFO", 1, "^MINE mine said")):
        with Running("serve", f"{target}.py:server", "--port", "0", cwd=tmp_path) as node:
            own = node.said(r"ready at (\S+)")[1]
            assert json.loads(mpreg("call", "loggers", url=own, cwd=tmp_path).stdout) == [level, handlers, 10]
            node.said(f"{said} by mine")
            code, _, err = node.end(signal.SIGTERM)
        assert code == 0 and len(re.findall("SIGTERM: leaving", err)) == 1 and "of no interest" not in err


def test_unreachable_peer_is_reported_once(here: Path) -> None:
    with Running("serve", "--port", "0", "--peer", "ws://127.0.0.1:1", cwd=here) as node:
        own = node.said(r"ready at (\S+)")[1]
        node.said(r"ws://127\.0\.0\.1:1 does not answer; trying again until it does")
        assert ran(mpreg("call", "echo", "1", url=own, cwd=here)) == (0, "1\n")
        code, _, err = node.end(signal.SIGTERM)
    assert code == 0
    assert "does not answer" not in err


def test_precedence_of_flags_environment_file_and_server(here: Path, tmp_path: Path) -> None:
    (tmp_path / "mpreg.toml").write_text('port = 0\nname = "file"\nresource = ["file"]\n', "utf-8")
    env = environment(MPREG_NAME="environment", MPREG_RESOURCE="environment")
    words = ("serve", str(here / "app.py") + ":server", "--resource", "flag")
    with Running(*words, cwd=tmp_path, env=env) as node:
        assert node.said(r"node (\w+) is ready at \S+ \(\d+ functions, resources ([\w ,]+)\)").groups() == (
            "environment",
            "flag",
        )
    code, text = ran(mpreg("config", "--json", cwd=tmp_path))
    assert code == 0
    found = json.loads(text)
    assert found["name"] == {"value": "file", "from": "mpreg.toml"}
    assert found["url"] == {"value": "ws://127.0.0.1:1", "from": "MPREG_URL in the environment"}
    (tmp_path / "mpreg.toml").write_text("prot = 0\n", "utf-8")
    assert refused(mpreg("serve", cwd=tmp_path)) == (2, "mpreg: unknown key 'prot' in mpreg.toml; did you mean 'port'?")


def test_journal_is_written_and_replayed(here: Path) -> None:
    with Running("serve", "--port", "0", "--journal", "node.journal", cwd=here) as node:
        own = node.said(r"ready at (ws://127\.0\.0\.1:\d+)")[1]
        assert mpreg("call", "echo", "1", url=own, cwd=here).stdout == "1\n"
        assert node.end(signal.SIGTERM)[0] == 0
    again = mpreg("replay", "node.journal", "--json", cwd=here)
    assert again.returncode == 0
    assert json.loads(again.stdout)["same"] is True
    assert refused(mpreg("replay", "node.journal", "--plot", "a.svg", cwd=here))[0] == 2
    for journal, why in (
        ("app.py", "there is such a file already"),
        ("none/journal", "there is no folder none"),
        (".", "it is a folder"),
    ):
        code, line = refused(mpreg("serve", "--port", "0", "--journal", journal, cwd=here))
        assert code == 9 and line.startswith(f"mpreg: cannot write the journal {journal}: {why}")
    early = mpreg("replay", "node.journal", "--stop-at", "2", cwd=here)
    assert "2 inputs" in early.stdout and "sees node#" in early.stdout


def test_replay_of_functions_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price(article):\n    return len(article)\n", "utf-8")
    program = """
from mpreg_transports.testing import Simulation, Spec
from shop import price
sim = Simulation(seed=1, nodes={"a": Spec(), "b": Spec(functions={"price": price})})
sim.run(1)
call = sim.call("a", "price", "pen")
sim.run(until=call.done)
sim.trace.save("run.jsonl")
"""
    (tmp_path / "simulated.py").write_text(program, "utf-8")
    subprocess.run([sys.executable, "simulated.py"], cwd=tmp_path, env=environment(), check=True, timeout=PATIENCE)
    # The script's own directory is not on the path of a console script; `-P` gives `-m` the same path.
    again = subprocess.run(
        [sys.executable, "-P", *MPREG[1:], "replay", "run.jsonl", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["same"] is True
