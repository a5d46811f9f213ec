"""What the coordinator and the worker return: actions, which `ActionRunner` (router.py) carries out, and events.

The two don't call each other or the links: each input returns a list of these, in the order of their causes.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.effects import Cancel, Notify, Run
from mpreg_proto.ids import LinkId, MemberId
from mpreg_proto.wire.messages import Call, Done, Failed, Result

LOCAL = LinkId(0)
"""Stands for "this process" where a link is asked for; real links count from 1."""


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """Have these calls run by the member at the other end of `link` (LOCAL: by our own worker), as dispatch
    `number`.
    """

    link: LinkId
    number: int
    calls: list[Call]
    inputs: dict[str, bytes]
    deadline: int
    idempotent: list[str] = []
    """Those of `calls` that are taken for idempotent."""
    to: bytes = b""
    """Who is to run them, if that is another than the member at the other end."""


class CancelDispatch(msgspec.Struct, frozen=True, gc=False):
    """Call off a dispatch."""

    link: LinkId
    number: int


class SendReply(msgspec.Struct, frozen=True, gc=False):
    """Send a request's result, or its final error, to who asked."""

    link: LinkId
    result: Result


class CallSettled(msgspec.Struct, frozen=True, gc=False):
    """One wanted call of an eager request has ended; goes out joined with its like, before the `SendReply`."""

    link: LinkId
    request: int
    row: Done | Failed


class CallFinished(msgspec.Struct, frozen=True, gc=False):
    """Our worker is through with one call of a dispatch; `last`: with all of them. LOCAL: the coordinator is ours."""

    link: LinkId
    request: int
    row: Done | Failed
    last: bool


class Connect(msgspec.Struct, frozen=True, gc=False):
    """A call waits for a link to this member."""

    member: MemberId


RequestAction = Dispatch | CancelDispatch | SendReply | Connect | Run | Cancel | Notify
"""Commands: what is to be done."""
RequestEvent = CallSettled | CallFinished
"""Facts: what became of a call."""
RequestOutput = RequestAction | RequestEvent
