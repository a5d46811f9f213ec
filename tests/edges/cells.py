"""Runs one cell: starts the call, waits for its end, compares it with the table, and looks for leftovers.

Each `_scene` returns what the caller saw. `Cells` keeps a house for one event loop from cell to cell.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing import get_context
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from mpreg_transports import Server
from tests.edges import bodies, child
from tests.edges.callers import Caller, End, caller, parcel, proxied
from tests.edges.house import House, Pool, function_name, housed, until
from tests.edges.leftovers import around, leftovers, settled, tables
from tests.edges.table import LONGEST_ERROR, NATIVE, Cell, Want, expected

AT_ONCE = 10.0
"""Seconds until an end that does not depend on a deadline; it normally takes milliseconds."""
DEADLINE = 0.25
"""The deadline of calls that exceed it, in seconds."""
GRACE = 3.0
"""Seconds from a deadline to the end of its call, on a busy machine."""
SETTLES = 5.0
"""Seconds until a cell has left nothing behind."""
SAMPLE = "given"

_OTHER_NODE_ENDS = ("drains", "drains-without-grace", "killed", "killed-idempotent")
"""Outcomes that end a node."""


class Cells:
    """Cells on one event loop, one after the other. `on_loop` makes it."""

    def __init__(self, loop: str, tasks: TaskGroup, pool: Pool) -> None:
        self.loop = loop
        self._tasks = tasks
        self._pool = pool
        self._stack: AsyncExitStack | None = None
        self._house: House | None = None
        self._tables: dict[str, int] = {}
        self._scope = anyio.CancelScope()

    async def run(self, cell: Cell) -> list[str]:
        """Return the defects of a cell as text; the list is empty if the cell ends as the table expects."""
        errors = _Errors()
        found: list[str] = []
        with anyio.CancelScope() as self._scope:
            try:
                with errors, anyio.fail_after(bodies.PATIENCE):
                    house = await self._housed()
                    found = await self._run_cell(house, cell)
            except Exception as error:
                found = ["; ".join(_leaves(error)) + _at(error)]
        house_of_cell = self._house
        if self._scope.cancelled_caught:
            why = house_of_cell.crash if house_of_cell is not None else None
            found = ["a node ended: " + "; ".join(_leaves(why))]
        bodies.STAGE.go.set()
        found += [f"logged as an error: {line}" for line in errors.lines]
        if found or cell.outcome in (*_OTHER_NODE_ENDS, "pool-breaks"):
            await self.leave()
        return found

    async def leave(self) -> None:
        """End the house, if there is one; the next cell gets a new one."""
        self._pool.go.set()
        if self._stack is not None:
            stack, self._stack, self._house = self._stack, None, None
            with anyio.CancelScope(shield=True), anyio.move_on_after(bodies.PATIENCE):
                await stack.aclose()

    async def _housed(self) -> House:
        self._pool.reset()
        if self._house is None:
            await anyio.to_thread.run_sync(self._pool.replace_broken)
            bodies.LIVE.clear()  # a failed house may have left some
            self._stack = AsyncExitStack()
            self._house = await self._stack.enter_async_context(housed(self._tasks, self._pool))
            self._house.on_crash = self._scope.cancel
            await self._warm(self._house)
            self._tables = tables(self._house)
        return self._house

    async def _warm(self, house: House) -> None:
        """Call each function once, so that caches of functions are filled before the tables are counted."""
        bodies.new_stage()
        async with caller("native-tcp", house.asked.port, loop=self.loop) as client:
            for where in ("asked", "other"):
                for way in ("inline", "async", "def", "executor", "processes"):
                    for slots in (None, 1):
                        end = await client.call(function_name(way, where, slots=slots), "returns", timeout=AT_ONCE)
                        assert end.end == "value", end
        del end
        before = dict.fromkeys(around(), 1_000_000)
        left = await settled(lambda: leftovers(house, outside=before), seconds=SETTLES)
        assert not left, f"after one plain call of each function: {left}"

    async def _run_cell(self, house: House, cell: Cell) -> list[str]:
        want = expected(cell)
        outside = around()
        act = _Act(house, cell, self._pool)
        end = await act.play()
        found = _differs(want, end) + _is_odd(cell, end, house)
        found += act.complaints
        del end, act
        if found or cell.outcome in _OTHER_NODE_ENDS:
            return found  # after the end of a node or a failure the leftovers are not defined
        look = lambda: leftovers(house, outside=outside) + _grown(self._tables, tables(house))  # noqa: E731
        return found + [f"left behind: {one}" for one in await settled(look, seconds=SETTLES)]


class _Act:
    """One cell while it runs."""

    def __init__(self, house: House, cell: Cell, pool: Pool) -> None:
        self.house = house
        self.cell = cell
        self.pool = pool
        self.stage = bodies.new_stage()
        self.complaints: list[str] = []
        self.began = 0.0

    async def play(self) -> End:
        """Run the scene; return what the caller saw."""
        scene = _SCENES.get(self.cell.outcome, _Act._plain)
        return await scene(self)

    # -- the parts of scenes ------------------------------------------------------------------------------------------

    def function(self, *, slots: int | None = None) -> str:
        return function_name(self.cell.way, self.cell.where, slots=slots)

    async def call(self, client: Caller, *, slots: int | None = None, timeout: float = bodies.PATIENCE) -> End:
        """Make the call that the cell tests."""
        self.began = time.monotonic()
        argument = parcel(self.cell.client, SAMPLE)
        return await client.call(self.function(slots=slots), self.cell.outcome, argument, timeout=timeout)

    def started(self) -> Callable[[], bool]:
        """Return a function that returns whether the body of the cell runs."""
        if self.cell.way == "processes":
            return self.pool.has_started
        return lambda: self.stage.started > 0

    def release(self) -> None:
        """Release the bodies of the cell."""
        self.stage.go.set()
        self.pool.go.set()

    def check(self, true: bool, text: str) -> None:
        if not true:
            self.complaints.append(text)

    async def check_next(self, client: Caller) -> None:
        """Check that the nodes answer a next call of the same client."""
        for function, args in (("echo", ("next",)), (function_name("inline", "other"), ("returns",))):
            end = await client.call(function, *args, timeout=AT_ONCE)
            self.check(end.end == "value", f"the next call, of {function}, came to {_shown(end)}")

    def check_stopped(self) -> None:
        """Check that a coroutine was cancelled once and could clean up."""
        if self.cell.way == "async":
            self.check(self.stage.cancelled == 1, f"the coroutine was cancelled {self.stage.cancelled} times")
            if self.cell.loop != "trio":  # trio allows no await in a cancelled scope, by design
                self.check(self.stage.cleaned == 1, "the coroutine could not await in finally")

    async def stopped(self) -> None:
        """Wait until a cancelled coroutine has ended; release other bodies."""
        if self.cell.way == "async":
            with anyio.move_on_after(SETTLES):
                await until(lambda: self.stage.ended > 0)
            self.check_stopped()
        self.release()

    def check_in_time(self, most: float) -> None:
        took = time.monotonic() - self.began
        self.check(took < most, f"it took {took:.2f} s")

    # -- scenes -------------------------------------------------------------------------------------------------------

    async def _plain(self) -> End:
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.call(client, timeout=AT_ONCE)
            self.check_in_time(AT_ONCE)
            if self.cell.way != "processes":
                self.check(self.stage.started == 1, f"the body started {self.stage.started} times")
            await self.check_next(client)
        return end

    async def _deadline(self) -> End:
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.call(client, timeout=DEADLINE)
            self.check_in_time(DEADLINE + GRACE)
            self.check(time.monotonic() - self.began >= DEADLINE, "it ended before its deadline")
            await self.stopped()
            await self.check_next(client)
        return end

    async def _deadline_tiny(self) -> End:
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.call(client, timeout=1e-10)
            self.check_in_time(GRACE)
            await self.check_next(client)
        return end

    async def _queued(self, scene: Callable[[Caller], Awaitable[End]], *, port: int = 0) -> End:
        """Run a scene whose call is queued behind another call, which must get its result."""
        loop, ends = self.cell.loop, []
        async with caller("native-tcp", self.house.asked.port, loop=loop) as first, anyio.create_task_group() as tasks:

            async def block() -> None:
                ends.append(await first.call(self.function(slots=1), "blocks", timeout=bodies.PATIENCE))

            tasks.start_soon(block)
            await until(lambda: self.stage.started > 0)
            async with caller(self.cell.client, port or self.house.asked.port, loop=loop) as client:
                end = await scene(client)
                self.check(self.stage.started == 1, "the call that waits has started")
                self.check(self.stage.cancelled == 0, "the call that runs was cancelled in place of the one that waits")
                await self.settles_queue()
                self.release()
                await until(lambda: bool(ends))
                self.check(ends[0].end == "value", f"the call in front came to {_shown(ends[0])}")
                self.check(self.stage.started == 1, "the call that waited has started after its end")
                await self.check_next(first if end.end == "lost" else client)
        return end

    async def settles_queue(self) -> None:
        """Check that the queued call leaves the queue of its node."""
        left = await settled(lambda: [""] * self.house.node(self.cell.where).view().queued, seconds=SETTLES)
        self.check(not left, "the call that waits is still queued after its end")

    async def _deadline_queued(self) -> End:
        async def scene(client: Caller) -> End:
            end = await self.call(client, slots=1, timeout=DEADLINE)
            self.check_in_time(DEADLINE + GRACE)
            return end

        return await self._queued(scene)

    async def _cancelled_queued(self) -> End:
        async def scene(client: Caller) -> End:
            function, outcome = self.function(slots=1), self.cell.outcome
            return await client.abandon(function, outcome, started=self.waits)

        return await self._queued(scene)

    def waits(self) -> bool:
        """Return whether a call is queued; a node queues as many calls of a function as it has slots."""
        return self.house.node(self.cell.where).view().queued > 0

    async def _unregistered_queued(self) -> End:
        async def scene(client: Caller) -> End:
            return await self.with_call(client, self.unregister, slots=1, when=self.waits)

        try:
            return await self._queued(scene)
        finally:
            self.house.offer(self.cell.way, self.cell.where, slots=1)
            await self.offered(self.function(slots=1))

    async def unregister(self) -> None:
        """Unregister the function of the call, and wait until no node offers it."""
        function = self.function(slots=1 if self.cell.outcome.endswith("-queued") else None)
        self.house.node(self.cell.where).unregister(function)
        await until(lambda: function not in _offered(self.house))

    async def offered(self, function: str) -> None:
        """Wait until the `asked` node lists the function."""
        await until(lambda: function in _offered(self.house))

    async def _changed_while_it_runs(self) -> End:
        """Withdraw or replace the function of a call while its body runs; the body continues."""
        server, function = self.house.node(self.cell.where), self.function()

        async def change() -> None:
            self.change(server)
            if self.cell.outcome == "unregistered":
                await until(lambda: function not in _offered(self.house))
            self.release()

        self.stage.on_start = lambda: self.change(server)
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.call(client) if self.cell.way == "inline" else await self.with_call(client, change)
            after = await client.call(function, "returns", timeout=AT_ONCE)
            if self.cell.outcome == "replaced":
                self.check(after.value == "replaced", f"after that the function gave {_shown(after)}")
            else:
                self.check(after.code == 1001, f"after that the function gave {_shown(after)}")
                await until(lambda: function not in _offered(self.house))
            self.house.offer(self.cell.way, self.cell.where, slots=None)
            await self.offered(function)
            await self.check_next(client)
        return end

    def change(self, server: Server) -> None:
        """Withdraw or replace the function of the cell."""
        if self.cell.outcome == "unregistered":
            server.unregister(self.function())
        else:
            server.register(self.function(), bodies.replacement, replace=True, inline=True)

    async def _vanishes_queued(self) -> End:
        async with proxied(self.house.asked.port) as proxy:

            async def scene(client: Caller) -> End:
                return await self.with_call(client, proxy.cut, slots=1, when=self.waits)

            return await self._queued(scene, port=proxy.port)

    async def with_call(
        self,
        client: Caller,
        act: Callable[[], Awaitable[None]],
        *,
        slots: int | None = None,
        when: Callable[[], bool] | None = None,
    ) -> End:
        """Call, do `act` when the body runs, and wait for the end."""
        ends: list[End] = []

        async def wait() -> None:
            ends.append(await self.call(client, slots=slots))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            true = when or self.started()
            await until(lambda: bool(ends) or true())
            self.check(not ends, "the call ended before its body ran")
            self.began = time.monotonic()
            await act()
            await until(lambda: bool(ends))
            self.check_in_time(AT_ONCE)
        return ends.pop()

    async def _cancelled(self) -> End:
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await client.abandon(self.function(), self.cell.outcome, started=self.started())
            await self.stopped()
            await self.check_next(client)
        return end

    async def _vanishes(self) -> End:
        async with (
            proxied(self.house.asked.port) as proxy,
            caller(self.cell.client, proxy.port, loop=self.cell.loop) as client,
        ):
            end = await self.with_call(client, proxy.cut)
            await self.stopped()
            if self.cell.client in NATIVE:
                await self.check_next(client)  # over another connection
        await self.check_by_another()
        return end

    async def _closes(self) -> End:
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.with_call(client, client.close)
            await self.stopped()
        await self.check_by_another()
        return end

    async def check_by_another(self, port: int = 0) -> None:
        """Check that the node answers another client."""
        async with caller("json-websocket", port or self.house.asked.port, loop=self.cell.loop) as client:
            end = await client.call("echo", "next", timeout=AT_ONCE)
            self.check(end.end == "value", f"the next call, of another client, came to {_shown(end)}")

    def left(self) -> int:
        """Return the port of the node that remains."""
        return (self.house.other if self.cell.where == "asked" else self.house.asked).port

    async def _drains(self) -> End:
        leaving, left = self.house.node(self.cell.where), self.left()
        self.stage.on_start = leaving.leave
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            if self.cell.way == "inline":
                end = await self.call(client)
            else:
                end = await self.with_call(client, self.drain)
        await self.check_by_another(left)
        return end

    async def drain(self) -> None:
        """Drain the node of the call, and then end the body."""
        leaving = self.house.node(self.cell.where)
        leaving.leave()
        others = self.house.nodes
        await until(lambda: all(_sees_draining(one, leaving.name) for one in others if one is not leaving))
        self.release()

    async def _drains_without_grace(self) -> End:
        async def leave() -> None:
            self.house.node(self.cell.where).leave(grace=False)

        left = self.left()
        async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
            end = await self.with_call(client, leave)
            await self.stopped()
        await self.check_by_another(left)
        return end

    async def _killed(self) -> End:
        name, again = child.function(self.cell.way), self.cell.outcome == "killed-idempotent"
        async with child.node(self.cell.way, self.cell.loop, peer=self.house.asked.url, idempotent=again) as process:
            await self.offered(name)
            port = process.port if self.cell.where == "asked" else self.house.asked.port
            ends: list[End] = []
            async with caller(self.cell.client, port, loop=self.cell.loop) as client:

                async def wait() -> None:
                    argument = parcel(self.cell.client, SAMPLE)
                    ends.append(await client.call(name, self.cell.outcome, argument, timeout=bodies.PATIENCE))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    await process.started()
                    self.check(not ends, "the call ended before its node was killed")
                    if again:
                        self.house.offer_as(name, self.cell.way, "asked", idempotent=True)
                    self.began = time.monotonic()
                    process.kill()
                    await until(lambda: bool(ends))
                    self.check_in_time(AT_ONCE)
        await self.check_by_another()
        return ends.pop()

    async def _pool_breaks(self) -> End:
        """End the process of a given pool in a body: the pool breaks, and the node withdraws its function."""
        server, name = self.house.node(self.cell.where), "breaks"
        executor = ProcessPoolExecutor(1, get_context("spawn"))
        try:
            server.register(name, bodies.plain, executor=executor)
            await until(lambda: name in _offered(self.house))
            async with caller(self.cell.client, self.house.asked.port, loop=self.cell.loop) as client:
                end = await client.call(name, self.cell.outcome, timeout=bodies.PATIENCE)
                await self.check_next(client)
                await settled(lambda: [name] if name in _offered(self.house) else [], seconds=SETTLES)
                after = await client.call(name, "returns", timeout=AT_ONCE)
                self.check(after.code == 1001, f"the function of a broken pool is still called: {_shown(after)}")
        finally:
            executor.shutdown(wait=False)
        return end


_SCENES: dict[str, Callable[[_Act], Awaitable[End]]] = {
    "deadline": _Act._deadline,
    "deadline-swallowed": _Act._deadline,
    "deadline-cleanup-raises": _Act._deadline,
    "deadline-queued": _Act._deadline_queued,
    "deadline-tiny": _Act._deadline_tiny,
    "cancelled": _Act._cancelled,
    "cancelled-swallowed": _Act._cancelled,
    "cancelled-queued": _Act._cancelled_queued,
    "unregistered": _Act._changed_while_it_runs,
    "unregistered-queued": _Act._unregistered_queued,
    "replaced": _Act._changed_while_it_runs,
    "vanishes": _Act._vanishes,
    "vanishes-queued": _Act._vanishes_queued,
    "closes": _Act._closes,
    "drains": _Act._drains,
    "drains-without-grace": _Act._drains_without_grace,
    "killed": _Act._killed,
    "killed-idempotent": _Act._killed,
    "pool-breaks": _Act._pool_breaks,
}


class _Errors(logging.Handler):
    """Collects what is logged as an error, which a user's call must never cause, and formats every line."""

    _LOGGERS = ("mpreg", "mpreg_transports", "asyncio", "concurrent.futures")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self.lines.append(text[:300] + (" ... " + text[-300:] if len(text) > 600 else text[300:]))

    def __enter__(self) -> None:
        for name in self._LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.propagate = False

    def __exit__(self, *details: object) -> None:
        for name in self._LOGGERS:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.propagate = True


def _differs(want: Want, end: End) -> list[str]:
    """Return the differences between what the caller saw and what it must see."""
    wanted = " ".join(str(part) for part in want if part not in (None, "", 0))
    if want.or_value and end.end == "value":
        return []
    if (end.end, end.code) != (want.end, want.code):
        return [f"expected {wanted}, came {_shown(end)}"]
    found = []
    if want.type and not str(end.details.get("type", "")).endswith(want.type):
        found.append(f"expected the type {want.type}, came {str(end.details.get('type'))[:100]!r}")
    if want.maybe_executed is not None and end.details.get("maybe_executed") is not want.maybe_executed:
        found.append(f"expected maybe_executed={want.maybe_executed}, came {end.details.get('maybe_executed')}")
    return found


def _is_odd(cell: Cell, end: End, house: House) -> list[str]:
    """Return the defects of a result or an error that are independent of the table."""
    if end.end == "value":
        return [] if _right(cell, end.value) else [f"the value is {str(end.value)[:100]!r}"]
    if end.end != "error":
        return []
    found: list[str] = []
    size = len(end.message) + len(repr(end.details))
    if size > LONGEST_ERROR:
        found.append(f"the error is {size} characters long")
    if end.code == 1003 and cell.outcome == "returns-nan":  # the `asked` node raises this one for JSON
        return found + ([] if "cannot be sent as JSON" in end.message else [f"the message is {end.message[:200]!r}"])
    if end.code == 1003:
        facts = {"function": end.details.get("function"), "node": str(end.details.get("node")).partition("#")[0]}
        wanted = {"function": function_name(cell.way, cell.where), "node": house.node(cell.where).name}
        if facts != wanted:
            found.append(f"the details say {facts}, not {wanted}")
    return found


def _right(cell: Cell, value: Any) -> bool:
    if cell.outcome == "returns-nothing":
        return value is None
    if cell.outcome == "returns-nan":
        return isinstance(value, float) and value != value
    text = value.text if isinstance(value, bodies.Parcel) else value
    return bool(text == f"{cell.outcome} of {SAMPLE} with ballast")


def _shown(end: End) -> str:
    if end.end == "error":
        return f"error {end.code}: {end.message[:200]}"
    return f"{end.end}: {str(end.value)[:100] or ''}{end.message[:500]}"


def _grown(before: dict[str, int], now: dict[str, int]) -> list[str]:
    return [
        f"{name}: {size} entries, before {before.get(name, 0)}"
        for name, size in now.items()
        if size > before.get(name, 0)
    ]


def _offered(house: House) -> set[str]:
    return {row.function for row in house.asked.view().functions}


def _sees_draining(server: Server, name: str) -> bool:
    return all(row.standing == "draining" for row in server.view().members if row.name == name)


def _leaves(error: BaseException | None) -> list[str]:
    """Return the texts of an exception or of all exceptions of a group, with the place where each was raised."""
    if isinstance(error, BaseExceptionGroup):
        return [text for one in error.exceptions for text in _leaves(one)]
    if error is None:
        return ["no exception is known"]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return [f"{type(error).__name__}: {str(error)[:300]}{place}"]


def _at(error: BaseException) -> str:
    """Return the innermost line of the edge matrix in a traceback."""
    at, line = error.__traceback__, ""
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if f"{os.sep}edges{os.sep}" in name:
            line = f" ({os.path.basename(name)}:{at.tb_lineno})"
        at = at.tb_next
    return line


@asynccontextmanager
async def on_loop(loop: str, pool: Pool) -> AsyncIterator[Cells]:
    """Yield the `Cells` of the running event loop, which is `loop`."""
    async with anyio.create_task_group() as tasks:
        cells = Cells(loop, tasks, pool)
        try:
            yield cells
        finally:
            await cells.leave()
            tasks.cancel_scope.cancel()
