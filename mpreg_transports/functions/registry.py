"""The functions that a node offers, by name: described, checked, and looked up by the driver for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from mpreg_proto.limits import Limits
from mpreg_transports.config.validation import check_function, check_length, check_name, warn_of_collisions
from mpreg_transports.functions.execution import Function, built_in
from mpreg_transports.functions.execution import function as make_function
from mpreg_transports.functions.pools import ExecutorSource, Pool, Pools, not_importable
from mpreg_transports.functions.process_pool import check_importable, process_pool


class FunctionRegistry(MutableMapping[str, Function]):
    """A mapping from names to functions. It contains those that every node offers from the start.

    It is read and changed in the thread of the node's event loop, or by any thread before the node runs.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pools = Pools()
        self._processes = 0
        self._process_pool: Pool | None = None
        """The pool of the node's own processes; None without any."""
        self._functions: dict[str, Function] = {one.spec.name: one for one in built_in()}

    def describe(
        self,
        name: str | None,
        call: Callable[..., Any],
        *,
        version: str,
        resources: Iterable[str],
        idempotent: bool,
        concurrency: int | None,
        queue: int | None,
        executor: ExecutorSource | None,
        inline: bool,
    ) -> Function:
        """Return `call` as a function of that name (None: its own), which is not in the registry yet.

        Raises TypeError or ValueError for invalid options; warns of parameters that collide.
        """
        check_function(version=version, concurrency=concurrency, queue=queue, executor=executor)
        if name is not None:
            check_name(name, "a function's name", self._limits)
        described = make_function(
            call,
            name=name,
            version=version,
            resources=resources,
            idempotent=idempotent,
            concurrency=concurrency,
            queue=queue,
            executor=None if executor is None else self._pools.pool_for(executor),
            inline=inline,
        )
        check_name(described.spec.name, "a function's name", self._limits)
        check_length(version, "a version", self._limits)
        for tag in described.spec.resources:
            check_length(tag, "a resource", self._limits)
        if described.for_processes and self._process_pool is not None:
            self._process_pool.check(described.spec.name, call, make=True)
            described.move(self._process_pool, self._processes)
        warn_of_collisions(described.spec.name, call)
        return described

    def use_processes(self, count: int) -> None:
        """Run the `def` functions without an executor in `count` processes; 0: in threads. Not while the node runs."""
        if count == self._processes and (self._process_pool is None or not self._process_pool.closed_reason):
            return
        self._processes = count
        self._process_pool = process_pool(count) if count else None
        for one in self._functions.values():
            if one.for_processes:
                one.move(self._process_pool, count)

    def unchecked(self) -> dict[str, Function]:
        """Return the functions of which `check_importable` has to find out whether processes can import them."""
        return {
            name: one
            for name, one in self._functions.items()
            if one.pool is not None and (one.pool is self._process_pool or not_importable(one.call) is not None)
        }

    def check_importable(self) -> None:
        """Start the node's processes, if it has any, and raise CannotImport for functions that they cannot import.

        The same for functions whose executor a function makes. It blocks until the processes have started.
        """
        unchecked = self.unchecked()
        own = {name: one.call for name, one in unchecked.items() if one.pool is self._process_pool}
        if self._process_pool is not None and own:
            check_importable(self._process_pool, own)
        for name, one in unchecked.items():
            if one.pool is not None:
                one.pool.check(name, one.call, make=True)

    def end_processes(self) -> None:
        """End the processes of the node; the next call would start others."""
        if self._process_pool is not None:
            self._process_pool.close()

    def check_free(self, name: str) -> None:
        """Raise ValueError if a function of that name exists."""
        if name in self._functions:
            raise ValueError(f"a function {name!r} is registered already; replace=True puts this one in its place")

    def check_present(self, name: str) -> None:
        """Raise KeyError unless a function of that name exists."""
        if name not in self._functions:
            raise KeyError(f"no function {name!r} is registered; there are {', '.join(self._functions)}")

    def __getitem__(self, name: str) -> Function:
        return self._functions[name]

    def __setitem__(self, name: str, function: Function) -> None:
        self._functions[name] = function

    def __delitem__(self, name: str) -> None:
        del self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)
