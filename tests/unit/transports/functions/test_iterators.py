"""Parameters annotated `AsyncIterator`: found at registration, filled at the start of a body."""

import collections.abc
import typing
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mpreg_proto.effects import Run
from mpreg_proto.ids import RunId
from mpreg_proto.wire.messages import ItemsParameter
from mpreg_transports import Progress
from mpreg_transports.functions.execution import Function, function
from mpreg_transports.functions.iterators import ItemIterator

if typing.TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


async def plain(rows: AsyncIterator[int]) -> None: ...
async def old(rows: typing.AsyncIterator[int]) -> None: ...
async def bare(rows: AsyncIterator) -> None: ...  # type: ignore[type-arg]
async def iterable(rows: AsyncIterable[int]) -> None: ...
async def text(rows: "AsyncIterator[int]") -> None: ...
async def unknown(rows: "collections.abc.AsyncIterator[Missing]", other: "Missing") -> None: ...
async def optional(rows: AsyncIterator[int] | None = None) -> None: ...
async def generator(rows: AsyncIterator[int]) -> AsyncIterator[int]:
    async for row in rows:
        yield row


async def second(first: int, rows: AsyncIterator[int]) -> None: ...
async def by_name(first: int, *, rows: AsyncIterator[int]) -> None: ...
async def after_progress(progress: Progress, first: int, rows: AsyncIterator[int]) -> None: ...
async def before_progress(rows: AsyncIterator[int], progress: Progress) -> None: ...


@pytest.mark.parametrize(
    ("call", "place"),
    [(one, 0) for one in (plain, old, bare, iterable, text, unknown, optional, generator, before_progress)]
    + [(second, 1), (by_name, -1), (after_progress, 1)],
)
def test_parameter_that_takes_items(call: Any, place: int) -> None:
    assert function(call).spec.consumes == ItemsParameter("rows", place)


async def lists(rows: list[int], many: "list[AsyncIterator[int]]", *more: dict[str, int]) -> None: ...
async def returns() -> AsyncIterator[int]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize("call", [lists, returns, len])
def test_functions_that_take_no_items(call: Any) -> None:
    assert function(call).spec.consumes is None


def test_functions_that_cannot_take_items() -> None:
    def blocking(rows: AsyncIterator[int]) -> None: ...
    async def two(rows: AsyncIterator[int], others: AsyncIterable[int]) -> None: ...
    async def many(*rows: AsyncIterator[int]) -> None: ...
    async def named(**rows: AsyncIterator[int]) -> None: ...

    with pytest.raises(TypeError, match="only an async def function can iterate; write async def, or annotate it list"):
        function(blocking)
    with pytest.raises(ValueError, match="two parameters are annotated AsyncIterator"):
        function(two)
    for call in (many, named):
        with pytest.raises(ValueError, match="annotate one plain parameter"):
            function(call)


def filled(made: Function, *args: Any, iterator: ItemIterator | None = None, **kwargs: Any) -> tuple[Any, Any]:
    run = Run(RunId(1), "f", list(args), kwargs, 0)
    found = made.arguments(run, iterator=iterator)
    assert (run.args, run.kwargs) == (list(args), kwargs), "the run itself stays as it is"
    return found


@pytest.mark.anyio
async def test_lists_become_iterators() -> None:
    for value in ([1, 2], (1, 2)):
        for args, kwargs in (filled(function(second), 5, value), filled(function(second), 5, rows=value)):
            rows = kwargs["rows"] if kwargs else args[1]
            assert args[0] == 5 and [row async for row in rows] == [1, 2]
    args, kwargs = filled(function(by_name), [3], rows=[4])
    assert args == [[3]] and [row async for row in kwargs["rows"]] == [4]
    args, _ = filled(function(after_progress), [3], [4])
    assert isinstance(args[0], Progress) and args[1] == [3] and [row async for row in args[2]] == [4]


def test_arguments_that_are_no_list() -> None:
    assert filled(function(optional)) == ([], {}) and filled(function(optional), None) == ([None], {})
    for value in (5, "text", {1: 2}):
        with pytest.raises(TypeError, match="'rows' is annotated AsyncIterator: expected the items in a list, got"):
            filled(function(second), 5, value)


def test_iterator_of_a_fed_run() -> None:
    iterator = ItemIterator(last=False)
    assert filled(function(second), 5, None, iterator=iterator) == ([5, iterator], {})
    assert filled(function(by_name), 5, rows=None, iterator=iterator) == ([5], {"rows": iterator})


@pytest.mark.anyio
async def test_items_that_come_later() -> None:
    taken: list[None] = []
    iterator = ItemIterator(last=False, took=lambda: taken.append(None))
    seen: list[int] = []

    async def iterate() -> None:
        async for item in iterator:
            seen.append(item)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        iterator.feed([1, 2], False)
        await anyio.wait_all_tasks_blocked()
        assert seen == [1, 2] and len(taken) == 2
        iterator.feed([3], True)
    assert seen == [1, 2, 3]
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


@pytest.mark.anyio
async def test_two_tasks_share_an_iterator() -> None:
    iterator, seen = ItemIterator(last=False), list[int]()

    async def iterate() -> None:
        async for item in iterator:
            seen.append(item)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        for number in range(3):
            iterator.feed([number], number == 2)
            await anyio.wait_all_tasks_blocked()
    assert seen == [0, 1, 2]


@pytest.mark.anyio
async def test_closed_iterator_ends() -> None:
    iterator = ItemIterator([1, 2], last=False)
    assert await anext(iterator) == 1
    iterator.close()
    assert [item async for item in iterator] == []
