"""Results as a table of at most 80 columns for people, or as one JSON object for programs. Measures nothing."""

import json
import platform
from collections.abc import Sequence
from statistics import median

from tests.benchmarks.harness import GATE_ROUNDS, SLACK, Result
from tests.benchmarks.pinning import Pinning
from tests.benchmarks.rows import Transport

_LINE = "{:<10}{:>6} {:<13}{:>12}{:>12}{:>6}  {}"


def _digits(value: float) -> str:
    """Format a number with three significant digits and thousands separators."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def heading(subject: str, transport: Transport, *, rounds: int, seconds: float, than: str) -> str:
    """Return the subject, the place of the measurement, and the names of the columns."""
    pinning = Pinning()
    where = "not pinned here" if pinning.core is None else f"on core {pinning.core}"
    lines = [
        f"{subject} over {transport.value}, times slower than {than}: {rounds} rounds of {seconds:g} s a row,",
        f"{platform.python_implementation()} {platform.python_version()}, {pinning.cores} cores; rows in us {where}",
        "",
        _LINE.format("row", "ratio", "(min-max)", "floor", subject, "goal", "verdict"),
    ]
    return "\n".join(lines)


def line(result: Result) -> str:
    """Return one row of the table."""
    unit = result.row.unit
    ratios = result.ratios
    figures = [f"{_digits(unit.of(median(side)))} {unit.value}" for side in (result.floor, result.subject)]
    span = f"({_digits(min(ratios))}-{_digits(max(ratios))})"
    goal = "-" if result.goal is None else f"{result.goal:g}"
    return _LINE.format(result.row.name, _digits(result.ratio), span, *figures, goal, result.verdict)


def closing(rounds: int) -> str:
    """Return how to read the verdicts."""
    text = f"\nA goal is met by slack within {(SLACK - 1) * 100:.0f} % of it."
    return text if rounds >= GATE_ROUNDS else f"{text} Verdicts need {GATE_ROUNDS} rounds or more."


def as_json(subject: str, transport: Transport, results: Sequence[Result], *, seconds: float) -> str:
    """Return all results; `ratio` is compared with `goal` times `slack`, figures are medians in `unit`."""
    pinning = Pinning()
    rows = [
        {
            "name": result.row.name,
            "what": result.row.what,
            "unit": result.row.unit.value,
            "core": pinning.core if result.row.cores.value == "1" else None,
            "floor": result.row.unit.of(median(result.floor)),
            "subject": result.row.unit.of(median(result.subject)),
            "ratio": result.ratio,
            "ratios": result.ratios,
            "goal": result.goal,
            "met": None if result.goal is None else result.ratio <= result.goal * SLACK,
            "verdict": result.verdict,
        }
        for result in results
    ]
    about = {
        "subject": subject,
        "transport": transport.value,
        "python": platform.python_version(),
        "cores": pinning.cores,
        "seconds": seconds,
        "slack": SLACK,
    }
    return json.dumps(about | {"rows": rows}, indent=2)
