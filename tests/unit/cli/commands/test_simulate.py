"""`mpreg simulate` and `mpreg replay`: their output, their files and their exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mpreg_transports.cli.app import build
from mpreg_transports.cli.errors import CommandFailed
from mpreg_transports.testing import Violation, Watcher
from mpreg_transports.testing.runs import replay
from mpreg_transports.testing.simulation.hosts import NodeHost


def mpreg(*words: str) -> Result:
    """Run a command. Errors that `main` would report are raised."""
    result = CliRunner().invoke(build(), list(words), env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(*words: str) -> tuple[int, dict[str, Any]]:
    result = mpreg(*words, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_simulate_json() -> None:
    code, tree = run_json("simulate", "--nodes", "3", "--seed", "4", "--scenario", "churn", "--seconds", "20")
    assert code == 0
    assert len(tree["trace_hash"]) == 32
    assert tree["events"] > 300
    assert tree["requests"]["sent"] == sum(count for name, count in tree["requests"].items() if name != "sent")
    assert tree["violations"] == []
    assert tree["options"]["rate"] == 4
    assert (
        run_json("simulate", "--nodes", "3", "--seed", "4", "--scenario", "churn", "--seconds", "20")[1]["trace_hash"]
        == (tree["trace_hash"])
    )


def test_simulate_summary_fits_80_columns() -> None:
    result = mpreg("simulate", "--scenario", "swarm", "--seed", "7", "--seconds", "10")
    assert result.exit_code == 0
    assert all(len(line.rstrip()) <= 80 for line in result.stdout.splitlines())
    for word in ("drawn", "requests", "latency", "events", "hash", "KNOWN GAPS", "every invariant holds"):
        assert word in result.stdout


def test_simulate_summary_explains_failed_requests() -> None:
    failing = mpreg("simulate", "--scenario", "swarm", "--seed", "7", "--seconds", "10").stdout
    assert "Such ends are part of the workload" in failing
    assert failing.rstrip().endswith("no violation: every invariant holds")
    assert "part of the workload" not in mpreg("simulate", "--nodes", "1", "--seconds", "0.1").stdout


def test_replay_of_a_trace_has_the_same_hash(tmp_path: Path) -> None:
    trace, plot = tmp_path / "run.jsonl", tmp_path / "run.svg"
    _, tree = run_json("simulate", "--seed", "2", "--seconds", "5", "--trace", str(trace), "--plot", str(plot))
    assert plot.read_text("utf-8").startswith("<svg ")
    code, again = run_json("replay", str(trace))
    assert code == 0
    assert again["same"] is True
    assert again["trace_hash"] == tree["trace_hash"]
    assert sorted(again["views"]) == ["n0", "n1", "n2", "n3", "n4"]
    assert f"the same hash: {tree['trace_hash']}" in mpreg("replay", str(trace)).stdout


def test_replay_shows_steps_and_stops_at_an_event(tmp_path: Path) -> None:
    trace, plot = tmp_path / "run.jsonl", tmp_path / "part.svg"
    mpreg("simulate", "--seed", "2", "--seconds", "5", "--trace", str(trace))
    result = mpreg("replay", str(trace), "--steps", "--stop-at", "25", "--node", "n1", "--plot", str(plot))
    lines = result.stdout.splitlines()
    assert any(line.startswith("       1     0.0") for line in lines)
    assert any(line.startswith("      25     0.0") for line in lines)
    assert not any(line.startswith("      27 ") for line in lines)
    assert "25 of " in result.stdout
    assert "n1#" in result.stdout.partition("25 of ")[2]
    assert "n2#" not in result.stdout.partition("25 of ")[2].partition("alive")[0]
    assert plot.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("simulate", "--scenario", "storm"), "there is no scenario 'storm'"),
        (("simulate", "--nodes", "0"), "--nodes must be a whole number from 1 to 2000, not '0'; write --nodes 5"),
        (
            ("simulate", "--seconds", "-1"),
            "--seconds must be more than 0 and at most 86400 seconds, not '-1'; write --seconds 60",
        ),
        (("simulate", "--trace", "/"), "--trace /: it is a folder; name a file in it, such as /run.jsonl"),
        (("simulate", "--trace", "/no/such/folder/x"), "there is no folder"),
        (("replay", "/no/such/file"), "cannot read /no/such/file: no such file"),
        (("replay", __file__), "is no run that was saved"),
        (("replay", __file__, "--stop-at", "0"), "--stop-at must be a whole number of at least 1, not '0'; write"),
        (("replay", __file__, "--since", "3"), "--since 3 is for --plot"),
        (
            ("replay", __file__, "--since", "nan", "--plot", "x.svg"),
            "--since must be at least 0 seconds, not 'nan'; write --since 10",
        ),
        (("replay", __file__, "--plot", "/no/such/folder/x"), "there is no folder"),
    ],
)
def test_errors_of_invalid_options(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(CommandFailed, match=text):
        mpreg(*words)


def test_plot_after_the_end_of_the_run_is_refused(tmp_path: Path) -> None:
    trace, plot = tmp_path / "run.jsonl", tmp_path / "run.svg"
    mpreg("simulate", "--nodes", "2", "--seconds", "1", "--trace", str(trace))
    with pytest.raises(CommandFailed, match="nothing was recorded between 300 s and 66 s"):
        mpreg("replay", str(trace), "--plot", str(plot), "--since", "300")
    assert not plot.exists()


class NoCrash(Watcher):
    """Fails at each crash."""

    def crashed(self, host: NodeHost) -> None:
        raise Violation(10, f"{host.name} has ended")


def test_violation_exits_with_1_and_shows_how_to_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "standard_watchers", lambda: [NoCrash()])
    trace = tmp_path / "run.jsonl"
    words = ("simulate", "--scenario", "rolling-restart", "--nodes", "3", "--seconds", "20", "--trace", str(trace))
    code, tree = run_json(*words)
    assert code == 1
    assert tree["violations"] == [{"invariant": 10, "text": "invariant 10: n0 has ended"}]
    result = mpreg(*words)
    assert result.exit_code == 1
    assert "no violation" not in result.stdout
    for part in (
        "VIOLATION: invariant 10: n0 has ended",
        "drawn",
        "versions",
        "What happened last:",
        "gets ",
        "How each node sees",
    ):
        assert part in result.stdout, part
    assert "mpreg simulate --nodes 3 --seed 0 --scenario rolling-restart" in " ".join(result.stdout.split())
    again = mpreg("replay", str(trace))
    assert again.exit_code == 1
    assert "invariant 10: n0 has ended" in again.stdout


def test_replay_with_another_hash_exits_with_9(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    mpreg("simulate", "--seed", "2", "--seconds", "3", "--trace", str(trace))
    trace.write_text(trace.read_text("utf-8").replace('"seed":2,', '"seed":3,', 1), "utf-8")
    with pytest.raises(CommandFailed, match=r"the replay ends with hash|nothing happens any more") as caught:
        mpreg("replay", str(trace))
    assert caught.value.code == 9
