"""Cells on an event loop in a thread of its own, for callers without one: the tests and the command.

A node may end its event loop or block it forever. Then the cell has failed, and the next cells get a new event loop.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal

from tests.edges.bodies import PATIENCE
from tests.edges.cells import Cells, on_loop
from tests.edges.house import Pool, loop_options
from tests.edges.table import Cell

_STUCK = 3 * PATIENCE


class Runner:
    """Runs the cells of one event loop, from any thread; use it in a `with` statement."""

    def __init__(self, loop: str) -> None:
        self._loop = loop
        self._pool: Pool | None = None
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._cells: Cells | None = None

    def __enter__(self) -> Runner:
        self._pool = Pool()
        return self

    def __exit__(self, *details: object) -> None:
        self._end()
        assert self._pool is not None
        self._pool.close()

    def run(self, cell: Cell) -> list[str]:
        """Return the defects of a cell as text."""
        if self._portal is None:
            self._start()
        assert self._portal is not None and self._cells is not None
        try:
            return self._portal.start_task_soon(self._cells.run, cell).result(_STUCK)
        except TimeoutError:
            found = f"the event loop did not come back within {_STUCK:g} s"
        except BaseException as error:
            found = f"the event loop ended: {type(error).__name__}: {error}"
        self._portal = None  # the portal is unusable
        self._stack = ExitStack()
        return [found]

    def _start(self) -> None:
        ready: Future[BlockingPortal] = Future()
        thread = threading.Thread(target=self._main, args=(ready,), name="edges loop", daemon=True)
        thread.start()
        self._portal = ready.result(_STUCK)
        self._stack.callback(thread.join, _STUCK)
        self._stack.callback(self._portal.call, self._portal.stop)
        assert self._pool is not None
        self._cells = self._stack.enter_context(
            self._portal.wrap_async_context_manager(on_loop(self._loop, self._pool))
        )

    def _main(self, ready: Future[BlockingPortal]) -> None:
        async def serve() -> None:
            async with BlockingPortal() as portal:
                ready.set_result(portal)
                await portal.sleep_until_stopped()

        options: dict[str, Any] = loop_options(self._loop)
        with suppress(BaseException):  # `run` has reported it
            anyio.run(serve, **options)

    def _end(self) -> None:
        self._portal = None
        self._stack.close()
