"""The outputs of the cluster machine: actions and events, in the order of their causes.

`ActionRunner` (router.py) carries out the actions: it sends and closes through `Links`. `Dial` and `Notify` are the
core's own effects and pass through. The events go to the coordinator.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.effects import Dial, Notify
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.wire.messages import GoodbyeReason, Message


class SendMessage(msgspec.Struct, frozen=True, gc=False):
    """Send this message on that link. Several in a row may carry the same message object: encode it once."""

    link: LinkId
    message: Message


class CloseLink(msgspec.Struct, frozen=True, gc=False):
    """Send Goodbye on that link, finish its calls and answers, and close it; `link_closed(clean=True)` follows."""

    link: LinkId
    reason: GoodbyeReason


class SendPing(msgspec.Struct, frozen=True, gc=False):
    """Ping that link; `ack_received(link)` follows when its answer arrives."""

    link: LinkId


class AbortLink(msgspec.Struct, frozen=True, gc=False):
    """End that link without a Goodbye: its member is DEAD, and no byte moved on it during the whole suspicion."""

    link: LinkId


class AbandonLink(msgspec.Struct, frozen=True, gc=False):
    """Send Goodbye on that link and end it at once: it carries nothing, and other members report its member alive."""

    link: LinkId


class CloseIfIdle(msgspec.Struct, frozen=True, gc=False):
    """Send Goodbye on the link to that member if it has been idle for long: only calls need it."""

    member: MemberId
    link: LinkId


class LinkSelected(msgspec.Struct, frozen=True, gc=False):
    """Calls for that member use this link from now on."""

    member: MemberId
    link: LinkId


class MemberLost(msgspec.Struct, frozen=True, gc=False):
    """That member is DEAD, LEFT or RETIRED: the calls dispatched to it are lost."""

    member: MemberId


class OffersChanged(msgspec.Struct, frozen=True, gc=False):
    """Offers or standings have changed: calls that wait for one may be placed again."""

    functions: tuple[str, ...] = ()
    """The functions that a member may newly offer."""
    members: tuple[MemberId, ...] = ()
    """The members whose standing or offers have changed."""


class IdRetired(msgspec.Struct, frozen=True, gc=False):
    """The cluster has retired this process's id, or marked it LEFT. Sent once.

    The process continues under a new id: a new `Cluster`, its functions offered again, all links dialled again.
    """


ClusterAction = SendMessage | SendPing | CloseLink | AbortLink | AbandonLink | CloseIfIdle | Dial | Notify
"""Commands: what the runner must do."""
ClusterEvent = LinkSelected | MemberLost | OffersChanged | IdRetired
"""Facts: what has changed in this node's view."""
ClusterOutput = ClusterAction | ClusterEvent
