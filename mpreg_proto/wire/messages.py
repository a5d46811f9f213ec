"""Every message, one Struct each: the whole protocol on one page.

On a native link each is a MessagePack array whose first element is the kind. Arrays only ever grow at the end, and
every field that came later has a default, so an older peer ignores what it does not know and a newer one fills in what
is missing. A kind is sent only to a peer that has it; an unknown kind ends the link with 1040. What users pass and
return travels as opaque bytes (`Call.args`, `Done.value`, `Request.inputs`): a node that only forwards never decodes it
(wire/values.py does).

Times are nanoseconds. They are always spans (time left, time spent), never points in time: clocks are not compared.
"""

from __future__ import annotations

import enum

import msgspec

from mpreg_proto.errors import Fault

VERSION = 1
"""The only protocol version so far; hello carries a range."""


# -- a link's life ----------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """The first message of each side: who I am, what I speak.

    Version and features are then the highest and the set in common.
    """

    versions: tuple[int, int]
    """Lowest and highest protocol version that this side speaks."""
    features: tuple[str, ...]
    cluster: str
    """Cluster id; a client that does not care sends an empty one."""
    member: bytes
    """A node's member id (16 bytes); empty for a client."""
    name: str


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=2, gc=False):
    """Why this link ends now: another cluster, no version in common, a message nobody can read."""

    fault: Fault


class Ping(msgspec.Struct, array_like=True, frozen=True, tag=3, gc=False):
    """Are you there? Sent on links that were silent; any byte answers, a `Pong` does for sure."""

    number: int


class Pong(msgspec.Struct, array_like=True, frozen=True, tag=4, gc=False):
    """I am; repeats the ping's number."""

    number: int


class Goodbye(msgspec.Struct, array_like=True, frozen=True, tag=5, gc=False):
    """I close this link on purpose: nothing new comes from here, answers still do (docs/explanation/membership.md).

    With the reason LEAVING they do not: all that this node had accepted has been answered before.
    """

    reason: str


class GoodbyeReason(enum.StrEnum):
    """The reasons that this release gives; a newer peer may give others."""

    NONE = ""
    LEAVING = "leaving"
    """The node ends."""
    DUPLICATE = "duplicate"
    """Of two links between two nodes the other is kept."""
    IDLE = "idle"
    """Nothing but pings came over it for long."""
    SILENT = "silent"
    """It carries nothing, though its member is alive."""


# -- calls ------------------------------------------------------------------------------------------------------------


class Call(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One function application. `args` is MessagePack of `[[positional, ...], {keyword: value}]` with `Ref` extensions.

    `dependencies` names the calls that must end before this one starts: those that its arguments refer to, and others
    (`after=`).
    """

    name: str
    function: str
    args: bytes
    dependencies: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    version: str | None = None
    """Pins the function's version; None takes any."""


class Request(msgspec.Struct, array_like=True, frozen=True, tag=10, gc=False):
    """A set of calls. From client to node and from node to node alike."""

    id: int
    """Counted up by the sender over its whole life, never reused."""
    calls: tuple[Call, ...]
    timeout: int | None = None
    """Time left; None is the receiver's default."""
    want: tuple[str, ...] | None = None
    """Calls whose results come back; None is the leaves."""
    here: tuple[str, ...] = ()
    """Calls that the receiver was chosen for: it runs or refuses them and never places them anew."""
    inputs: dict[str, bytes] = {}
    """Encoded results of calls outside this request that its calls refer to."""
    wait: int = 0
    """How long a ready call may wait for a node that offers its function."""
    partial: bool = False
    """One failing call does not end the request: what can be computed comes back."""
    eager: bool = False
    """Results come back one by one as they are there, in several `Result`s."""
    trace: bool = False
    """The last `Result` carries where and when each call ran."""
    hops: int = 0
    """Over how many nodes this placement was relayed."""
    caller: str = ""
    idempotent: tuple[str, ...] = ()
    """Calls of `here` that the sender takes for idempotent; a receiver that knows better refuses them."""
    to: bytes = b""
    """The member it is for, if that is not who receives it: pass it on, with the answers coming back the same way."""
    via: tuple[bytes, ...] = ()
    """Members that have passed it on, none of them twice."""


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call's result. `waited` and `ran` are how long it lay in the queue and how long its body took."""

    name: str
    value: bytes
    waited: int = 0
    ran: int = 0


class Failed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call's error. `refused`: its body has not started and never will, so it may go elsewhere."""

    name: str
    fault: Fault
    refused: bool = False
    waited: int = 0
    ran: int = 0


class Traced(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where and when one call ran, in nanoseconds since the request arrived."""

    name: str
    node: str
    queued: int
    moved: int
    started: int
    ended: int
    tries: int
    why: str


class Result(msgspec.Struct, array_like=True, frozen=True, tag=11, gc=False):
    """What came of a request, or of a part of it so far."""

    id: int
    done: tuple[Done, ...] = ()
    failed: tuple[Failed, ...] = ()
    last: bool = True
    """Nothing more comes for this id."""
    fault: Fault | None = None
    """The request's error; under partial the first failure, beside what is `done`."""
    queue: int = 0
    """Calls now waiting at the sender: the load that placement reckons with."""
    trace: tuple[Traced, ...] = ()
    untraced: int = 0
    """Rows of the trace that were left out, as the message would have been too long with them."""


class CancelRequest(msgspec.Struct, array_like=True, frozen=True, tag=12, gc=False):
    """Stop this request. Its `Result` still comes, with 1021 or with what was done by then."""

    id: int


# -- questions about the cluster --------------------------------------------------------------------------------------


class Explain(msgspec.Struct, array_like=True, frozen=True, tag=13, gc=False):
    """Where would these calls run, and why? Nothing runs."""

    request: Request


class Explained(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """For one call: the equals among which the draw will fall (one: it is certain), why, and who was not chosen for
    what.
    """

    name: str
    function: str
    nodes: tuple[str, ...]
    why: str
    rejected: tuple[tuple[str, str], ...] = ()


class Explanation(msgspec.Struct, array_like=True, frozen=True, tag=14, gc=False):
    """The answer to `Explain`: a row a call in the request's order, or the error that the request would end with."""

    id: int
    rows: tuple[Explained, ...] = ()
    fault: Fault | None = None


class GetView(msgspec.Struct, array_like=True, frozen=True, tag=15, gc=False):
    """How do you see the cluster? Answered by `View`."""

    id: int


class View(msgspec.Struct, array_like=True, frozen=True, tag=16, gc=False):
    """A node's view as JSON text (`NodeView`, view.py), for people and tools."""

    id: int
    view: bytes
    last: bool = True
    """Nothing more comes for this id; a view that is longer than a message comes in several, to be put together."""


# -- who is in the cluster, what they offer ---------------------------------------------------------------------------


class Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What somebody believes about one member: its liveness cell, and the owner's own card in the owner's own bytes."""

    member: bytes
    incarnation: int
    standing: int
    card: bytes = b""
    accusers: tuple[bytes, ...] = ()
    """Of SUSPECT: members that said so themselves, at this incarnation; at most 10."""


class Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which version of a member's catalogue is meant, and the hash over its whole content at that version (16
    bytes).
    """

    member: bytes
    version: int
    hash: bytes


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of a catalogue as its owner wrote it; empty bytes: the entry is gone."""

    version: int
    key: str
    entry: bytes


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Changes of one catalogue from `since` up to `head.version`; `since` 0 is the whole of it, a snapshot."""

    head: Head
    since: int
    changes: tuple[Change, ...]


class Gossip(msgspec.Struct, array_like=True, frozen=True, tag=20, gc=False):
    """Claims that rose and catalogues that grew. Forwarded on first receipt, never back to where it came from."""

    claims: tuple[Claim, ...] = ()
    deltas: tuple[Delta, ...] = ()
    heads: tuple[Head, ...] = ()
    """Catalogue heads without their content: ask for it with `Fetch`."""
    answer: bool = False
    """To a `Digest`, a `BucketHashes` or a `Pull`: now you know what I know."""


class Digest(msgspec.Struct, array_like=True, frozen=True, tag=21, gc=False):
    """What the sender knows, in keys only. What is newer here goes back as `Gossip`, what is older as `Pull`."""

    claims: tuple[Claim, ...]
    """Without cards."""
    heads: tuple[Head, ...]
    scope: bytes = b""
    """Which of the 256 buckets it is about, a bit each (32 bytes, the first bit is bucket 0); empty: all of them."""


class Fetch(msgspec.Struct, array_like=True, frozen=True, tag=22, gc=False):
    """Send me this member's catalogue; I hold it at `have` (0: not at all)."""

    member: bytes
    have: int


class BucketHashes(msgspec.Struct, array_like=True, frozen=True, tag=23, gc=False):
    """256 hashes of 8 bytes over all cells and heads, a bucket each.

    Answered by an empty `Gossip` if they are alike here, else by a `Digest` of the buckets that are not.
    """

    hashes: bytes


class Pull(msgspec.Struct, array_like=True, frozen=True, tag=24, gc=False):
    """Your digest is ahead of me in these, which I hold as said (incarnation -1: not at all): send `Gossip` of them."""

    claims: tuple[Claim, ...]
    heads: tuple[Head, ...]


class DialBack(msgspec.Struct, array_like=True, frozen=True, tag=25, gc=False):
    """`member` cannot dial `to`, which is to dial it in turn. Passed on at most four times, never twice over one."""

    to: bytes
    member: bytes
    via: tuple[bytes, ...] = ()


class PingReq(msgspec.Struct, array_like=True, frozen=True, tag=26, gc=False):
    """That member does not answer me: does it answer you? Only a yes is said, as `IndirectAck` (SWIM, section 3.1)."""

    member: bytes


class IndirectAck(msgspec.Struct, array_like=True, frozen=True, tag=27, gc=False):
    """That member answers me."""

    member: bytes


Message = (
    Hello
    | Refused
    | Ping
    | Pong
    | Goodbye
    | Request
    | Result
    | CancelRequest
    | Explain
    | Explanation
    | GetView
    | View
    | Gossip
    | Digest
    | Fetch
    | BucketHashes
    | Pull
    | DialBack
    | PingReq
    | IndirectAck
)
