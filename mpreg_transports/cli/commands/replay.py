"""The command `mpreg replay FILE`: a saved run is repeated, step by step, to the same end.

The beginning of a file shows its kind. Each kind has one function here that replays it: a simulator's trace, with a
first line of JSON with `"kind":"simulation"`, and a node's journal (observe/journal.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpreg_transports.cli.options import Json, example, refuse_unwritable, seconds_option, whole_number_option
from mpreg_transports.config.release import installed_version

if TYPE_CHECKING:
    from mpreg_transports.observe.journal import Replayed
    from mpreg_transports.testing.runs.replay import Replay


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """The options of a replay."""

    stop_at: int | None
    """The event after which the replay ends; None: the end of the file."""
    steps: bool
    """True to print each event as text when it happens."""
    node: str | None
    """The node whose view is printed at the end; None: all nodes."""
    plot: Path | None
    since: float
    as_json: bool


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "mpreg replay run.jsonl",
            "mpreg replay run.jsonl --steps --stop-at 1200 --node n3",
            "mpreg replay run.jsonl --json",
        )
    )(replay)


def replay(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file that simulate --trace, serve --journal or a failing test wrote."),
    ],
    stop_at: Annotated[
        int | None,
        whole_number_option(
            "--stop-at",
            metavar="EVENT",
            least=1,
            example=1200,
            help="End after this event, counted from 1.",
        ),
    ] = None,
    steps: Annotated[bool, typer.Option("--steps", help="Print each event as it happens.")] = False,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="Print only this node's view at the end.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the replayed part as a space-time diagram.")
    ] = None,
    since: Annotated[
        float,
        seconds_option(
            "--since",
            metavar="S",
            example=10,
            help="With --plot: draw only what came after S seconds.",
        ),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Repeat a saved run step by step, and compare its hash with the saved one.

    The exit code is 1 if the run ends with the violation that it was saved for, and 9 if it differs from the saved run.
    """
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.config.system_errors import error_reason

    if plot is None and since:
        raise CommandFailed(f"--since {since:g} is for --plot: name its file too")
    refuse_unwritable("--plot", plot, example="run.svg")
    try:
        with file.open("rb") as opened:
            start = opened.read(200)
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error_reason(error)}") from None
    for begins, run in KINDS:
        if begins(start):
            run(file, ReplayOptions(stop_at=stop_at, steps=steps, node=node, plot=plot, since=since, as_json=as_json))
            return
    raise CommandFailed(f"{file} is no run that was saved", "save one:   mpreg simulate --trace FILE")


def _is_simulation(start: bytes) -> bool:
    return start.startswith(b"{") and b'"kind":"simulation"' in start


def _simulation(file: Path, options: ReplayOptions) -> None:
    """Replay a simulator's trace."""
    from mpreg_transports.cli.errors import CommandFailed, ExitCode
    from mpreg_transports.cli.target import search_modules_here
    from mpreg_transports.testing.runs.replay import Replay, ReplayMismatch

    search_modules_here()  # a test's own functions are saved by the names of their modules
    try:
        again = Replay(file)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    if options.node is not None and options.node not in again.sim.nodes:
        raise CommandFailed(f"--node {options.node}: there are {', '.join(again.sim.nodes)}")
    violation = ""
    try:
        _run(again, options)
    except ReplayMismatch as error:
        raise CommandFailed(str(error), code=ExitCode.OTHER) from None
    except AssertionError as error:  # the saved violation; a Violation is an AssertionError
        violation = str(error)
        again.sim.violation = violation
    _print_result(again, options, violation)
    if violation:
        raise typer.Exit(1)


def _run(again: Replay, options: ReplayOptions) -> None:
    """Run to the end, or to the event `stop_at`."""
    from mpreg_transports.cli.console import emit
    from mpreg_transports.cli.streams import reader_gone
    from mpreg_transports.testing.runs.failures import describe_action, describe_event

    if not options.steps:
        again.finish(until=options.stop_at)
        return
    trace = again.sim.trace
    while not again.over and (options.stop_at is None or trace.events < options.stop_at) and not reader_gone():
        events, actions = trace.events, len(trace.script)
        try:
            again.step()
        finally:  # print the step that ends in a violation too
            for action in trace.script[actions:]:
                emit(f"{'':>8} {describe_action(action)}")
            for number, event in enumerate(list(trace.recorded)[events:], events + 1):
                emit(f"{number:>8} {describe_event(event)}")
    if not reader_gone():
        again.finish(until=options.stop_at)


def _print_result(again: Replay, options: ReplayOptions, violation: str) -> None:
    from rich.text import Text

    from mpreg_transports.cli.console import emit_json, show
    from mpreg_transports.cli.errors import CommandFailed
    from mpreg_transports.testing.runs.diagram import plot
    from mpreg_transports.testing.runs.failures import last_events, node_view

    sim, header = again.sim, again.header
    whole = again.over
    if options.plot is not None:
        try:
            drawing = plot(sim, since=options.since)
        except ValueError as error:
            raise CommandFailed(str(error)) from None
        options.plot.write_text(drawing, "utf-8")
    hosts = [host for name, host in sim.nodes.items() if options.node in (None, name)]
    if options.as_json:
        emit_json(
            {
                "trace_hash": sim.trace.hash,
                "same": whole and sim.trace.hash == header.hash,
                "events": sim.trace.events,
                "of": header.events,
                "time": sim.time,
                "violations": [violation] if violation else [],
                "views": {host.name: _view(host) for host in hosts},
            }
        )
        return
    reached = f"{sim.trace.events:,} of {header.events:,} events, {sim.time:.6f} s"
    head = f"seed {header.seed}, {header.scenario or 'a script'}: {reached}"
    show(Text(head, style="bold"))
    if not options.steps:
        show(*[Text(line) for line in last_events(sim)])
    for host in hosts:
        show(*[Text(line) for line in node_view(host)])
    if violation:
        show(Text(violation, style="red"))
    elif whole:
        show(Text(f"the same hash: {sim.trace.hash}", style="green"))


def _view(host: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(host.node.view(now=host.local)) if host.alive else None


def _is_journal(start: bytes) -> bool:
    from mpreg_transports.observe.journal import MAGIC

    return start.startswith(MAGIC)


def _journal(file: Path, options: ReplayOptions) -> None:
    """Replay a node's journal."""
    import msgspec

    from mpreg_transports.cli.console import emit_json
    from mpreg_transports.cli.errors import CommandFailed, ExitCode
    from mpreg_transports.observe.journal import replay as run_again
    from mpreg_transports.values import default_codec

    if options.plot is not None or options.node is not None:
        flag = "--plot" if options.plot is not None else "--node"
        raise CommandFailed(f"{flag} is for runs of a simulator; {file} is the journal of one node")
    try:
        again = run_again(
            file, codec=default_codec(), stop_at=options.stop_at, on_input=_print_step if options.steps else None
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise CommandFailed(f"{file}: {error}") from None
    if options.as_json:
        emit_json(
            {
                "trace_hash": again.hash,
                "same": again.agreed and again.marks > 0,
                "events": again.inputs,
                "marks": again.marks,
                "views": {again.view.shown: msgspec.to_builtins(again.view)},
            }
        )
    else:
        _print_journal_result(again, steps=options.steps)
    if not again.agreed:
        here = installed_version()
        reason = "the same version wrote it, so the file or the core was changed since"
        if again.version != here:
            reason = f"it was written by mpreg {again.version}, this is {here}"
        raise CommandFailed(f"{file}: the hashes differ; {reason}", code=ExitCode.OTHER)


def _print_step(line: str) -> None:
    """Print a step. End the replay if stdout has no reader."""
    from mpreg_transports.cli.console import emit
    from mpreg_transports.cli.streams import reader_gone

    emit(line)
    if reader_gone():
        raise typer.Exit


def _print_journal_result(again: Replayed, *, steps: bool) -> None:
    from rich.text import Text

    from mpreg_transports.cli.console import show

    view = again.view
    show(Text(f"{view.shown}: {again.inputs:,} inputs, {again.marks} marks of the hash on the way", style="bold"))
    if not steps:
        show(*[Text(line) for line in again.last])
    for member in view.members:
        what = f"{member.standing}, {member.functions} functions, catalogue {member.catalogue}"
        show(Text(f"  sees {member.shown}: {what}"))
    show(Text(f"  answers for {view.requests} requests, runs {view.running} calls, {view.queued} wait"))
    if not again.agreed:
        return
    if not again.marks:
        show(Text(f"no mark up to here, nothing compared; now {again.hash}", style="yellow"))
    elif again.marked < again.inputs:
        show(Text(f"the same till the mark at {again.marked:,}; now {again.hash}"))
    else:
        show(Text(f"the same hash: {again.hash}", style="green"))


ReplayFunction = Callable[[Path, ReplayOptions], None]
KINDS: list[tuple[Callable[[bytes], bool], ReplayFunction]] = [
    (_is_simulation, _simulation),
    (_is_journal, _journal),
]
"""The kinds of files: a test of the first bytes, and the function that replays the file."""
