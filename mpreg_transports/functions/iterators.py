"""Parameters annotated `AsyncIterator`: found at registration, and filled with an iterator when a function starts.

If the argument is the result of a generator that runs, its items come one by one from the driver (`Feed`), and each
that the function takes lets the generator produce another one. Any other list becomes an iterator over its items.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import anyio

from mpreg_proto.describe import short_name
from mpreg_proto.wire.messages import ItemsParameter
from mpreg_transports.functions.progress import Injected, parameters_of

_KINDS: Final = (AsyncIterator, AsyncIterable)
_NAMES: Final = re.compile(r"['\" ]*(\w+\.)*(AsyncIterator|AsyncIterable)\b")
"""An annotation as text that could not be evaluated."""


class ItemIterator(AsyncIterator[Any]):
    """The iterator that a function gets. `took` is called for each item that the function takes."""

    __slots__ = ("_arrived", "_items", "_last", "_took")

    def __init__(
        self, items: Iterable[Any] = (), *, last: bool = True, took: Callable[[], object] | None = None
    ) -> None:
        """`last`: no more items come than these; else they come by `feed`."""
        self._items: deque[Any] = deque(items)
        self._last = last
        self._took = took
        self._arrived: anyio.Event | None = None

    def feed(self, items: Iterable[Any], last: bool) -> None:
        """Add the next items, in the event loop's thread."""
        self._items.extend(items)
        self._last = last
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    def close(self) -> None:
        """Drop all items, as its function has ended."""
        self._items.clear()
        self.feed((), True)

    async def __anext__(self) -> Any:
        """Return the next item. Waits for it; raises StopAsyncIteration after the last one."""
        while not self._items:
            if self._last:
                raise StopAsyncIteration
            await self._wait()
        item = self._items.popleft()
        if self._took is not None:
            self._took()
        return item

    async def _wait(self) -> None:
        """Wait for `feed`."""
        if self._arrived is None:
            self._arrived = anyio.Event()
        await self._arrived.wait()


def with_iterator(
    parameter: ItemsParameter, args: list[Any], kwargs: dict[str, Any], iterator: ItemIterator | None
) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments in which `iterator` is that of the parameter, or one over the list that its caller passed.

    Raises TypeError if its caller passed something else; None is left as it is.
    """
    if 0 <= (place := parameter.place) < len(args):
        args = [*args[:place], iterator or _over(parameter, args[place]), *args[place + 1 :]]
    elif parameter.name in kwargs:
        kwargs = {**kwargs, parameter.name: iterator or _over(parameter, kwargs[parameter.name])}
    return args, kwargs


def _over(parameter: ItemsParameter, value: Any) -> ItemIterator | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        kind = short_name(type(value))
        raise TypeError(f"{parameter.name!r} is annotated AsyncIterator: expected the items in a list, got {kind}")
    return ItemIterator(value)


def items_parameter(
    name: str, call: Callable[..., Any], *, progress: Injected | None, is_async: bool
) -> ItemsParameter | None:
    """Return the parameter of `call` that is annotated `AsyncIterator` or `AsyncIterable`, as callers see it, or None.

    Raises TypeError unless the function `is_async`; ValueError if there are two, or if it takes many arguments.
    """
    found = [one for one in parameters_of(call) if _takes_items(one[1].annotation)]
    if not found:
        return None
    place, parameter = found[0]
    if not is_async:
        raise TypeError(
            f"{name}: parameter {parameter.name!r} is annotated AsyncIterator, which only an async def function can "
            "iterate; write async def, or annotate it list, and it gets the list of all items"
        )
    if len(found) > 1:
        raise ValueError(f"{name}: two parameters are annotated AsyncIterator; annotate the others list")
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise ValueError(f"{name}: *{parameter.name} is annotated AsyncIterator; annotate one plain parameter")
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return ItemsParameter(parameter.name)
    before = progress is not None and progress.place is not None and progress.place < place
    return ItemsParameter(parameter.name, place - before)


def _takes_items(annotation: object) -> bool:
    """Return whether an annotation is `AsyncIterator` or `AsyncIterable` of anything, its text, or a union with it."""
    if isinstance(annotation, str):
        return _NAMES.match(annotation) is not None
    origin = get_origin(annotation)
    if origin in (UnionType, Union):
        return any(map(_takes_items, get_args(annotation)))
    return annotation in _KINDS or origin in _KINDS
