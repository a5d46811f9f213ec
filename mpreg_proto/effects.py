"""All that a core may want from the world, on one page.

`Node.drain()` and `ClientSession.drain()` return these in the order of their causes. An adapter carries them out and
answers with plain method calls (`receive`, `finished`, `dial_failed`, ...). Nothing here holds a socket or a callback.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address, LinkId, RunId
from mpreg_proto.notices import Notice
from mpreg_proto.wire.framing import Framing
from mpreg_proto.wire.messages import Message


class Lane(enum.Enum):
    """Which of two waiting messages leaves first; within one lane they keep their order."""

    CONTROL = "control"
    """Hellos, pings, pongs and membership: short, and of no use when late. An adapter may send it first."""
    CONTENT = "content"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Write to a link. Byte streams: the concatenation of `chunks`; message framings: each chunk is one message.

    Only with Framing.OBJECTS there are no chunks but the `message` itself. One `Send` is one message: what is in
    `Lane.CONTROL` may overtake whole messages in `Lane.CONTENT` that wait to leave.
    """

    link: LinkId
    chunks: tuple[bytes, ...]
    message: Message | None = None
    lane: Lane = Lane.CONTENT


class Dial(msgspec.Struct, frozen=True, gc=False):
    """Open a link. Ends in exactly one `link_opened(dialled=address)` or one `dial_failed(address)`."""

    address: Address


class HangUp(msgspec.Struct, frozen=True, gc=False):
    """Close a link after what was sent before has left; `link_closed` follows. `code` is WebSocket's."""

    link: LinkId
    code: CloseCode


class Run(msgspec.Struct, frozen=True):
    """Run a function that this node offers. Ends in exactly one `finished(run, outcome)`, also after a `Cancel`."""

    run: RunId
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    deadline: int


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Ask a run to stop. It may go on (a thread cannot be interrupted); its `finished` is still owed."""

    run: RunId


class Notify(msgspec.Struct, frozen=True, gc=False):
    """Something worth telling people or counting. Whoever gets it must not call the core from there."""

    notice: Notice


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Stop reading a client's link until `Resume`."""

    link: LinkId


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Read that link again."""

    link: LinkId


Effect = Send | Dial | HangUp | Run | Cancel | Notify | Pause | Resume


class Returned(msgspec.Struct, frozen=True):
    """A function came back with `value`."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """A function raised. `kind` is the exception's type name; `traceback` may be empty.

    At most FAILURE_TEXT characters of each are sent.
    """

    kind: str
    message: str
    traceback: str = ""


class Stopped(msgspec.Struct, frozen=True):
    """A run ended because it was cancelled."""


class NotStarted(msgspec.Struct, frozen=True):
    """The body has not begun and never will; `reason` says why. The call goes elsewhere."""

    reason: str


class Lost(msgspec.Struct, frozen=True):
    """What ran the body is gone, such as a process of a pool: it may have begun. `reason` says what happened.

    The call is started again if its function is idempotent, else it ends with 1023.
    """

    reason: str


Outcome = Returned | Raised | Stopped | NotStarted | Lost

FAILURE_TEXT = 16 * 1024
"""Characters of an exception's message, and of its traceback, that are sent."""
FAILURE_SUMMARY = 1_000
"""Characters of an exception's message that the sentence of error 1003 repeats."""

__all__ = [
    "FAILURE_SUMMARY",
    "FAILURE_TEXT",
    "Cancel",
    "Dial",
    "Effect",
    "Framing",
    "HangUp",
    "Lane",
    "Lost",
    "NotStarted",
    "Notify",
    "Outcome",
    "Pause",
    "Raised",
    "Resume",
    "Returned",
    "Run",
    "Send",
    "Stopped",
]
