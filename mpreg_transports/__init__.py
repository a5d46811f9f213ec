"""mpreg for users: `Server` offers functions, `Client` and `SyncClient` call them wherever they are in the cluster."""

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
from mpreg_transports.client import Answer, Client
from mpreg_transports.errors import NotConnected
from mpreg_transports.graph import Graph, Handle
from mpreg_transports.server import Server
from mpreg_transports.sync import SyncClient

__all__ = [
    "Answer",
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
    "Handle",
    "InternalError",
    "InvalidRequest",
    "InvalidRole",
    "LimitExceeded",
    "MpregError",
    "NotConnected",
    "OutcomeUnknown",
    "Overloaded",
    "RequestError",
    "Server",
    "SyncClient",
    "Unauthenticated",
    "UnknownMessage",
    "UnresolvedReference",
    "VersionMismatch",
]
