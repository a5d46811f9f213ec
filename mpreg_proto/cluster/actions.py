"""What the cluster machine returns: actions and events, in the order of their causes.

`ActionRunner` (router.py) carries out the actions: it sends and closes through `Links`; `Dial` and `Notify` are the
core's own effects and pass through. The events go to the coordinator.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.wire.messages import GoodbyeReason, Message


class SendMessage(msgspec.Struct, frozen=True, gc=False):
    """Send this message on that link. Several in a row may carry the very same message: encode it once."""

    link: LinkId
    message: Message


class CloseLink(msgspec.Struct, frozen=True, gc=False):
    """Say Goodbye on that link, finish what is on it, close it; `link_closed(clean=True)` follows."""

    link: LinkId
    reason: GoodbyeReason


class SendPing(msgspec.Struct, frozen=True, gc=False):
    """Ping that link; `ack_received(link)` follows once its answer is there."""

    link: LinkId


class AbortLink(msgspec.Struct, frozen=True, gc=False):
    """End that link without a word: who was at the other end is DEAD, and has said nothing for as long as it took."""

    link: LinkId


class AbandonLink(msgspec.Struct, frozen=True, gc=False):
    """Say Goodbye on that link and end it at once: it carries nothing, and its member is alive, as others say."""

    link: LinkId


class CloseIfIdle(msgspec.Struct, frozen=True, gc=False):
    """Nobody but calls needs the link to that member: say Goodbye on it, if it has been idle for long."""

    member: MemberId
    link: LinkId


class LinkSelected(msgspec.Struct, frozen=True, gc=False):
    """Calls for that member go over this link from now on."""

    member: MemberId
    link: LinkId


class MemberLost(msgspec.Struct, frozen=True, gc=False):
    """That member is DEAD, LEFT or RETIRED: what is pending there is lost."""

    member: MemberId


class OffersChanged(msgspec.Struct, frozen=True, gc=False):
    """Something about offers or standings is other than before: calls that wait for it may be placed again."""

    functions: tuple[str, ...] = ()
    """Those that somebody may offer who did not before."""
    members: tuple[MemberId, ...] = ()
    """Those whose standing or offers are other than before."""


class IdRetired(msgspec.Struct, frozen=True, gc=False):
    """The cluster has retired this process's id, or marked it LEFT. Reported once.

    The process goes on under a new id: a new `Cluster`, its functions offered again, all links dialled again.
    """


ClusterAction = SendMessage | SendPing | CloseLink | AbortLink | AbandonLink | CloseIfIdle | Dial | Notify
"""Commands: what is to be done."""
ClusterEvent = LinkSelected | MemberLost | OffersChanged | IdRetired
"""Facts: what has changed in this node's view."""
ClusterOutput = ClusterAction | ClusterEvent
