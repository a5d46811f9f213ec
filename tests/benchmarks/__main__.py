"""The command: `python -m tests.benchmarks`, from the project's root; `--help` lists the rows.

The table goes to stdout line by line; with `--json`, one object goes to stdout at the end, and the table to stderr.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec

from tests.benchmarks import report
from tests.benchmarks.floor import CallbackFloor, Floor, SteadyFloor
from tests.benchmarks.harness import Make, Result, results
from tests.benchmarks.rows import ROWS, TLS_GOALS, Row, Transport
from tests.benchmarks.subjects import Subject

MPREG = "tests.benchmarks.subject"
"""The module whose `subject(transport)` makes a Subject of mpreg's own client and servers; imported only if chosen."""


def _parser() -> argparse.ArgumentParser:
    width = max(len(row.name) for row in ROWS)
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure the slowdown against a bare protocol.",
        epilog="rows:\n" + "\n".join(f"  {row.name:<{width}}  {row.what}" for row in ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measures of each row (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for each row and round (default 1)")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="NAME", help="these rows")
    parser.add_argument("--transport", choices=[kind.value for kind in Transport], default=Transport.TCP.value)
    parser.add_argument(
        "--subject",
        choices=["mpreg", "floor", "callbacks", "steady"],
        default="mpreg",
        help="default mpreg; floor shows the noise, callbacks and steady are floors of other kinds (README.md)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="compare mpreg in TLS with plain mpreg (default rows: echo and echo_1mib)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the table on stderr")
    return parser


def _subject(name: str, transport: Transport, parser: argparse.ArgumentParser) -> Make:
    if name != "mpreg":
        return {"floor": Floor, "callbacks": CallbackFloor, "steady": SteadyFloor}[name]
    if find_spec(MPREG) is None:
        parser.error(f"there is no {MPREG.replace('.', '/')}.py yet, which makes mpreg a subject; try --subject floor")
    make: Callable[[Transport], Subject] = import_module(MPREG).subject
    return partial(make, transport)


def _rows(options: argparse.Namespace) -> list[Row]:
    names = options.only or ([*TLS_GOALS] if options.tls else [row.name for row in ROWS])
    chosen = [row for row in ROWS if row.name in names]
    if not options.tls:
        return chosen
    return [replace(row, goal_tcp=TLS_GOALS.get(row.name), goal_ws=TLS_GOALS.get(row.name)) for row in chosen]


async def _run(options: argparse.Namespace, floor: Make, make: Make) -> None:
    transport = Transport(options.transport)
    chosen = _rows(options)
    table = sys.stderr if options.json else sys.stdout
    name = make().name
    than = "plain mpreg" if options.tls else "the floor"
    heading = report.heading(name, transport, rounds=options.rounds, seconds=options.seconds, than=than)
    print(heading, file=table, flush=True)
    found: list[Result] = []
    measuring = results(floor, make, rows=chosen, rounds=options.rounds, seconds=options.seconds, transport=transport)
    async for result in measuring:
        found.append(result)
        print(report.line(result), file=table, flush=True)
    print(report.closing(options.rounds), file=table)
    if options.json:
        print(report.as_json(name, transport, found, seconds=options.seconds))


def main() -> None:
    """Measure and print; exit with 2 for wrong usage, with 1 and a traceback when a measure fails."""
    parser = _parser()
    options = parser.parse_args()
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds must be 1 or more, --seconds more than 0")
    if options.tls and options.subject != "mpreg":
        parser.error("--tls measures mpreg alone: leave --subject out")
    transport = Transport(options.transport)
    make = _subject(options.subject, transport, parser)
    floor: Make = Floor
    if options.tls:
        floor, make = make, partial(import_module(MPREG).secured, transport)
    asyncio.run(_run(options, floor, make))


if __name__ == "__main__":
    main()
