"""Checks of arguments: each raises TypeError or ValueError with what was wrong and what to write."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mpreg_transports.graph import Graph


def check_text(what: str, value: object) -> None:
    """Raise unless `value` is a text that is not empty."""
    if type(value) is not str:
        raise TypeError(f"{what}={value!r:.60}: expected a text, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{what} is empty: expected a text")


def check_number(what: str, value: object, *, least: float = 0.0, most: float = math.inf) -> None:
    """Raise unless `value` is a finite number, `least` <= value <= `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what}={value!r:.60}: expected a number, got {type(value).__name__}")
    if not math.isfinite(value) or not least <= value <= most:
        wanted = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        raise ValueError(f"{what}={value!r}: expected {wanted}")


def check_whole(what: str, value: object, *, least: int = 0) -> None:
    """Raise unless `value` is a whole number of at least `least`."""
    if type(value) is not int:
        raise TypeError(f"{what}={value!r:.60}: expected a whole number, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{what}={value}: expected {least} or more")


def check_kind(what: str, value: object, kind: type, write: str) -> None:
    """Raise unless `value` is of this kind; `write` is an example of one."""
    if not isinstance(value, kind):
        raise TypeError(f"{what}: expected {write}, got {describe(value)}")


def check_callable(what: str, value: object, write: str) -> None:
    """Raise unless `value` can be called; `write` is an example."""
    if not callable(value):
        raise TypeError(f"{what}={value!r:.60}: expected a function, such as {write}, got {type(value).__name__}")


def check_factory(what: str, value: object, write: str) -> None:
    """Raise unless `value` can be called without arguments; `write` is an example."""
    check_callable(what, value, write)
    if (missing := refuses_arguments(value)) is not None:
        raise TypeError(
            f"{what}: expected a function without arguments that returns a mapping, such as {write}; "
            f"{describe(value)} needs some: {missing}"
        )


def refuses_arguments(call: Any, *args: object) -> str | None:
    """Return why `call` does not take these arguments; None if it does, or if it has no signature that can be read."""
    try:
        inspect.signature(call).bind(*args)
    except ValueError:
        return None
    except TypeError as error:
        return str(error)
    return None


def describe(value: object) -> str:
    """Return a value as an error names it: a class or function by its name, anything else by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return type(value).__name__


def texts(what: str, values: object) -> tuple[str, ...]:
    """Return a collection of texts as a tuple. Raises for a bare text, whose letters would become the texts."""
    if isinstance(values, str | bytes):
        raise TypeError(f"{what}={values!r:.60} is a bare text; write {what}=({values!r:.60},)")
    if not isinstance(values, Iterable) or isinstance(values, Mapping):
        raise TypeError(f"{what}={values!r:.60}: expected a collection of texts, got {type(values).__name__}")
    found = tuple(values)
    for value in found:
        check_text(f"each of {what}", value)
    return found


def check_known(what: str, name: object, known: Collection[str]) -> None:
    """Raise unless `name` is one of the `known` names."""
    if type(name) is not str:
        raise TypeError(f"{what}={name!r:.60}: expected the name of a node, got {type(name).__name__}")
    if name not in known:
        raise ValueError(f"there is no node {name!r}; there are {', '.join(known)}")


def check_host(what: str, name: object, nodes: Collection[str], clients: Collection[str]) -> None:
    """Raise unless `name` is a node, a client, or NAME@NODE as a client that does not exist yet is called."""
    if type(name) is str and (name in clients or name.rpartition("@")[2] in nodes):
        return
    if type(name) is str:
        also = f" and the clients {', '.join(clients)}" if clients else ""
        raise ValueError(f"there is no node {name!r}; there are {', '.join(nodes)}{also}")
    raise TypeError(f"{what}={name!r:.60}: expected the name of a node or a client, got {type(name).__name__}")


def check_function_name(node: str, function: object) -> None:
    """Raise unless `function` is a name, as `sim.call` needs it."""
    if isinstance(function, Graph):
        raise TypeError(f"expected the name of a function, got a Graph; write sim.graph({node!r}, graph)")
    if callable(function):
        name = getattr(function, "__name__", "name")
        raise TypeError(f"expected the name of a function, got the function itself; write sim.call({node!r}, {name!r})")
    check_text("function", function)


def check_nodes(nodes: object, kind: type | tuple[type, ...]) -> None:
    """Raise unless `nodes` maps names to specs (or, where `kind` allows it, to servers)."""
    if not isinstance(nodes, Mapping):
        raise TypeError(
            f'nodes: expected a mapping such as {{"front": Spec()}}, got {type(nodes).__name__}'
            + ("; call the function" if callable(nodes) else "")
        )
    if not nodes:
        raise ValueError('nodes is empty, and a cluster has at least one node: write nodes={"front": Spec()}')
    for name, node in nodes.items():
        check_text("the name of a node", name)
        if not isinstance(node, kind):
            raise TypeError(f"node {name!r}: expected Spec(functions={{...}}), got {describe(node)}")


def check_watchers(watchers: object, kind: type) -> tuple[Any, ...]:
    """Return watchers as a tuple. Raises for a class in place of its object, and for a function in place of a list."""
    if isinstance(watchers, kind):
        raise TypeError(f"watchers: expected a list of watchers, got one; write watchers=[{type(watchers).__name__}()]")
    if not isinstance(watchers, Iterable) or isinstance(watchers, type | str):
        hint = "; call it, or write a list" if callable(watchers) else ""
        raise TypeError(f"watchers: expected a list of watchers, got {describe(watchers)}{hint}")
    found = tuple(watchers)
    for watcher in found:
        if not isinstance(watcher, kind):
            hint = f"; write {watcher.__name__}()" if isinstance(watcher, type) else ""
            raise TypeError(f"watchers: expected objects of subclasses of Watcher, got {describe(watcher)}{hint}")
    return found


def check_makes_watchers(watchers: object) -> None:
    """Raise unless `watchers` is a function that is called for the watchers of each run."""
    if not callable(watchers):
        raise TypeError(
            f"watchers: expected a function that returns the watchers of one run, got {type(watchers).__name__}; "
            "write watchers=lambda: [...]"
        )


def check_until(until: object) -> None:
    """Raise unless `until` is None or a function without arguments."""
    if until is not None and not callable(until):
        done: Callable[[], bool] | None = getattr(until, "done", None)
        hint = "" if callable(done) else ", without parentheses"
        raise TypeError(f"until={until!r:.60}: expected a function without arguments; write until=call.done{hint}")
