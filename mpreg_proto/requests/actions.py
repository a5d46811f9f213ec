"""The results of the coordinator and the worker: actions, which `ActionRunner` (router.py) carries out, and events.

The two don't call each other or the links: each input returns a list of these, in the order of their causes.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.effects import Cancel, Demand, Feed, Notify, Run
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.wire.messages import (
    Call,
    CallProgress,
    Done,
    Failed,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Result,
)

LOCAL = LinkId(0)
"""The link to this process itself; real links count from 1."""


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """Run these calls at the member at the other end of `link` (LOCAL: at the own worker), as dispatch `number`."""

    link: LinkId
    number: int
    calls: list[Call]
    inputs: dict[str, bytes]
    deadline: int
    idempotent: list[str] = []
    """The names of the calls that the coordinator takes for idempotent."""
    to: bytes = b""
    """The member that runs them, if a relay at the other end passes them on."""
    client: LinkId = LOCAL
    """The link of the request, which is that of the client."""
    progress: bool = False
    """True if the progress of these calls comes back."""
    streams: list[str] = []
    """The names of the calls whose items come back one by one."""
    iterates: dict[str, str] = {}
    """The calls that take the items of a dependency one by one, and that dependency."""


class CancelDispatch(msgspec.Struct, frozen=True, gc=False):
    """Cancel a dispatch."""

    link: LinkId
    number: int


class SendReply(msgspec.Struct, frozen=True, gc=False):
    """Send the result of a request, or its final error, to the caller."""

    link: LinkId
    result: Result
    started: bool
    """True if a call that is not idempotent may have started: what an error says that replaces too long a result."""


class CallSettled(msgspec.Struct, frozen=True, gc=False):
    """One wanted call of an eager request has ended. Its row is sent with others, before the `SendReply`."""

    link: LinkId
    request: int
    row: Done | Failed


class CallFinished(msgspec.Struct, frozen=True, gc=False):
    """The own worker has ended one call of a dispatch; `last`: all of them. LOCAL: the coordinator is the own one."""

    link: LinkId
    request: int
    row: Done | Failed
    last: bool


class SendUpdate(msgspec.Struct, frozen=True, gc=False):
    """Send news of a call that goes on: to the node that dispatched it, to the client that requested it, or to the
    worker that runs it. LOCAL: to the own coordinator or worker."""

    link: LinkId
    message: CallProgress | Items | ItemsTaken | InputItems | InputTaken


class CreditReturned(msgspec.Struct, frozen=True, gc=False):
    """The own worker has a place for a call of this function, for the coordinator at the other end of `link`."""

    link: LinkId
    function: str


class Connect(msgspec.Struct, frozen=True, gc=False):
    """A call waits for a link to this member."""

    member: MemberId


RequestAction = Dispatch | CancelDispatch | SendReply | SendUpdate | Connect | Run | Cancel | Demand | Feed | Notify
"""Commands: what is to be done."""
RequestEvent = CallSettled | CallFinished | CreditReturned
"""Facts: what became of a call."""
RequestOutput = RequestAction | RequestEvent
