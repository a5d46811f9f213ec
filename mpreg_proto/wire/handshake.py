"""The handshake: two sides agree on cluster, version and features before any other message.

Both sides send a `Hello`, the dialler first. Each side then computes the same agreement from the two hellos. Nothing
else is parsed before. What the peer has proved before, in TLS for example, is the adapter's verdict on it: the core
never holds a secret or a certificate.
"""

from __future__ import annotations

import enum

import msgspec

from mpreg_proto.errors import ErrorCode, Fault
from mpreg_proto.ids import MEMBER_ID_BYTES
from mpreg_proto.wire.messages import CREDIT, VERSION, Hello


class Feature(enum.StrEnum):
    """The optional parts of the protocol, by their names in a `Hello`."""

    AGAIN = "again"
    """`Request.again`: the receiver checks whether a request may be repeated."""
    DRAIN = "drain"
    """`Drain` and `DrainReply`."""
    ITERATORS = "iterators"
    """`Request.iterates`, `InputItems` and `InputTaken`: a call takes items while their generator runs."""


class Authentication(enum.Enum):
    """The adapter's verdict on the peer of a link: what it may be."""

    NODE = "node"
    """A node or a client. Also the verdict on everybody where nothing has to be proved."""
    CLIENT = "client"
    """A client. A hello of a node is refused (1030)."""
    NONE = "none"
    """Nothing: a hello and each request is refused (1030)."""


NOT_AUTHENTICATED = Fault(
    ErrorCode.UNAUTHENTICATED,
    "this node serves only those who prove the secret of its cluster: connect with its secret file",
)
"""The error for a peer that has proved nothing where it has to."""


FEATURES: tuple[str, ...] = tuple(sorted(feature.value for feature in Feature))
"""The names of the optional parts of the protocol in this code, sorted."""


class Agreed(msgspec.Struct, frozen=True, gc=False):
    """The agreement of two hellos: the highest common version and the common features."""

    version: int
    features: tuple[str, ...]


def hello(*, cluster: str, member: bytes, name: str, credit: tuple[int, int] = CREDIT) -> Hello:
    """Return this side's hello. A client sends an empty `member`, and an empty `cluster` if it accepts any cluster."""
    return Hello((VERSION, VERSION), FEATURES, cluster, member, name, credit)


def refusal(verdict: Authentication, theirs: Hello) -> Fault | None:
    """Return why a peer with this verdict may not open a link with its hello; None if it may."""
    if verdict is Authentication.NONE:
        return NOT_AUTHENTICATED
    if verdict is Authentication.CLIENT and theirs.member:
        text = "this peer is no node of the cluster: it has not proved its secret with a node's certificate"
        return Fault(ErrorCode.UNAUTHENTICATED, text)
    return None


def agree(mine: Hello, theirs: Hello) -> Agreed | Fault:
    """Return the agreement of two hellos, or the fault: 1005, 1010 or 1040. Symmetric except for the texts."""
    for node, other in ((mine, theirs), (theirs, mine)):
        if node.member and node.cluster != other.cluster and (other.member or other.cluster):
            return Fault(
                ErrorCode.CLUSTER_MISMATCH,
                f"this node belongs to cluster {mine.cluster!r}, not to {theirs.cluster!r}",
                {"mine": mine.cluster, "yours": theirs.cluster},
            )
    if len(theirs.member) not in (0, MEMBER_ID_BYTES):
        return Fault(ErrorCode.INVALID_REQUEST, f"a member id has {MEMBER_ID_BYTES} bytes, not {len(theirs.member)}")
    lowest = max(mine.versions[0], theirs.versions[0])
    highest = min(mine.versions[1], theirs.versions[1])
    if lowest > highest:
        return Fault(
            ErrorCode.VERSION_MISMATCH,
            f"no protocol version in common: this side speaks {mine.versions[0]} to {mine.versions[1]}, "
            f"the other {theirs.versions[0]} to {theirs.versions[1]}",
            {"mine": list(mine.versions), "yours": list(theirs.versions)},
        )
    offered = dict.fromkeys(theirs.features)
    return Agreed(highest, tuple(feature for feature in mine.features if feature in offered))
