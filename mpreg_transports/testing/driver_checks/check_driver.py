"""Run the checks against a driver, one after another, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from mpreg_transports.testing.driver_checks.bench import Bench, WrongHandle
from mpreg_transports.testing.driver_checks.checks import CHECKS, Check
from mpreg_transports.testing.driver_checks.peers import CheckTooLong, Unexpected
from mpreg_transports.testing.driver_checks.report import DriverCheck, DriverReport, MakeDriver
from mpreg_transports.testing.simulation.checks import check_callable, describe, refuses_arguments

SECONDS = 5.0
"""The default limit of each wait for the driver. Reasonable: many times what it takes on a busy machine."""


def check_driver(
    make: MakeDriver, *, only: Collection[str] = (), skip: Collection[str] = (), seconds: float = SECONDS
) -> DriverReport:
    """Run a driver of your own against hostile peers on real sockets; raise AssertionError unless it passes.

    `make(config, functions)` starts a node with your driver in a thread, event loop or process of its own, and returns
    a handle (`DriverUnderTest`): its `url`, `leave()` and `wait(seconds)`. `functions` maps names to plain functions
    that may block: the node offers each under its name, with any `concurrency`, and runs each call in a thread. Each
    check calls `make` for new nodes, and waits at most `seconds` for whatever it expects, or for the next bytes of it;
    a check that takes ten times as long has failed. (Nothing bounds your own `make`, `leave` and `wait`.) `only` names
    the checks to run, `skip` those to leave out, such as "late_end" for a driver without threads; docs/howto/driver.md
    lists all. Returns the report if all pass; `driver_report` returns it in any case.
    """
    report = driver_report(make, only=only, skip=skip, seconds=seconds)
    if report.failed:
        raise AssertionError(str(report))
    return report


def driver_report(
    make: MakeDriver, *, only: Collection[str] = (), skip: Collection[str] = (), seconds: float = SECONDS
) -> DriverReport:
    """Run the checks as `check_driver` does, and return a row for each, passed or not."""
    _check_make(make)
    names = [check.name for check in CHECKS]
    for name in [*only, *skip]:
        if name not in names:
            raise ValueError(f"no check {name!r}; there are {', '.join(names)}")
    wanted = [check for check in CHECKS if (not only or check.name in only) and check.name not in skip]
    return DriverReport(tuple(_run(check, make, seconds) for check in wanted))


def _check_make(make: object) -> None:
    check_callable("make", make, "make(config, functions)")
    if (refusal := refuses_arguments(make, None, None)) is not None:
        raise TypeError(
            f"make: expected a function of two arguments, make(config, functions), that starts a node and returns a "
            f"handle (DriverUnderTest); {describe(make)} does not take them: {refusal}"
        )


def _run(check: Check, make: MakeDriver, seconds: float) -> DriverCheck:
    began = time.monotonic()
    bench = Bench(make, seconds)
    happened = _outcome(lambda: check.run(bench), bench.longest)
    if happened and not bench.error():
        happened = ", and ".join(filter(None, (bench.died(), happened)))
    ended = _outcome(bench.close, bench.longest)
    spent = time.monotonic() - began
    happened = happened or ended
    if not happened:
        return DriverCheck(check.name, True, spent, check.expected)
    return DriverCheck(check.name, False, spent, check.expected, happened, check.advice, bench.error())


def _outcome(act: Callable[[], object], longest: float) -> str:
    """Return what was unexpected, empty if nothing was."""
    try:
        act()
    except WrongHandle:
        raise
    except Unexpected as error:
        return str(error)
    except CheckTooLong as error:
        return f"the check had not ended after {longest:g} s: {error}"
    except Exception as error:  # of the driver's own `make`, `leave` and `wait`, or bytes that are no protocol
        return f"{type(error).__name__}: {error}"
    return ""
