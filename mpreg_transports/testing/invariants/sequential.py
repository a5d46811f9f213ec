"""The oracle of invariant 8: a request evaluated in plain Python, one call after the other.

It calls only functions that are known to be pure: those that a user names, or those that provably hold no state. A
function that counts its runs would count these runs too.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Callable, Mapping
from functools import lru_cache
from inspect import isasyncgen, iscoroutine, isgenerator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mpreg_proto.wire.messages import Call, ItemsParameter, Request
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.functions.execution import built_in
from mpreg_transports.functions.iterators import items_parameter, with_iterator
from mpreg_transports.functions.progress import SILENT, Injected, injected_parameter
from mpreg_transports.functions.sleep import in_virtual_time, sleep
from mpreg_transports.testing.invariants.oracles import substituted
from mpreg_transports.testing.simulation.functions import Fn

Pure = Mapping[str, Callable[..., Any]]
_WORLDLY = ("eval", "exec", "globals", "input", "open", "print", "setattr", "vars")
"""Builtins through which a function may access more than its arguments."""
_CONSTANT = (int, float, complex, str, bytes, bool, type(None))


class Failure:
    """A call that raises, or that does not run because a dependency failed (`kind` is empty)."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind: str = kind


class KnownPure:
    """The functions that hold no state, of all lives of all nodes so far, with echo and echos.

    A function that differs between nodes, or between lives, is left out.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Callable[..., Any]] = {one.spec.name: one.call for one in built_in()}
        self._unclear: dict[str, None] = {}
        self._verdicts: dict[int, tuple[object, bool]] = {}
        """Whether a function holds no state, by its id."""

    def add(self, functions: Mapping[str, Fn]) -> None:
        """Add the functions of one life."""
        for name, fn in functions.items():
            if name in self._unclear:
                continue
            if not self._stateless(fn.call) or self.calls.setdefault(name, fn.call) is not fn.call:
                self._unclear[name] = None
                self.calls.pop(name, None)

    def _stateless(self, call: object) -> bool:
        known = self._verdicts.get(id(call))
        if known is None:
            known = self._verdicts[id(call)] = call, stateless(call)
        return known[1]


def stateless(call: object) -> bool:
    """Return whether a function provably holds no state.

    Such a function has no closure and no mutable defaults. Of its module it uses only constants, the standard library,
    other such functions and `mpreg_transports.sleep`. The check is cautious: it rejects many functions that are pure.
    """
    return _stateless(call, {})


def _stateless(call: object, seen: dict[CodeType, None]) -> bool:
    if call is sleep:
        return True
    if type(call) is not FunctionType or call.__closure__ is not None:
        return False
    defaults = (*(call.__defaults__ or ()), *(call.__kwdefaults__ or {}).values())
    if not all(isinstance(default, _CONSTANT) for default in defaults):
        return False
    if call.__code__ in seen:
        return True
    seen[call.__code__] = None
    for name in _names(call.__code__):
        if name not in call.__globals__:
            continue  # a builtin, or an attribute
        value = call.__globals__[name]
        if not isinstance(value, _CONSTANT) and not _of_the_library(value) and not _stateless(value, seen):
            return False
    return not any(name in _WORLDLY for name in _names(call.__code__))


def _of_the_library(value: object) -> bool:
    """Return whether a value is a module or type of the standard library; those of users may hold state."""
    if isinstance(value, ModuleType):
        name = value.__name__
    elif isinstance(value, type):
        name = value.__module__
    else:
        return False
    return name.partition(".")[0] in sys.stdlib_module_names


def _names(code: CodeType) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _names(constant)
    return names


def evaluate(request: Request, pure: Pure, codec: ValueCodec) -> dict[str, bytes | Failure]:
    """Return the encoded result or the failure of each call.

    Calls of unknown functions, and all calls that depend on them, are left out.
    """
    results: dict[str, bytes | Failure] = {}
    unknown: dict[str, None] = {}
    calls = {call.name: call for call in request.calls}
    waiting = list(calls)
    while waiting:  # a call without all its inputs goes to the back; the graph has no cycle, so this ends
        later: list[str] = []
        for name in waiting:
            needs = [need for need in calls[name].dependencies if need in calls]
            if any(need not in results and need not in unknown for need in needs):
                later.append(name)
            elif calls[name].function not in pure or any(need in unknown for need in needs):
                unknown[name] = None
            elif any(isinstance(results[need], Failure) for need in needs):
                if takes_items(pure[calls[name].function]):  # it may end before the generator fails
                    unknown[name] = None
                else:
                    results[name] = Failure("")
            else:
                given = {need: results.get(need, request.inputs.get(need)) for need in calls[name].dependencies}
                results[name] = _apply(calls[name], pure[calls[name].function], given, codec)
        assert len(later) < len(waiting), "calls wait in a circle"
        waiting = later
    return results


def arguments(call: Call, given: Mapping[str, Any], codec: ValueCodec) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call. `given` holds encoded results.

    Raises LookupError or TypeError for an invalid path.
    """
    values = {need: codec.decode(given[need]) for need in call.dependencies if given.get(need) is not None}
    args, kwargs = substituted(codec.decode(call.args), values)
    return args, kwargs


def _apply(call: Call, function: Callable[..., Any], given: Mapping[str, Any], codec: ValueCodec) -> bytes | Failure:
    try:
        args, kwargs = arguments(call, given, codec)
    except (LookupError, TypeError):
        return Failure("")
    try:
        return codec.encode(result_of(function, args, kwargs))
    except Exception as error:  # a user's function may raise anything
        return Failure(type(error).__name__)


def result_of(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Return the value of a call, with a silent reporter and an iterator over a list where the function has them.

    Raises whatever the function raises.
    """
    injected, items = _special_parameters(function)
    if items is not None:
        args, kwargs = with_iterator(items, args, kwargs, None)
    if injected is not None:
        args, kwargs = injected.add(SILENT, args, kwargs)
    return returned(function(*args, **kwargs))


def takes_items(function: Callable[..., Any]) -> bool:
    """Return whether a function takes the items of a generator one by one."""
    return _special_parameters(function)[1] is not None


@lru_cache(maxsize=1024)
def _special_parameters(function: Callable[..., Any]) -> tuple[Injected | None, ItemsParameter | None]:
    injected = injected_parameter("", function)
    return injected, items_parameter("", function, progress=injected, is_async=True)


async def _all_items(generator: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in generator]


def returned(value: Any) -> Any:
    """Return the value of a function or of its coroutine, of a generator the list of its items.

    Each sleep in it takes no time.
    """
    if isgenerator(value):
        return list(value)
    if isasyncgen(value):
        value = _all_items(value)
    if not iscoroutine(value):
        return value
    with in_virtual_time():
        while True:
            try:
                value.send(None)
            except StopIteration as end:
                return end.value
