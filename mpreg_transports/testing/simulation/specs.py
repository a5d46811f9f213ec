"""The nodes of a simulation as data and back, for saved runs. Functions are saved by their import path.

A function or a factory that cannot be imported (a lambda, a nested function, one of `__main__`) has no path; the replay
of such a run needs the nodes as an argument.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mpreg_proto.limits import DEFAULT, Limits
from mpreg_transports.testing.simulation.drivers import GOOD, DriverFaults
from mpreg_transports.testing.simulation.durations import Duration
from mpreg_transports.testing.simulation.functions import Fn, Functions, functions_of
from mpreg_transports.testing.simulation.hosts import Spec


def described(nodes: Mapping[str, Spec]) -> dict[str, Any]:
    """Return specs as a tree for JSON."""
    return {name: _described(spec) for name, spec in nodes.items()}


def restored(nodes: Mapping[str, Any]) -> dict[str, Spec]:
    """Return specs from such a tree. Raises ValueError with the name of a function that cannot be imported."""
    return {name: _restored(name, tree) for name, tree in nodes.items()}


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that a run may depend on, in addition to its seed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in ("mpreg", "msgspec", "msgpack"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _described(spec: Spec) -> dict[str, Any]:
    tree: dict[str, Any] = {"functions": {}}
    if isinstance(spec.functions, Mapping):
        tree["functions"] = {name: _fn(fn) for name, fn in functions_of(spec.functions).items()}
    else:
        tree["factory"] = import_path(spec.functions)
    tree |= {
        "resources": sorted(spec.resources),
        "peers": spec.peers,
        "limits": None if spec.limits == DEFAULT else msgspec.to_builtins(spec.limits),
    }
    plain = Spec()
    if spec.cluster_id != plain.cluster_id:
        tree["cluster_id"] = spec.cluster_id
    if spec.versions != plain.versions:
        tree["versions"] = list(spec.versions)
    return tree if spec.driver == GOOD else {**tree, "driver": msgspec.to_builtins(spec.driver)}


def _fn(fn: Fn) -> dict[str, Any]:
    return {
        "path": import_path(fn.call),
        "duration": msgspec.to_builtins(fn.duration),
        "refuses": fn.refuses,
        "loses": fn.loses,
        "version": fn.version,
        "resources": list(fn.resources),
        "idempotent": fn.idempotent,
        "concurrency": fn.concurrency,
        "inline": fn.inline,
    }


def import_path(call: Callable[..., Any]) -> str | None:
    """Return `module:name` under which `call` can be imported, or None."""
    module, name = getattr(call, "__module__", None), getattr(call, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is call else None


def _restored(node: str, tree: Mapping[str, Any]) -> Spec:
    limits = DEFAULT if tree["limits"] is None else msgspec.convert(tree["limits"], Limits)
    peers = None if tree["peers"] is None else tuple(tree["peers"])
    driver = msgspec.convert(tree.get("driver", {}), DriverFaults)
    functions = _restored_functions(node, tree)
    plain = Spec()
    return Spec(
        functions=functions,
        resources=tuple(tree["resources"]),
        peers=peers,
        limits=limits,
        cluster_id=tree.get("cluster_id", plain.cluster_id),
        versions=tuple(tree.get("versions", plain.versions)),
        driver=driver,
    )


def _restored_functions(node: str, tree: Mapping[str, Any]) -> Functions:
    if "factory" in tree:
        return _imported(f"the factory of the functions of {node}", tree["factory"])
    functions: dict[str, Any] = {}
    for name, saved in tree["functions"].items():
        rest = {key: value for key, value in saved.items() if key not in ("path", "duration")}
        duration = msgspec.convert(saved["duration"], Duration)
        functions[name] = Fn(_imported(f"function {name!r} of {node}", saved["path"]), duration=duration, **rest)
    return functions


def _imported(what: str, path: str | None) -> Callable[..., Any]:
    if path is None:
        raise ValueError(f"{what} cannot be imported by name: pass the same nodes to the replay, nodes={{...}}")
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        where = "; run it where its module can be imported" if isinstance(error, ModuleNotFoundError) else ""
        raise ValueError(f"{what} is not there any more ({path}): {error}{where}") from None
    call: Callable[..., Any] = found
    return call
