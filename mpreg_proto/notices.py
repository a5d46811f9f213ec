"""Notices: facts that `Notify` carries to logs, metrics, dashboards and journals. Nothing in the core depends on them.

Each notice is a fact of the past, with ids and names but never arguments or secrets.
"""

from __future__ import annotations

import enum

import msgspec

from mpreg_proto.ids import Address, LinkId, MemberId, RequestId
from mpreg_proto.wire.messages import Result


class Standing(enum.IntEnum):
    """The standing of a member, in the order in which claims about one incarnation override each other."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3
    RETIRED = 4


class LinkEndCause(enum.Enum):
    """The cause of the end of a link."""

    ORDERLY = enum.auto()
    """Both sides had sent a goodbye, or the transport ended."""
    REFUSED = enum.auto()
    """The peer refused the link."""
    VIOLATION = enum.auto()
    """The peer broke the protocol."""
    TOO_LONG = enum.auto()
    """A required message is longer than a message may be."""
    SILENT = enum.auto()
    """No byte moved for `Limits.gone_after`."""
    MEMBER_DEAD = enum.auto()
    """The member at the other end is marked DEAD."""
    UNRESPONSIVE = enum.auto()
    """The link carries nothing, although its member is alive."""
    STALLED = enum.auto()
    """The peer took none of the unsent bytes for `Limits.stalled`."""


class LinkOpened(msgspec.Struct, frozen=True, gc=False):
    """Both hellos have arrived. `member` is None for a client."""

    link: LinkId
    peer: str
    member: MemberId | None


class LinkClosed(msgspec.Struct, frozen=True, gc=False):
    """A link has ended. `reason` is for people, and empty for an orderly end."""

    link: LinkId
    peer: str
    reason: str
    cause: LinkEndCause = LinkEndCause.ORDERLY


class PeerUnreachable(msgspec.Struct, frozen=True, gc=False):
    """An address was dialled and did not answer. Reported once until it answers; dialling goes on."""

    address: Address


class MemberChanged(msgspec.Struct, frozen=True, gc=False):
    """A newer claim about a member has replaced the one of this node."""

    member: MemberId
    name: str
    standing: Standing
    incarnation: int


class CatalogueChanged(msgspec.Struct, frozen=True, gc=False):
    """This node has a member's catalogue at `version` now."""

    member: MemberId
    name: str
    version: int


class CardsDiffer(msgspec.Struct, frozen=True, gc=False):
    """Two cards came for one incarnation of a member, although its owner writes one: a node breaks the protocol.

    All nodes keep the card with the larger hash.
    """

    member: MemberId
    name: str


class GossipTooLong(msgspec.Struct, frozen=True, gc=False):
    """A message about members was not sent: it is longer than its link takes and cannot be split."""

    link: LinkId
    kind: str
    size: int
    limit: int


class StrayResult(msgspec.Struct, frozen=True, gc=False):
    """An answer matched nothing pending (it came late, after a failover or a deadline) and was dropped."""

    link: LinkId
    request: int


class RequestFinished(msgspec.Struct, frozen=True, gc=False):
    """A request that this process submitted itself has a result. The only notice that carries values.

    An eager request has several, one for each part of its results; `result.last` is true in the last one.
    """

    request: RequestId
    result: Result


class DrainRequested(msgspec.Struct, frozen=True, gc=False):
    """A client or another node has let this node leave the cluster. `peer` is the name at the other end of the link."""

    link: LinkId
    peer: str


class Left(msgspec.Struct, frozen=True, gc=False):
    """Draining has ended: the process may end."""


Notice = (
    LinkOpened
    | LinkClosed
    | PeerUnreachable
    | MemberChanged
    | CatalogueChanged
    | CardsDiffer
    | GossipTooLong
    | StrayResult
    | RequestFinished
    | DrainRequested
    | Left
)
"""The content of a `Notify`: one of the notices."""
