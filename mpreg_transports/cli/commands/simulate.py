"""The command `mpreg simulate`: a cluster of the production core in virtual time, with workload, faults and invariants.

It opens no connection: all output is computed in this process. The same arguments give the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpreg_transports.cli.options import Json, example, refuse_unwritable, seconds_option, whole_number_option

if TYPE_CHECKING:
    from mpreg_transports.testing.runs.replay import Case, Progress
    from mpreg_transports.testing.runs.runs import RunReport
    from mpreg_transports.testing.simulation.simulation import Simulation

NAMES = (
    "swarm, drivers, steady, churn, partition, rolling-restart, overload, slow-node, flaky-links, pauses, slow-lines, "
    "meetings, long-calls or days"
)
_MOST_NODES = 2_000
_EXPECTED = (
    "Failed requests are part of the workload: it calls functions that raise or that no node offers, sets short "
    "deadlines, and cancels. Faults cause the others. The invariants check each outcome."
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "mpreg simulate --nodes 5 --seed 7 --scenario churn --plot churn.svg",
            "mpreg simulate --scenario swarm --seed 12 --trace run.jsonl && mpreg replay run.jsonl",
        )
    )(simulate)


def simulate(
    nodes: Annotated[
        int,
        whole_number_option(
            "--nodes",
            metavar="N",
            least=1,
            most=_MOST_NODES,
            example=5,
            help=f"The number of nodes, at most {_MOST_NODES}.",
        ),
    ] = 5,
    seed: Annotated[
        int,
        whole_number_option(
            "--seed",
            metavar="S",
            example=7,
            help="The seed of all random choices: the same seed gives the same run.",
        ),
    ] = 0,
    scenario: Annotated[
        str, typer.Option("--scenario", metavar="NAME", help=f"The kind of faults and work: {NAMES}.")
    ] = "steady",
    seconds: Annotated[
        float,
        seconds_option(
            "--seconds",
            metavar="T",
            most=86_400,
            example=60,
            help="Simulated seconds of work and faults. After them the faults end, and the cluster settles.",
        ),
    ] = 60.0,
    objects: Annotated[
        bool, typer.Option("--objects", help="Pass messages on without encoding them: faster, but tests less.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Save the run in this file, for mpreg replay.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the run as a space-time diagram.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate a cluster with requests and faults, and check its invariants.

    Some requests are meant to fail: they call functions that raise, have short deadlines or are cancelled. The exit
    code is 1 only if an invariant is violated; then the output shows how to repeat the run.
    """
    from mpreg_transports.cli.console import emit_json
    from mpreg_transports.testing.runs.runs import run

    refuse_unwritable("--trace", trace, example="run.jsonl")
    refuse_unwritable("--plot", plot, example="run.svg")
    drawn = _drawn(scenario, seed=seed, nodes=nodes, seconds=seconds, objects=objects)
    with progress_bar(drawn, hidden=as_json) as progress:
        report, sim = run(drawn, recording=trace is not None or plot is not None, progress=progress)
    _write(sim, trace, plot)
    if as_json:
        emit_json(tree(report))
    else:
        summary(report, drawn)
    if report.violation is not None:
        raise typer.Exit(1)


def _drawn(scenario: str, *, seed: int, nodes: int, seconds: float, objects: bool) -> Case:
    """Return the requested run. Raises CommandFailed for an unknown scenario."""
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.testing.runs.scenarios import case

    try:
        return case(scenario, seed=seed, nodes=nodes, seconds=seconds, objects=objects)
    except ValueError as error:
        raise CommandFailed(str(error)) from None


@contextmanager
def progress_bar(drawn: Case, *, hidden: bool) -> Iterator[Progress | None]:
    """Show a progress bar of the simulated seconds on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("s"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=round(drawn.seconds + drawn.settling))
        yield lambda done: bar.update(task, completed=round(done))


def tree(report: RunReport) -> dict[str, Any]:
    """Return a report for programs. `violations` is empty or holds the first violation, which ends the run."""
    import msgspec

    from mpreg_transports.testing.invariants.known_gaps import KNOWN_GAPS

    found = report.violation
    median, most, longest = report.latencies
    return {
        "trace_hash": report.trace_hash,
        "events": report.events,
        "requests": {"sent": sum(report.requests.values()), **report.requests},
        "violations": [] if found is None else [{"invariant": found.invariant, "text": found.text}],
        "options": report.options,
        "seed": report.seed,
        "scenario": report.scenario,
        "nodes": report.nodes,
        "seconds": report.seconds,
        "latency": {"median": median / 1e9, "p95": most / 1e9, "longest": longest / 1e9},
        "sometimes": report.sometimes,
        "events_per_second": round(report.events / report.took) if report.took else 0,
        "pending": [msgspec.to_builtins(row) for row in KNOWN_GAPS],
    }


def summary(report: RunReport, drawn: Case) -> None:
    """Print a report for people, within 80 columns."""
    from rich.text import Text

    from mpreg_transports.cli.console import show, table
    from mpreg_transports.testing.invariants.known_gaps import KNOWN_GAPS

    sent = sum(report.requests.values())
    good = report.requests.get("ok", 0)
    rows = [
        ("run", f"{report.scenario}, seed {report.seed}: {report.nodes} nodes, {report.seconds:g} s of work, "
                f"{drawn.settling:g} s of settling"),
        ("drawn", str(report.options.get("words", ""))),
        ("requests", f"{sent:,} sent, {good:,} ended with all results" + (f" ({good / sent:.1%})" if sent else "")),
        *[("", f"{count:>7,}  {outcome_text(name)}") for name, count in report.requests.items() if name != "ok"],
        *([("", _EXPECTED)] if sent > good else []),
        ("latency", latency_text(report)),
        ("events", f"{report.events:,} in {report.took:.2f} s: {report.events / max(report.took, 1e-9):,.0f} a second, "
                   f"{(report.seconds + drawn.settling) / max(report.took, 1e-9):,.0f} x real time"),
        ("hash", report.trace_hash),
    ]  # fmt: skip
    if report.sometimes:
        rows.append(("reached", f"{sum(map(bool, report.sometimes.values()))} of {len(report.sometimes)} situations"))
    show(table(("", ""), [(Text(name, style="bold"), text) for name, text in rows]))
    if KNOWN_GAPS:
        show("", Text("KNOWN GAPS: parts of invariants that mpreg does not guarantee yet", style="bold"))
        show(
            table(
                ("INVARIANT", "NOT GUARANTEED", "CHECKED INSTEAD"),
                [(str(row.invariant), row.missing, row.meanwhile) for row in KNOWN_GAPS],
            )
        )
    if report.violation is None:
        show("", Text("no violation: every invariant holds", style="green"))
    else:
        show("", Text(f"VIOLATION: {report.violation.text}", style="bold red"), "", Text(report.violation.report))


def latency_text(report: RunReport) -> str:
    """Return the latencies of the successful requests as text."""
    from mpreg_transports.cli.console import format_duration

    median, most, longest = report.latencies
    if not longest:
        return "-"
    return f"median {format_duration(median)}, 95 % within {format_duration(most)}, longest {format_duration(longest)}"


def outcome_text(outcome: str) -> str:
    """Return the end of a request as text."""
    from mpreg_proto.errors import KINDS

    if outcome.isdigit():
        names = {kind.default_code: kind.kind for kind in KINDS}
        return f"{outcome} {names.get(int(outcome), '')}"
    return {"partial": "came back in part", "cancelled": "cancelled by the client, or it vanished"}.get(
        outcome, outcome
    )


def _write(sim: Simulation, trace: Path | None, plot: Path | None) -> None:
    from mpreg_transports.testing.runs.diagram import plot as draw

    if trace is not None:
        sim.trace.save(trace)
    if plot is not None:
        answered = [call.ended for call in sim.calls if call.ended is not None]
        calm = [action.at for action in sim.trace.script if action.name == "calm"]
        busy = None if sim.violation or not calm else max([*answered, calm[0]]) / 1e9 + 1  # the rest is only pings
        plot.write_text(draw(sim, until=busy), "utf-8")
