"""The measures: each row's name, unit, load and goal, and the names and values that floor and subjects share.

The goals are those of the first version on anyio, as times slower than the floor, over raw TCP and over WebSocket.
Nothing here runs anything; a subject's methods have the names of the rows.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

SMALL: Final = "x" * 100
"""The value of every small call; together with names and ids a message is 120 to 140 bytes."""

MIB: Final = bytes(1 << 20)
BIG: Final = 16 << 20
"""The size in bytes of the value that one node makes and another measures."""

NODES: Final = ("a", "b", "c")
"""The node names. Clients connect to a. Node x offers `echo`, `echos` and alone `echo_x`, `make_x` and `measure_x`.

A subject with kinds of functions also offers `echo_x_def` and `echo_x_async` there; they do the same as `echo_x`.
"""

CHAIN: Final = ("echo_a", "echo_b", "echo_c", "echo_a")
"""The functions of the chain; each call's argument is the result of the one before, that of the first is SMALL."""

FAN: Final = tuple(f"echo_{NODES[at % len(NODES)]}" for at in range(16))
"""The functions of the fan, each called with SMALL; `echos` then takes all the results in this order."""

IN_FLIGHT: Final = 64
GRAPHS_IN_FLIGHT: Final = 16


class Unit(Enum):
    """The unit of a row's absolute figures; a graph is one request, and a byte in both directions counts once."""

    MICROSECONDS = "us"
    MILLISECONDS = "ms"
    REQUESTS = "/s"
    MEGABYTES = "MB/s"

    def of(self, seconds: float) -> float:
        """Return the figure for one operation that took `seconds`; only echo_1mib has bytes."""
        match self:
            case Unit.MICROSECONDS:
                return seconds * 1e6
            case Unit.MILLISECONDS:
                return seconds * 1e3
            case Unit.REQUESTS:
                return 1 / seconds
            case Unit.MEGABYTES:
                return len(MIB) / seconds / 1e6


class Cores(Enum):
    """The cores of client and servers: waking an idle core costs more than the work of one small message."""

    ONE = "1"
    ALL = "all"


class Transport(Enum):
    """The transport of a subject's client and nodes; the floor's links are raw TCP with either."""

    TCP = "tcp"
    WS = "ws"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result.

    `answer` is the required result of an operation, compared after `plain`, which makes sequences alike. The goals are
    ratios of times, subject to floor; None where there is none.
    """

    name: str
    what: str
    unit: Unit
    cores: Cores
    answer: object
    goal_tcp: float | None
    goal_ws: float | None

    def goal(self, transport: Transport) -> float | None:
        """Return the goal over that transport."""
        return self.goal_tcp if transport is Transport.TCP else self.goal_ws


ROWS: Final = (
    Row("echo", "a call of the node asked, one at a time", Unit.MICROSECONDS, Cores.ONE, SMALL, 6, 6),
    Row("echo_64", "the same, 64 in flight", Unit.REQUESTS, Cores.ALL, SMALL, 4, 4),
    Row("echo_1mib", "1 MiB in both directions, one at a time", Unit.MEGABYTES, Cores.ALL, MIB, 1.0, 8),
    Row("routed", "a asked for b's function, one at a time", Unit.MICROSECONDS, Cores.ONE, SMALL, 6, 6),
    Row("routed_64", "the same, 64 in flight", Unit.REQUESTS, Cores.ALL, SMALL, 5, 5),
    Row("chain", "4 calls on a, b, c, a, one graph at a time", Unit.MICROSECONDS, Cores.ONE, SMALL, 6, 6),
    Row("chain_16", "the same, 16 graphs in flight", Unit.REQUESTS, Cores.ALL, SMALL, 5, 5),
    Row("fan", "16 calls and a join, one at a time", Unit.MICROSECONDS, Cores.ONE, [SMALL] * len(FAN), None, None),
    Row("fan_16", "the same, 16 graphs in flight", Unit.REQUESTS, Cores.ALL, [SMALL] * len(FAN), 6, 6),
    Row("echo_def", "echo by a plain def", Unit.MICROSECONDS, Cores.ONE, SMALL, None, None),
    Row("echo_async", "echo by an async def", Unit.MICROSECONDS, Cores.ONE, SMALL, None, None),
    Row("fan_def", "fan of plain def calls", Unit.MICROSECONDS, Cores.ONE, [SMALL] * len(FAN), None, None),
    Row("fan_async", "fan of async def calls", Unit.MICROSECONDS, Cores.ONE, [SMALL] * len(FAN), None, None),
    Row("move_16mib", "16 MiB made on b, measured on c", Unit.MILLISECONDS, Cores.ALL, BIG, 1.0, None),
)


TLS_GOALS: Final = {"echo": 1.5, "echo_1mib": 1.8}
"""The goals of mpreg in TLS, as times slower than plain mpreg."""


def plain(value: object) -> object:
    """Return the value, with a tuple as a list, because it may also arrive as one."""
    return list(value) if isinstance(value, tuple) else value
