"""A set of calls that refer to each other's results, built in Python and checked while it is built.

`Graph.call` returns a handle. A handle as an argument, at any depth in lists, tuples and dict values, stands for the
result of that call, and `handle["key"]` or `handle[0]` for a part of it. A handle must exist before it can be used, so
a graph cannot have a cycle. Nothing is sent before `run`, `stream` or `explain`. User data can never become a
reference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Protocol

from mpreg_proto.errors import DuplicateName, InvalidRequest
from mpreg_proto.wire.encode_errors import CONTAINS_ITSELF, UnsendableValue, find_self_reference
from mpreg_proto.wire.jsonvalues import dumps, to_json
from mpreg_proto.wire.messages import Call, Explained, Request
from mpreg_proto.wire.value_limits import MAX_DEPTH, step
from mpreg_proto.wire.values import Ref, ValueCodec
from mpreg_transports.config.validation import check_encodable, unsendable
from mpreg_transports.functions.execution import tags
from mpreg_transports.functions.progress import ProgressReport
from mpreg_transports.values import default_codec

OnError = Literal["fail", "partial"]


class Caller(Protocol):
    """An object that can run a graph: a `Client`."""

    async def run(
        self,
        graph: Graph,
        *outputs: Handle,
        timeout: float | None,
        wait: float | None,
        on_error: OnError,
        retry: bool,
        on_progress: Callable[[ProgressReport], object] | None,
    ) -> Any: ...
    def stream(self, graph: Graph, *, timeout: float | None, wait: float | None) -> AsyncIterator[tuple[str, Any]]: ...
    async def explain(self, graph: Graph) -> tuple[Explained, ...]: ...


class Handle:
    """A reference to the result of a call that has not run.

    It is valid only as an argument of later calls, and for `run(handle)`.
    """

    __slots__ = ("graph", "name", "path")
    __unsendable__ = "the result of a call that has not run; run the graph first, or add this call to it by graph.call"

    def __init__(self, graph: Graph, name: str, path: tuple[str | int, ...] = ()) -> None:
        self.graph: Graph = graph
        self.name: str = name
        self.path: tuple[str | int, ...] = path

    def __getitem__(self, key: str | int) -> Handle:
        """Return a handle for a part of the result: a key of a map, a position (from 0) of a list."""
        if type(key) is not str and (type(key) is not int or key < 0):
            raise TypeError(f"a part of a result is named by text or a position from 0 on, not by {key!r}")
        return Handle(self.graph, self.name, (*self.path, key))

    def __repr__(self) -> str:
        return f"<result of {self.name}{''.join(f'[{key!r}]' for key in self.path)}, not computed yet>"

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"the result of {self.name!r} is not computed yet: pass the handle to another call, or run the graph"
        )

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __bool__(self) -> bool:
        return self._refuse()

    def __len__(self) -> int:
        return self._refuse()

    def __int__(self) -> int:
        return self._refuse()

    def __float__(self) -> float:
        return self._refuse()

    def __index__(self) -> int:
        return self._refuse()

    def __str__(self) -> str:
        return self._refuse()

    def __format__(self, spec: str) -> str:
        return self._refuse()

    def __contains__(self, item: object) -> NoReturn:
        self._refuse()

    def __lt__(self, other: object) -> NoReturn:
        self._refuse()

    def __le__(self, other: object) -> NoReturn:
        self._refuse()

    def __gt__(self, other: object) -> NoReturn:
        self._refuse()

    def __ge__(self, other: object) -> NoReturn:
        self._refuse()


class Graph:
    """The calls that are sent as one request. `Client.graph()` returns a graph that is bound to its client.

    This one is passed to `client.run(graph)`.
    """

    def __init__(self, client: Caller | None = None, *, codec: ValueCodec | None = None) -> None:
        self._client = client
        self._codec = codec or default_codec()
        self._calls: dict[str, Call] = {}
        self._numbers: dict[str, int] = {}
        self._native: dict[str, str] = {}
        """For each call, the option that the classic dialect cannot represent."""

    def call(
        self,
        function: str,
        /,
        *args: Any,
        resources: Iterable[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        version: str | None = None,
        after: Iterable[Handle] = (),
        **more: Any,
    ) -> Handle:
        """Add a call. `after` names calls that must end before it starts although it uses none of their results.

        `name` is its name in the results; the default is the function's name, then `echo-2`. A function's own keyword
        that this method uses itself is passed by `kwargs={"name": ...}`. Raises TypeError or a GraphError for invalid
        arguments; then nothing has changed.
        """
        check_function_name(function, version)
        name = self._free_name(function) if name is None else self._checked_name(name)
        dependencies: dict[str, None] = {}
        named = {**kwargs, **more} if kwargs else more
        memo: dict[int, Any] = {}
        try:
            positional = [self._to_reference(arg, dependencies, memo, 2) for arg in args]
            keywords = (
                {key: self._to_reference(value, dependencies, memo, 2) for key, value in named.items()}
                if named
                else named
            )
        except _SelfReference:
            place, holder = find_self_reference([list(args), named], _inside) or ("$", args)
            raise unsendable(name, UnsendableValue(place, type(holder).__name__, CONTAINS_ITSELF)) from None
        used = len(dependencies)
        for handle in [after] if isinstance(after, Handle) else after:
            self._add_dependency(handle, dependencies)
        try:
            encoded = self._codec.encode([positional, keywords])
        except UnsendableValue as error:
            raise unsendable(name, error) from None
        checked = checked_resources(resources)
        self._calls[name] = Call(name, function, encoded, tuple(dependencies), checked, version)
        if version is not None or len(dependencies) > used:
            self._native[name] = "version=" if version is not None else "after="
        return Handle(self, name)

    async def run(
        self,
        *outputs: Handle,
        timeout: float | None = None,
        wait: float | None = None,
        on_error: OnError = "fail",
        retry: bool = False,
        on_progress: Callable[[ProgressReport], object] | None = None,
    ) -> Any:
        """Run the graph and return `{leaf name: value}`; with one handle its value, with several a tuple of values.

        `timeout` and `wait` are seconds; see `Client.run`. With handles only the calls that they depend on are sent.
        """
        return await self._require_client().run(
            self,
            *outputs,
            timeout=timeout,
            wait=wait,
            on_error=on_error,
            retry=retry,
            on_progress=on_progress,
        )

    def stream(self, *, timeout: float | None = None, wait: float | None = None) -> AsyncIterator[tuple[str, Any]]:
        """Run the graph and yield each leaf's (name, value) as soon as it arrives."""
        return self._require_client().stream(self, timeout=timeout, wait=wait)

    async def explain(self) -> tuple[Explained, ...]:
        """Return where each call would run now, and why. Runs nothing."""
        return await self._require_client().explain(self)

    def request(self, *outputs: Handle, partial: bool = False, **fields: Any) -> Request:
        """Return the request that `run` sends. With `outputs` it holds only the calls that those depend on."""
        if not self._calls:
            raise InvalidRequest("this graph has no calls yet; add one with graph.call(...)")
        calls = self._calls
        want: tuple[str, ...] | None = None
        if outputs:
            for handle in outputs:
                self._add_dependency(handle, {})
            want = tuple(dict.fromkeys(handle.name for handle in outputs))
            calls = self._with_dependencies(want)
        return Request(0, tuple(calls.values()), want=want, partial=partial, **fields)

    def commands(self) -> list[dict[str, Any]]:
        """Return the calls in the classic dialect with explicit references, as `mpreg run` reads them from a file.

        Raises TypeError for an argument that JSON cannot represent, with its place, and for `after=` and `version=`.
        """
        commands: list[dict[str, Any]] = []
        for name, word in self._native.items():
            raise TypeError(f"call {name!r}: {word} has no form in a JSON request; leave it out, or run the graph here")
        for name, call in self._calls.items():
            decoded: Any = self._codec.decode(call.args)  # as they were when the call was added
            args, kwargs = decoded
            try:
                commands.append(
                    {
                        "name": name,
                        "fun": call.function,
                        "args": self._as_json(args, "$[0]"),
                        "kwargs": {key: self._as_json(value, f"$[1]{step(key)}") for key, value in kwargs.items()},
                        "locs": list(call.resources),
                    }
                )
            except UnsendableValue as error:
                raise unsendable(name, error) from None
        return commands

    def save(self, file: str | PathLike[str]) -> None:
        """Write the graph as JSON for `mpreg run FILE` and `mpreg explain FILE`."""
        request = {"role": "rpc", "refs": "explicit", "cmds": self.commands()}
        Path(file).write_text(json.dumps(json.loads(dumps(request)), indent=1, ensure_ascii=False) + "\n", "utf-8")

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"Graph({'; '.join(describe_call(call, self._codec) for call in self._calls.values())})"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _require_client(self) -> Caller:
        if self._client is None:
            raise TypeError("this graph knows no client: use client.run(graph), or make it with client.graph()")
        return self._client

    def _checked_name(self, name: str) -> str:
        if name in self._calls:
            raise DuplicateName(f"two calls are named {name!r}; names are unique in a graph", details={"name": name})
        if not name or type(name) is not str:
            raise InvalidRequest(f"a call's name is a non-empty text, not {name!r}")
        check_encodable(name, "a call's name")
        return name

    def _free_name(self, function: str) -> str:
        if function not in self._calls:
            return function
        number = self._numbers.get(function, 1)
        while True:
            number += 1
            name = f"{function}-{number}"
            if name not in self._calls:
                self._numbers[function] = number
                return name

    def _add_dependency(self, handle: Handle, dependencies: dict[str, None]) -> None:
        if not isinstance(handle, Handle):
            raise TypeError(f"expected a handle of this graph, got {type(handle).__name__}")
        if handle.graph is not self:
            raise InvalidRequest(f"the handle of {handle.name!r} belongs to another graph")
        dependencies[handle.name] = None

    def _to_reference(self, value: Any, dependencies: dict[str, None], memo: dict[int, Any], depth: int) -> Any:
        """Return `value` with each handle in it replaced by a reference; the same object if it contains no handle.

        `value` lies within `depth` containers. `memo` holds the containers that were already converted. A value that is
        nested too deep is returned unchanged.
        """
        kind = type(value)
        if kind is Handle:
            self._add_dependency(value, dependencies)
            return Ref(value.name, value.path)
        if kind not in _CONTAINERS or depth > MAX_DEPTH:
            return value
        if id(value) in memo:
            if memo[id(value)] is _OPEN:
                raise _SelfReference
            return memo[id(value)]
        made: Any = value
        memo[id(value)] = _OPEN
        if kind is dict:
            entries = {key: self._to_reference(item, dependencies, memo, depth + 1) for key, item in value.items()}
            if any(entries[key] is not item for key, item in value.items()):
                made = entries
        else:
            items = [self._to_reference(item, dependencies, memo, depth + 1) for item in value]
            if any(new is not old for new, old in zip(items, value, strict=True)):
                made = items if kind is list else tuple(items)
        memo[id(value)] = made
        return made

    def _with_dependencies(self, names: Iterable[str]) -> dict[str, Call]:
        kept: dict[str, None] = dict.fromkeys(names)
        waiting = list(kept)
        while waiting:
            for need in self._calls[waiting.pop()].dependencies:
                if need not in kept:
                    kept[need] = None
                    waiting.append(need)
        return {name: call for name, call in self._calls.items() if name in kept}

    def _as_json(self, value: Any, path: str) -> Any:
        """Return `value`, which is at `path`, with references written out."""
        if isinstance(value, Ref):
            return {"$ref": value.name, **({"path": list(value.path)} if value.path else {})}
        if type(value) in (list, tuple):
            return [self._as_json(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if type(value) is dict:
            if "$ref" in value or "$data" in value:
                return {"$data": self._data(value, path)}
            return {key: self._as_json(item, path + step(key)) for key, item in value.items()}
        return self._data(value, path)

    def _data(self, value: Any, path: str) -> Any:
        try:
            return to_json(value, self._codec)
        except UnsendableValue as error:
            raise UnsendableValue(path + error.path.removeprefix("$"), error.type_name, error.reason) from None


def describe_call(call: Call, codec: ValueCodec) -> str:
    """Return a call as a line: `name = function(1, key=Ref(...), resources={'gpu'}) after other`."""
    try:
        decoded: Any = codec.decode(call.args)
        args, kwargs = decoded
        words = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    except Exception:  # bytes of another origin, or an argument that cannot be shown
        words = [repr(call.args)]
    words += [f"resources={{{str(sorted(call.resources))[1:-1]}}}"] if call.resources else []
    words += [f"version={call.version!r}"] if call.version is not None else []
    after = f" after {', '.join(call.dependencies)}" if call.dependencies else ""
    return f"{call.name} = {call.function}({', '.join(words)}){after}"


class _SelfReference(Exception):
    """Raised for an argument that contains itself."""


_CONTAINERS: Final = (list, tuple, dict)
_OPEN: Final = object()


def _inside(value: object) -> object:
    return value if type(value) in _CONTAINERS else None


def check_function_name(function: object, version: object) -> None:
    """Check the name of a function and its version. Raises TypeError."""
    if type(function) is not str or not function:
        name = getattr(function, "__name__", "")
        hint = f"; write {name!r}, the name under which a node offers it" if name else ""
        raise TypeError(f"a function is named by its name, not by {function!r}{hint}")
    if version is not None and type(version) is not str:
        raise TypeError(f"version={version!r} is of type {type(version).__name__}; write a text such as version='2'")
    check_encodable(function, "the function's name")
    check_encodable(version or "", "version")


def checked_resources(resources: Iterable[str]) -> tuple[str, ...]:
    """Return the resources that a call requires, in order. Raises TypeError, ValueError."""
    names = tuple(sorted(tags(resources))) if resources else ()
    for tag in names:
        check_encodable(tag, "a resource")
    return names
