"""The core of mpreg: it makes all decisions and does no I/O (Sans-IO).

`Node` is a member of the cluster, `ClientSession` a client of one. A driver of either imports all that it needs from
here: what comes in, the effects that go out, and the values in both. These names, the effects and the wire are what
SemVer covers (docs/reference/core.md); the machines inside are not. Each name is imported at its first use, so that a
module of the core costs no more than itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpreg_proto.client import (
        ClientEffect,
        ClientSession,
        ItemsReceived,
        LinkDraining,
        ProgressReceived,
        Ready,
        Rejected,
        Reply,
        ReplyReceived,
    )
    from mpreg_proto.cluster.catalogue import FunctionSpec
    from mpreg_proto.cluster.index import FunctionRow
    from mpreg_proto.config import NodeConfig
    from mpreg_proto.effects import (
        Cancel,
        Demand,
        Dial,
        Effect,
        HangUp,
        KeepAlive,
        Lane,
        Lost,
        Notify,
        NotStarted,
        Outcome,
        Pause,
        Raised,
        Report,
        Resume,
        Returned,
        Run,
        Send,
        Stopped,
    )
    from mpreg_proto.errors import (
        CloseCode,
        ErrorCode,
        Fault,
        LocalProtocolError,
        MpregError,
        RequestError,
        exception_for,
    )
    from mpreg_proto.ids import Address, LinkId, MemberId, RequestId, RunId
    from mpreg_proto.limits import MILLISECOND, SECOND, Limits
    from mpreg_proto.node import Node, Tap
    from mpreg_proto.notices import (
        CardsDiffer,
        CatalogueChanged,
        DrainRequested,
        GossipTooLong,
        Left,
        LinkClosed,
        LinkEndCause,
        LinkOpened,
        MemberChanged,
        Notice,
        PeerUnreachable,
        RequestFinished,
        Standing,
        StrayResult,
    )
    from mpreg_proto.rng import Entropy, Rng
    from mpreg_proto.view import MemberView, NodeView
    from mpreg_proto.wire.encode_errors import UnsendableValue
    from mpreg_proto.wire.framing import Framing
    from mpreg_proto.wire.handshake import Authentication
    from mpreg_proto.wire.messages import (
        Call,
        CallProgress,
        Done,
        Explained,
        Explanation,
        Failed,
        Items,
        ItemsTaken,
        Message,
        Request,
        Result,
        Traced,
        View,
    )
    from mpreg_proto.wire.values import MalformedValue, Ref, ValueCodec

__all__ = [
    "MILLISECOND",
    "SECOND",
    "Address",
    "Authentication",
    "Call",
    "CallProgress",
    "Cancel",
    "CardsDiffer",
    "CatalogueChanged",
    "ClientEffect",
    "ClientSession",
    "CloseCode",
    "Demand",
    "Dial",
    "Done",
    "DrainRequested",
    "Effect",
    "Entropy",
    "ErrorCode",
    "Explained",
    "Explanation",
    "Failed",
    "Fault",
    "Framing",
    "FunctionRow",
    "FunctionSpec",
    "GossipTooLong",
    "HangUp",
    "Items",
    "ItemsReceived",
    "ItemsTaken",
    "KeepAlive",
    "Lane",
    "Left",
    "Limits",
    "LinkClosed",
    "LinkDraining",
    "LinkEndCause",
    "LinkId",
    "LinkOpened",
    "LocalProtocolError",
    "Lost",
    "MalformedValue",
    "MemberChanged",
    "MemberId",
    "MemberView",
    "Message",
    "MpregError",
    "Node",
    "NodeConfig",
    "NodeView",
    "NotStarted",
    "Notice",
    "Notify",
    "Outcome",
    "Pause",
    "PeerUnreachable",
    "ProgressReceived",
    "Raised",
    "Ready",
    "Ref",
    "Rejected",
    "Reply",
    "ReplyReceived",
    "Report",
    "Request",
    "RequestError",
    "RequestFinished",
    "RequestId",
    "Result",
    "Resume",
    "Returned",
    "Rng",
    "Run",
    "RunId",
    "Send",
    "Standing",
    "Stopped",
    "StrayResult",
    "Tap",
    "Traced",
    "UnsendableValue",
    "ValueCodec",
    "View",
    "exception_for",
]

_WHERE = {
    "ClientEffect": "client",
    "ClientSession": "client",
    "ItemsReceived": "client",
    "LinkDraining": "client",
    "ProgressReceived": "client",
    "Ready": "client",
    "Rejected": "client",
    "Reply": "client",
    "ReplyReceived": "client",
    "FunctionSpec": "cluster.catalogue",
    "FunctionRow": "cluster.index",
    "NodeConfig": "config",
    "Cancel": "effects",
    "Demand": "effects",
    "Dial": "effects",
    "Effect": "effects",
    "HangUp": "effects",
    "KeepAlive": "effects",
    "Lane": "effects",
    "Lost": "effects",
    "NotStarted": "effects",
    "Notify": "effects",
    "Outcome": "effects",
    "Pause": "effects",
    "Raised": "effects",
    "Report": "effects",
    "Resume": "effects",
    "Returned": "effects",
    "Run": "effects",
    "Send": "effects",
    "Stopped": "effects",
    "CloseCode": "errors",
    "ErrorCode": "errors",
    "Fault": "errors",
    "LocalProtocolError": "errors",
    "MpregError": "errors",
    "RequestError": "errors",
    "exception_for": "errors",
    "Address": "ids",
    "LinkId": "ids",
    "MemberId": "ids",
    "RequestId": "ids",
    "RunId": "ids",
    "Limits": "limits",
    "MILLISECOND": "limits",
    "SECOND": "limits",
    "Node": "node",
    "Tap": "node",
    "CardsDiffer": "notices",
    "CatalogueChanged": "notices",
    "DrainRequested": "notices",
    "GossipTooLong": "notices",
    "Left": "notices",
    "LinkClosed": "notices",
    "LinkEndCause": "notices",
    "LinkOpened": "notices",
    "MemberChanged": "notices",
    "Notice": "notices",
    "PeerUnreachable": "notices",
    "RequestFinished": "notices",
    "Standing": "notices",
    "StrayResult": "notices",
    "Entropy": "rng",
    "Rng": "rng",
    "MemberView": "view",
    "NodeView": "view",
    "UnsendableValue": "wire.encode_errors",
    "Framing": "wire.framing",
    "Authentication": "wire.handshake",
    "Call": "wire.messages",
    "CallProgress": "wire.messages",
    "Done": "wire.messages",
    "Explained": "wire.messages",
    "Explanation": "wire.messages",
    "Failed": "wire.messages",
    "Items": "wire.messages",
    "ItemsTaken": "wire.messages",
    "Message": "wire.messages",
    "Request": "wire.messages",
    "Result": "wire.messages",
    "Traced": "wire.messages",
    "View": "wire.messages",
    "MalformedValue": "wire.values",
    "Ref": "wire.values",
    "ValueCodec": "wire.values",
}
"""The module of this package that defines each name."""


def __getattr__(name: str) -> object:
    """Import and return `name`. Raises AttributeError for a name that is not in `__all__`."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
