"""The expected end of each cell of the edge matrix: literal rows, from the interface and the guarantees, not the code.

A cell is an event loop, a way to run a function, an outcome, a node and a client. `expected` returns what the caller
must see, `exclusion` why a cell does not exist. The first matching row of an outcome counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

LOOPS = ("asyncio", "trio", "uvloop")
WAYS = ("inline", "async", "def", "executor", "processes")
"""The ways to run a function. `executor` is a pool of threads, `processes` a pool of processes."""
WHERES = ("asked", "other")
"""The node of the body: the one that the client is connected to, or the other one."""
CLIENTS = ("native-websocket", "native-tcp", "sync", "json-websocket", "rpc")

NATIVE = ("native-websocket", "native-tcp", "sync")
JSON = ("json-websocket", "rpc")
HTTP_STATUS = {0: 200, 1001: 404, 1003: 500, 1014: 400, 1020: 504, 1021: 500, 1023: 500, 1024: 503}
"""The status of the `POST /rpc` answer for each code; 0 is a result."""
LONGEST_ERROR = 100_000
"""The largest size of an error with all its details in characters, however long an exception's text is."""


class Cell(NamedTuple):
    """One combination. Its text is the argument of `--only`."""

    loop: str
    way: str
    outcome: str
    where: str
    client: str

    def __str__(self) -> str:
        return ":".join(self)


class Want(NamedTuple):
    """The end that the caller must see.

    `end` is "value", "error", "lost" (the connection ends without an answer) or "abandoned" (the caller stops waiting).
    `type` is the end of the exception's type in the details of 1003. If `maybe_executed` is None, it is not checked.
    """

    end: str
    code: int = 0
    type: str = ""
    maybe_executed: bool | None = None
    or_value: bool = False
    """True if a result is accepted too, because it may be there before the clock is read."""


class Row(NamedTuple):
    """A `Want` for some cells of an outcome; an empty dimension means all. With a `reason` there is no such cell."""

    want: Want | None = None
    reason: str = ""
    ways: Sequence[str] = ()
    wheres: Sequence[str] = ()
    clients: Sequence[str] = ()
    loops: Sequence[str] = ()

    def fits(self, cell: Cell) -> bool:
        """Return whether this row applies to that cell."""
        pairs = (
            (cell.way, self.ways),
            (cell.where, self.wheres),
            (cell.client, self.clients),
            (cell.loop, self.loops),
        )
        return all(not some or one in some for one, some in pairs)


VALUE = Want("value")
TOO_LONG = Want("error", 1014, maybe_executed=True)
DEADLINE = Want("error", 1020)
UNKNOWN = Want("error", 1023, maybe_executed=True)
LOST = Want("lost")
ABANDONED = Want("abandoned")


def failed(type: str = "") -> Want:
    """Return the expected 1003 of a body that ran."""
    return Want("error", 1003, type, True)


def no(reason: str, **where: Sequence[str]) -> Row:
    """Return a row of cells that do not exist."""
    return Row(reason=reason, **where)


_ASYNC_ONLY = no("only a coroutine can be cancelled while it runs", ways=("inline", "def", "executor", "processes"))
_INLINE = no("an inline body blocks the event loop: nothing else happens before its end", ways=("inline",))
_NO_CANCEL = no("the JSON dialect has no message to cancel with", clients=JSON)
_NO_QUEUE = no("an inline body ends before the node handles the next call", ways=("inline",))
_SAME_QUEUE = no("the queue is the same as that of executor", ways=("processes",))
_ORPHANS = no("a killed node leaves its pool's processes behind, which wait at the test's gate", ways=("processes",))

RAISES: dict[str, tuple[Row, ...]] = {
    "raises": (Row(failed("ValueError")),),
    "raises-without-text": (Row(failed("RuntimeError")),),
    "raises-assertion": (Row(failed("AssertionError")),),
    "raises-str-subclass": (Row(failed("StrSubclass")),),
    "raises-text-of-str-subclass": (Row(failed("TextOfStrSubclass")),),
    "raises-str-raises": (Row(failed("StrRaises")),),
    "raises-str-raises-base": (Row(failed("StrRaisesBase")),),
    "raises-str-is-no-text": (Row(failed("StrIsNoText")),),
    "raises-repr-raises": (Row(failed("ValueError")),),
    "raises-getattr-raises": (Row(failed("GetattrRaises")),),
    "raises-getattribute-raises": (Row(failed("GetattributeRaises")),),
    "raises-cause-raises": (Row(failed("CauseRaises")),),
    "raises-context-raises": (Row(failed("ContextRaises")),),
    "raises-traceback-raises": (Row(failed("TracebackRaises")),),
    "raises-traceback-is-none": (Row(failed("TracebackIsNone")),),
    "raises-class-lies": (Row(failed()),),
    "raises-metaclass-raises": (Row(failed()),),
    "raises-module-is-no-text": (Row(failed()),),
    "raises-name-with-surrogate": (Row(failed()),),
    "raises-name-long": (Row(failed()),),
    "raises-equality-raises": (Row(failed("EqualityRaises")),),
    "raises-syntax-error": (Row(failed("SyntaxError")),),
    "raises-syntax-error-long": (Row(failed("SyntaxError")),),
    "raises-name-error": (Row(failed("NameError")),),
    "raises-attribute-error": (Row(failed("AttributeError")),),
    "raises-import-error-long": (Row(failed("ImportError")),),
    "raises-unicode-error-long": (Row(failed("UnicodeDecodeError")),),
    "raises-notes-long": (Row(failed("ValueError")),),
    "raises-notes-many": (Row(failed("ValueError")),),
    "raises-notes-are-odd": (Row(failed("ValueError")),),
    "raises-cause-long": (Row(failed("ValueError")),),
    "raises-causes-many": (Row(failed("ValueError")),),
    "raises-causes-in-a-circle": (Row(failed("ValueError")),),
    "raises-group": (Row(failed("ExceptionGroup")),),
    "raises-group-of-base": (Row(failed("BaseExceptionGroup")),),
    "raises-group-wide": (Row(failed("ExceptionGroup")),),
    "raises-group-deep": (Row(failed("ExceptionGroup")),),
    "raises-group-of-odd": (Row(failed("ExceptionGroup")),),
    "raises-recursion": (Row(failed("RecursionError")),),
    "raises-in-odd-file": (Row(failed("ValueError")),),
    "raises-text-long": (Row(failed("ValueError")),),
    "raises-text-with-surrogate": (Row(failed("ValueError")),),
    "raises-text-with-controls": (Row(failed("ValueError")),),
    "raises-memory-error": (Row(failed("MemoryError")),),
    "raises-base": (Row(failed("Base")),),
    "raises-system-exit": (Row(failed("SystemExit")),),
    "raises-keyboard-interrupt": (Row(failed("KeyboardInterrupt")),),
    "raises-generator-exit": (Row(failed("GeneratorExit")),),
    "raises-stop-iteration": (Row(failed("RuntimeError"), ways=("async",)), Row(failed("StopIteration"))),
    "raises-stop-async-iteration": (Row(failed("StopAsyncIteration")),),
    "raises-cancelled-error": (Row(failed("CancelledError")),),
    "raises-cancelled-error-of-futures": (Row(failed("CancelledError")),),
    "raises-timeout-error": (Row(failed("TimeoutError")),),
    "raises-connection-error": (Row(failed("ConnectionResetError")),),
    "raises-overloaded": (Row(failed("Overloaded")),),  # not a refusal by the node
    "raises-draining": (Row(failed("Draining")),),
    "raises-link-ended": (Row(failed("LinkEnded")),),
    "raises-unpicklable": (Row(failed(), ways=("processes",)), Row(failed("Unpicklable"))),
    "raises-not-unpicklable": (Row(failed(), ways=("processes",)), Row(failed("NotUnpicklable"))),
}
"""An exception of the body is 1003 at once, even if formatting it fails, and the node continues."""

RESULTS: dict[str, tuple[Row, ...]] = {
    "returns": (Row(VALUE),),
    "returns-nothing": (Row(VALUE),),
    "returns-nan": (Row(failed(), clients=JSON), Row(VALUE)),
    "returns-surrogate": (Row(failed()),),
    "returns-object": (Row(failed()),),
    "returns-lock": (Row(failed()),),  # a pool of processes cannot even return it
    "returns-circle": (Row(failed()),),
    "returns-depth": (Row(failed()),),
    "returns-items-raise": (Row(failed()),),
    "returns-too-long": (Row(TOO_LONG),),
    "returns-too-long-for-clients": (Row(TOO_LONG),),
}
"""A result, or 1003 for a value that cannot be sent, or 1014 for a value that is too long."""

LIVES: dict[str, tuple[Row, ...]] = {
    "deadline": (_INLINE, Row(DEADLINE._replace(maybe_executed=True))),
    "deadline-swallowed": (_ASYNC_ONLY, Row(DEADLINE._replace(maybe_executed=True))),
    "deadline-cleanup-raises": (_ASYNC_ONLY, Row(DEADLINE._replace(maybe_executed=True))),
    "deadline-queued": (_NO_QUEUE, _SAME_QUEUE, Row(DEADLINE)),
    "deadline-tiny": (Row(DEADLINE._replace(or_value=True)),),
    "cancelled": (_INLINE, _NO_CANCEL, Row(ABANDONED)),
    "cancelled-swallowed": (_ASYNC_ONLY, _NO_CANCEL, Row(ABANDONED)),
    "cancelled-queued": (_NO_QUEUE, _SAME_QUEUE, _NO_CANCEL, Row(ABANDONED)),
    "cancels-itself": (
        _ASYNC_ONLY,
        no("on trio there is no task that could be cancelled from within", loops=("trio",)),
        Row(failed("CancelledError")),
    ),
    "unregistered": (Row(VALUE),),  # a running body continues
    "unregistered-queued": (_NO_QUEUE, _SAME_QUEUE, Row(Want("error", 1001, maybe_executed=False))),
    "replaced": (Row(VALUE),),
    "vanishes": (_INLINE, Row(LOST, clients=JSON), Row(UNKNOWN)),
    "vanishes-queued": (_NO_QUEUE, _SAME_QUEUE, Row(LOST, clients=JSON), Row(Want("error", 1023))),
    "closes": (
        _INLINE,
        Row(LOST, clients=JSON),
        Row(Want("error", 1023)),
    ),
    "drains": (Row(VALUE),),
    "drains-without-grace": (_INLINE, Row(UNKNOWN)),
    "killed": (
        _ORPHANS,
        Row(LOST, wheres=("asked",), clients=JSON),
        Row(UNKNOWN),
    ),
    "killed-idempotent": (
        _ORPHANS,
        no("the node that was asked is the one that starts it again", wheres=("asked",)),
        Row(VALUE),
    ),
    "pool-breaks": (
        no("there is no pool that could break", ways=("inline", "async", "def", "executor")),
        Row(UNKNOWN),
    ),
}
"""Events during a call, while its body runs or is queued."""

OUTCOMES: dict[str, tuple[Row, ...]] = {**RESULTS, **RAISES, **LIVES}


def expected(cell: Cell) -> Want:
    """Return what the caller must see. Raises LookupError for a cell that does not exist."""
    for row in OUTCOMES[cell.outcome]:
        if row.fits(cell):
            if row.want is None:
                raise LookupError(f"{cell}: {row.reason}")
            return row.want
    raise LookupError(f"{cell}: no row of the table is about it")


def exclusion(cell: Cell) -> str:
    """Return why a cell does not exist; empty if it exists."""
    row = next(row for row in OUTCOMES[cell.outcome] if row.fits(cell))
    return row.reason


def product(loops: Sequence[str] = LOOPS) -> Iterator[Cell]:
    """Return all cells that exist, ordered by event loop."""
    for loop in loops:
        for outcome in OUTCOMES:
            for way in WAYS:
                for where in WHERES:
                    for client in CLIENTS:
                        cell = Cell(loop, way, outcome, where, client)
                        if not exclusion(cell):
                            yield cell


def pairs(cell: Cell) -> Iterator[tuple[int, str, int, str]]:
    """Return each two values of a cell, with their places."""
    for first in range(len(cell)):
        for second in range(first + 1, len(cell)):
            yield first, cell[first], second, cell[second]


def pairwise(cells: Sequence[Cell]) -> list[Cell]:
    """Return some of `cells` that hold every pair of values that any of them holds. Greedy and deterministic.

    Each pick is the cell with the most pairs not covered yet. Counts only fall, so a bucket queue finds it: a cell is
    checked again only when its bucket is reached.
    """
    seen: set[tuple[int, str, int, str]] = set()
    most = len(Cell._fields) * (len(Cell._fields) - 1) // 2
    buckets: list[list[Cell]] = [[] for _ in range(most + 1)]
    buckets[most] = _spread(cells)
    chosen: list[Cell] = []
    for count in range(most, 0, -1):
        for cell in buckets[count]:
            fresh = [pair for pair in pairs(cell) if pair not in seen]
            if len(fresh) == count:
                chosen.append(cell)
                seen.update(fresh)
            else:
                buckets[len(fresh)].append(cell)
    return sorted(chosen, key=_order)


def _spread(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in an order in which neighbours differ in each dimension, so that ties prefer no value."""
    step = next(step for step in range(len(cells) * 618 // 1000 + 1, 2 * len(cells) + 2) if _coprime(step, len(cells)))
    return [cells[at * step % len(cells)] for at in range(len(cells))]


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def _order(cell: Cell) -> tuple[int, ...]:
    """Return the position by event loop, then by the order of the table."""
    outcomes = list(OUTCOMES)
    return (
        LOOPS.index(cell.loop),
        outcomes.index(cell.outcome),
        WAYS.index(cell.way),
        WHERES.index(cell.where),
        CLIENTS.index(cell.client),
    )
