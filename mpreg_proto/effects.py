"""All effects on one page: what a core returns for its adapter to do.

`Node.drain()` and `ClientSession.drain()` return these in the order of their causes. An adapter carries them out and
answers with plain method calls (`receive`, `finished`, `dial_failed`, ...). Nothing here holds a socket or a callback.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address, LinkId, RunId
from mpreg_proto.limits import DEFAULT
from mpreg_proto.notices import Notice
from mpreg_proto.wire.framing import Framing
from mpreg_proto.wire.messages import Message


class Lane(enum.Enum):
    """The lane of a message in the send buffer. Messages of one lane keep their order."""

    CONTROL = "control"
    """Hellos, pings, pongs and membership: short, and useless when late. An adapter may send them first."""
    CONTENT = "content"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Write to a link. Byte streams: the concatenation of `chunks`; message framings: each chunk is one message.

    With Framing.OBJECTS there are no chunks, only the `message` itself. One `Send` is one message: a message in
    `Lane.CONTROL` may overtake whole messages in `Lane.CONTENT` in the send buffer.
    """

    link: LinkId
    chunks: tuple[bytes, ...]
    message: Message | None = None
    lane: Lane = Lane.CONTENT


class Dial(msgspec.Struct, frozen=True, gc=False):
    """Open a link. Ends in one `link_opened(dialled=address)` or one `dial_failed(address)`.

    After `within` nanoseconds the core counts the dial as failed. A link that opens later is still welcome.
    """

    address: Address
    within: int = DEFAULT.dial


class HangUp(msgspec.Struct, frozen=True, gc=False):
    """Close a link once everything sent before has left; `link_closed` follows. `code` is the WebSocket close code.

    If the peer takes nothing of that for `within` nanoseconds, close it all the same. The core has already let go of
    all that belonged to the link, and ignores what still arrives.
    """

    link: LinkId
    code: CloseCode
    within: int = DEFAULT.hang_up


class Run(msgspec.Struct, frozen=True):
    """Run a function that this node offers. Ends in exactly one `finished(run, outcome)`, also after a `Cancel`."""

    run: RunId
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    deadline: int
    reports: bool = False
    """True if its caller wants to know how far it is: `Node.reported(run, Report(...))`."""
    demand: int = 0
    """Of a generator, the number of items that it may produce at first: `Node.yielded(run, items)`. Of other functions
    0."""
    fed: bool = False
    """True if the argument of its `FunctionSpec.consumes`, which is None here, is to be an iterator. Its items come as
    `Feed`s; for each that the function takes call `Node.took(run, 1)`."""


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Request that a run stops. It may go on (a thread cannot be interrupted); its `finished` must still come."""

    run: RunId


class Demand(msgspec.Struct, frozen=True, gc=False):
    """Let a generator produce so many more items. Until then it waits, before it goes on after its last `yield`."""

    run: RunId
    items: int


class Feed(msgspec.Struct, frozen=True):
    """Give the iterator of a `fed` run its next items. `last`: no more come, so it ends after them."""

    run: RunId
    items: list[Any]
    last: bool = False


class Notify(msgspec.Struct, frozen=True, gc=False):
    """Report a notice in logs or metrics. Code that receives it must not call the core from there."""

    notice: Notice


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """Ask the peer of a silent JSON link for a sign of life: send a WebSocket ping; its pong is `progress(link)`.

    If the transport has no ping, or takes care of dead peers itself, call `progress(link)` at once.
    """

    link: LinkId


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Stop reading the link of a JSON client until `Resume`. No other link is paused."""

    link: LinkId


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Read a paused link again."""

    link: LinkId


class Report(msgspec.Struct, frozen=True, gc=False):
    """The progress of a run, in a unit of its function: `done` of `total`, which is None if it is not known."""

    done: int | float
    total: int | float | None = None
    text: str = ""


Effect = Send | Dial | HangUp | Run | Cancel | Demand | Feed | Notify | KeepAlive | Pause | Resume


class Returned(msgspec.Struct, frozen=True):
    """The function returned `value`."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The function raised. `kind` is the exception's type name; `traceback` may be empty.

    At most FAILURE_TEXT characters of each are sent.
    """

    kind: str
    message: str
    traceback: str = ""


class Stopped(msgspec.Struct, frozen=True):
    """The run ended because it was cancelled."""


class NotStarted(msgspec.Struct, frozen=True):
    """The function has not started and never will, for `reason`. The call goes elsewhere."""

    reason: str


class Lost(msgspec.Struct, frozen=True):
    """The run was lost with its executor, such as a process of a pool; the function may have started.

    `reason` describes what happened. The call is started again if its function is idempotent, else it ends with 1023.
    """

    reason: str


Outcome = Returned | Raised | Stopped | NotStarted | Lost
OUTCOMES = (Returned, Raised, Stopped, NotStarted, Lost)
"""The types of `Outcome`."""

FAILURE_TEXT = 16 * 1024
"""The most characters of an exception's message, and of its traceback, that are sent."""
FAILURE_SUMMARY = 1_000
"""The most characters of an exception's message that the text of error 1003 repeats."""

__all__ = [
    "FAILURE_SUMMARY",
    "FAILURE_TEXT",
    "OUTCOMES",
    "Cancel",
    "Demand",
    "Dial",
    "Effect",
    "Feed",
    "Framing",
    "HangUp",
    "KeepAlive",
    "Lane",
    "Lost",
    "NotStarted",
    "Notify",
    "Outcome",
    "Pause",
    "Raised",
    "Report",
    "Resume",
    "Returned",
    "Run",
    "Send",
    "Stopped",
]
