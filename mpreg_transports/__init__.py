"""mpreg for users: `Server` offers functions; `Client` and `SyncClient` call them on any node of the cluster.

Each name is imported at its first use, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_proto.errors import (
        Cancelled,
        ClusterMismatch,
        CommandNotFound,
        CyclicReference,
        DeadlineExceeded,
        Draining,
        DuplicateName,
        ExecutionFailed,
        Forbidden,
        GraphError,
        InternalError,
        InvalidRequest,
        InvalidRole,
        LimitExceeded,
        MpregError,
        OutcomeUnknown,
        Overloaded,
        RequestError,
        Unauthenticated,
        UnknownMessage,
        UnresolvedReference,
        VersionMismatch,
    )
    from mpreg_transports.client import Client, GraphResult
    from mpreg_transports.errors import NotConnected
    from mpreg_transports.functions.progress import Progress, ProgressReport
    from mpreg_transports.functions.sleep import sleep
    from mpreg_transports.graph import Graph, Handle
    from mpreg_transports.security.secret import SecretError
    from mpreg_transports.server import Server
    from mpreg_transports.sync import SyncClient

__all__ = [
    "Cancelled",
    "Client",
    "ClusterMismatch",
    "CommandNotFound",
    "CyclicReference",
    "DeadlineExceeded",
    "Draining",
    "DuplicateName",
    "ExecutionFailed",
    "Forbidden",
    "Graph",
    "GraphError",
    "GraphResult",
    "Handle",
    "InternalError",
    "InvalidRequest",
    "InvalidRole",
    "LimitExceeded",
    "MpregError",
    "NotConnected",
    "OutcomeUnknown",
    "Overloaded",
    "Progress",
    "ProgressReport",
    "RequestError",
    "SecretError",
    "Server",
    "SyncClient",
    "Unauthenticated",
    "UnknownMessage",
    "UnresolvedReference",
    "VersionMismatch",
    "sleep",
]

_ELSEWHERE = {
    "GraphResult": "client",
    "Client": "client",
    "Graph": "graph",
    "Handle": "graph",
    "NotConnected": "errors",
    "Progress": "functions.progress",
    "ProgressReport": "functions.progress",
    "Server": "server",
    "sleep": "functions.sleep",
    "SecretError": "security.secret",
    "SyncClient": "sync",
}
"""The module of this package that holds each name. All other names are errors of the protocol."""


def __getattr__(name: str) -> object:
    """Import `name` from its module. Raises AttributeError for a name that is not in `__all__`."""
    if name == "__version__":
        from mpreg_transports.config.release import installed_version

        globals()[name] = installed = installed_version()
        return installed
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_ELSEWHERE[name]}" if name in _ELSEWHERE else "mpreg_proto.errors"
    found: object = getattr(import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted([*__all__, "__version__"])
