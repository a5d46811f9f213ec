"""What `Notify` carries: facts for logs, metrics, dashboards and journals. Nothing in the core depends on them.

Each notice is a fact that has happened, in the past tense, with ids and names but never arguments or secrets.
"""

from __future__ import annotations

import enum

import msgspec

from mpreg_proto.ids import Address, LinkId, MemberId, RequestId
from mpreg_proto.wire.messages import Result


class Standing(enum.IntEnum):
    """How a member is, in the order in which claims about one incarnation outdo each other."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3
    RETIRED = 4


class LinkEndCause(enum.Enum):
    """Why a link ended."""

    ORDERLY = enum.auto()
    """Both sides had said goodbye, or its transport ended."""
    REFUSED = enum.auto()
    """The peer refused it."""
    VIOLATION = enum.auto()
    """The peer did what the protocol does not allow."""
    TOO_LONG = enum.auto()
    """What had to be sent over it is longer than a message may be."""
    SILENT = enum.auto()
    """No byte moved for `Limits.gone_after`."""
    MEMBER_DEAD = enum.auto()
    """Its member is marked DEAD."""
    UNRESPONSIVE = enum.auto()
    """It carries nothing, though its member is alive."""


class LinkOpened(msgspec.Struct, frozen=True, gc=False):
    """Both hellos are in. `member` is None for a client."""

    link: LinkId
    peer: str
    member: MemberId | None


class LinkClosed(msgspec.Struct, frozen=True, gc=False):
    """A link is gone. `reason` is for people, and empty for an orderly end."""

    link: LinkId
    peer: str
    reason: str
    cause: LinkEndCause = LinkEndCause.ORDERLY


class PeerUnreachable(msgspec.Struct, frozen=True, gc=False):
    """An address was dialled and did not answer. Said once until it does; dialling goes on."""

    address: Address


class MemberChanged(msgspec.Struct, frozen=True, gc=False):
    """What this node believes about a member has risen."""

    member: MemberId
    name: str
    standing: Standing
    incarnation: int


class CatalogueChanged(msgspec.Struct, frozen=True, gc=False):
    """A member's offers are now known at `version`."""

    member: MemberId
    name: str
    version: int


class CardsDiffer(msgspec.Struct, frozen=True, gc=False):
    """Two cards came for one incarnation of a member, where its owner writes one: somebody breaks the protocol.

    All keep the one with the larger hash.
    """

    member: MemberId
    name: str


class GossipTooLong(msgspec.Struct, frozen=True, gc=False):
    """A message about members is longer than its link takes and cannot be split: its receiver does not know it."""

    link: LinkId
    kind: str
    size: int
    limit: int


class StrayResult(msgspec.Struct, frozen=True, gc=False):
    """An answer matched nothing pending (a late one, after a failover or a deadline) and was dropped."""

    link: LinkId
    request: int


class RequestFinished(msgspec.Struct, frozen=True, gc=False):
    """A request that this process submitted itself has an answer; the one notice that carries values."""

    request: RequestId
    result: Result


class Left(msgspec.Struct, frozen=True, gc=False):
    """Draining is over: the process may end."""


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
    | Left
)
