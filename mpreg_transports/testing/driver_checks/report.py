"""The argument and the result of `check_driver`: the driver under test, and the row of each check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from mpreg_proto.config import NodeConfig


class DriverUnderTest(Protocol):
    """One running node with its driver. The kit calls its methods from the thread that called `check_driver`.

    It also calls `make(config, functions)` there, which returns such a handle (`MakeDriver`).
    """

    @property
    def url(self) -> str:
        """The address at which peers reach it: `tcp://127.0.0.1:PORT` for raw frames, or `ws://127.0.0.1:PORT/PATH`."""
        ...

    def leave(self) -> None:
        """Call `Node.leave` in the driver's event loop or thread, and return without waiting."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait until the driver has ended and closed its listener and links; return False if it still runs then.

        Raise the error that has ended the driver, if there was one.
        """
        ...


MakeDriver = Callable[[NodeConfig, Mapping[str, Callable[..., Any]]], DriverUnderTest]
"""Starts a node of this configuration that offers these functions, and returns once it listens.

The node must take `limits` and `seeds` from the configuration, and should advertise its own URL. The second argument
maps the name of each function to a plain `def` function, which takes the `args` and `kwargs` of a `Run`. Offer each
under its name, as `FunctionSpec(name=name)`; any `concurrency` does. A call may block, so run it in a thread: calls of
other functions must go on meanwhile.
"""


class DriverCheck(msgspec.Struct, frozen=True):
    """The outcome of one check."""

    name: str
    passed: bool
    seconds: float
    expected: str
    happened: str = ""
    """The result instead; empty if the check has passed."""
    advice: str = ""
    """The part of the driver to look at. It is the same for all failures of one check."""
    error: str = ""
    """The exception that has ended the driver, with the last frames of its traceback; empty if there was none."""


class DriverReport(msgspec.Struct, frozen=True):
    """The outcome of all checks, in their order. `str()` gives a text to read."""

    rows: tuple[DriverCheck, ...]

    @property
    def failed(self) -> tuple[DriverCheck, ...]:
        """The checks that have not passed."""
        return tuple(row for row in self.rows if not row.passed)

    def __str__(self) -> str:
        lines = [f"{len(self.rows) - len(self.failed)} of {len(self.rows)} checks of the driver have passed"]
        for row in self.rows:
            lines.append(f"{'ok  ' if row.passed else 'FAIL'} {row.name} ({row.seconds:.2f} s)")
            if not row.passed:
                lines += [f"     expected: {row.expected}", f"     happened: {row.happened}"]
                lines += [f"     {line}" for line in row.error.splitlines()]
                first = "find the cause of this error first; " if row.error else ""
                lines.append(f"     advice: {first}{row.advice}")
        return "\n".join(lines)
