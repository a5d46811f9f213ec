"""The functions that a node offers, by name: described, checked, and looked up by the driver for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from mpreg_proto.limits import Limits
from mpreg_transports.config.validation import check_function, check_length, check_name, warn_of_collisions
from mpreg_transports.functions.execution import Function, built_in
from mpreg_transports.functions.execution import function as make_function
from mpreg_transports.functions.pools import ExecutorSource, Pools


class FunctionRegistry(MutableMapping[str, Function]):
    """A mapping from names to functions. It contains those that every node offers from the start.

    It is read and changed in the thread of the node's event loop, or by any thread before the node runs.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pools = Pools()
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
        warn_of_collisions(described.spec.name, call)
        return described

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
