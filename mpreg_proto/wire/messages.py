"""All messages, one Struct each: the whole protocol on one page.

On a native link, each message is a MessagePack array whose first element is the kind. Arrays grow only at the end, and
every later field has a default. So an older peer ignores fields that it does not have, and a newer one fills in missing
fields. A kind is sent only to a peer that has it; an unknown kind ends the link with 1040. Arguments and results of
users travel as opaque bytes (`Call.args`, `Done.value`, `Request.inputs`). A node that only forwards them never decodes
them; wire/values.py does.

Times are nanoseconds. They are always spans (time left, time spent), never points in time: clocks are not compared.
"""

from __future__ import annotations

import enum

import msgspec

from mpreg_proto.errors import Fault

VERSION = 1
"""The only protocol version so far; a hello carries a range."""
CREDIT = (1_024, 32 * 1024 * 1024)
"""The credit of a client at a node that announces none: requests in flight, and their bytes."""


# -- the life of a link ----------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """The first message of each side: its identity, and the versions and features that it supports.

    The link then has the highest common version and the common features.
    """

    versions: tuple[int, int]
    """The lowest and highest protocol version that this side supports."""
    features: tuple[str, ...]
    cluster: str
    """The cluster id; empty for a client that accepts any cluster."""
    member: bytes
    """The member id of a node (16 bytes); empty for a client."""
    name: str
    credit: tuple[int, int] = CREDIT
    """Of a node: the requests that a client may have in flight on this link, and their bytes. More wait at the client;
    a single request may be longer. A request beyond it ends with 1022."""


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=2, gc=False):
    """The reason why this link ends now: another cluster, no common version, an unreadable message."""

    fault: Fault


class Ping(msgspec.Struct, array_like=True, frozen=True, tag=3, gc=False):
    """A check that the peer is alive, sent on silent links and as a probe. Any byte is an answer; a `Pong` follows."""

    number: int


class Pong(msgspec.Struct, array_like=True, frozen=True, tag=4, gc=False):
    """The answer to a `Ping`, with its number."""

    number: int


class Goodbye(msgspec.Struct, array_like=True, frozen=True, tag=5, gc=False):
    """The sender closes this link on purpose: it still sends answers, but nothing new (docs/explanation/membership.md).

    With the reason LEAVING it sends no answers either: it has already answered everything that it accepted.
    """

    reason: str


class GoodbyeReason(enum.StrEnum):
    """The reasons that this release sends; a newer peer may send others."""

    NONE = ""
    LEAVING = "leaving"
    """The node leaves the cluster."""
    DUPLICATE = "duplicate"
    """There are two links between two nodes, and the other one is kept."""
    IDLE = "idle"
    """Nothing but pings came over the link for a long time."""
    SILENT = "silent"
    """The link carries nothing, although its member is alive."""


# -- calls ------------------------------------------------------------------------------------------------------------


class ItemsParameter(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The parameter of a function that takes the items of a generator one by one."""

    name: str
    place: int = -1
    """Its place among the positional arguments of a caller, from 0; -1 if it is passed by name alone."""


class Call(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A call of a function. `args` is MessagePack of `[[positional, ...], {keyword: value}]` with `Ref` extensions.

    `dependencies` names the calls that must end before this one starts: those that its arguments refer to, and others
    (`after=`).
    """

    name: str
    function: str
    args: bytes
    dependencies: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    version: str | None = None
    """The pinned version of the function; None accepts any."""


class Request(msgspec.Struct, array_like=True, frozen=True, tag=10, gc=False):
    """A set of calls, from a client to a node or from one node to another."""

    id: int
    """A number that the sender counts up over its whole life and never reuses."""
    calls: tuple[Call, ...]
    timeout: int | None = None
    """The time left; None means the receiver's default."""
    want: tuple[str, ...] | None = None
    """The calls whose results come back; None means the leaves."""
    here: tuple[str, ...] = ()
    """The calls that were placed on the receiver: it runs or refuses them, and never places them again."""
    inputs: dict[str, bytes] = {}
    """The encoded results of calls outside this request to which its calls refer."""
    wait: int = 0
    """The longest time that a ready call waits for a node that offers its function."""
    partial: bool = False
    """If True, a failed call does not end the request: all results that can be computed come back."""
    eager: bool = False
    """If True, each result comes back as soon as it exists, in several `Result`s."""
    trace: bool = False
    """If True, the last `Result` carries where and when each call ran."""
    hops: int = 0
    """The number of nodes that have relayed this placement."""
    caller: str = ""
    idempotent: tuple[str, ...] = ()
    """Calls of `here` that the sender takes for idempotent; a receiver where they are not refuses them."""
    to: bytes = b""
    """The destination, if that is another member: the receiver relays the request, and its answers come back by it."""
    via: tuple[bytes, ...] = ()
    """The members that have relayed the request, none of them twice."""
    again: bool = False
    """True if the request was sent before, to this node or another, and may have started there. The receiver accepts it
    only if every function in it is idempotent, else it answers 1023. Only sent to a peer with the feature."""
    client: int = 0
    """The sender's number of the client that the calls are for; clients take turns where calls wait."""
    progress: bool = False
    """If True, the progress of its calls comes back, each time as a `CallProgress`."""
    streams: tuple[str, ...] = ()
    """Calls of generators whose items come back one by one, as `Items`, if nothing depends on them. Their `Done` then
    has an empty `value`. Any other call has its whole result there."""
    iterates: dict[str, str] = {}
    """Calls of `here` that take the items of a dependency one by one, as `InputItems`, and that dependency, which is
    not in `inputs`. Only sent to a peer with the feature."""


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The result of one call. `waited` is the time that it was queued, `ran` the time that its function took."""

    name: str
    value: bytes
    waited: int = 0
    ran: int = 0


class Failed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The error of one call. `refused`: its function has not started and never will, so it may run elsewhere."""

    name: str
    fault: Fault
    refused: bool = False
    waited: int = 0
    ran: int = 0


class Traced(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The node and times of one call, in nanoseconds since the request arrived."""

    name: str
    node: str
    queued: int
    moved: int
    started: int
    ended: int
    tries: int
    why: str


class Result(msgspec.Struct, array_like=True, frozen=True, tag=11, gc=False):
    """The results and errors of a request, or of a part of it."""

    id: int
    done: tuple[Done, ...] = ()
    failed: tuple[Failed, ...] = ()
    last: bool = True
    """True if nothing more comes for this id."""
    fault: Fault | None = None
    """The error of the request; under `partial` the first failure, next to the results in `done`."""
    queue: int = 0
    """The number of calls queued at the sender now: the load that placement uses."""
    trace: tuple[Traced, ...] = ()
    untraced: int = 0
    """The number of rows that `trace` lacks, because the message would have been too long with them."""


class CancelRequest(msgspec.Struct, array_like=True, frozen=True, tag=12, gc=False):
    """A command to stop a request. Its `Result` still comes, with 1021 or with what was done by then."""

    id: int


class CallProgress(msgspec.Struct, array_like=True, frozen=True, tag=32, gc=False):
    """The progress of a call, as its function reports it; only for a request with `progress`, before its `Result`.

    At most ten come in a second for each call. A receiver that coordinates the request sends it on.
    """

    id: int
    call: str
    function: str
    node: str
    """The node that runs the call."""
    done: int | float
    total: int | float | None = None
    text: str = ""


class Items(msgspec.Struct, array_like=True, frozen=True, tag=33, gc=False):
    """The next items of a call in `streams`, in order and before its `Result`.

    At most 16 items are on their way at a time: more follow after an `ItemsTaken`.
    """

    id: int
    call: str
    values: tuple[bytes, ...]


class ItemsTaken(msgspec.Struct, array_like=True, frozen=True, tag=34, gc=False):
    """The receiver of `Items` has used so many more of them: as many new ones may come."""

    id: int
    call: str
    count: int


class InputItems(msgspec.Struct, array_like=True, frozen=True, tag=35, gc=False):
    """The next items for a call in `iterates`, in order, from the node that dispatched it. Only sent with the feature.

    At most 16 of them are unused at a time: more follow after an `InputTaken`.
    """

    id: int
    call: str
    values: tuple[bytes, ...]
    last: bool = False
    """True if no more come: their generator has ended."""


class InputTaken(msgspec.Struct, array_like=True, frozen=True, tag=36, gc=False):
    """The function of a call in `iterates` has taken so many more items. Only sent with the feature."""

    id: int
    call: str
    count: int


# -- queries about the cluster ----------------------------------------------------------------------------------------


class Credit(msgspec.Struct, array_like=True, frozen=True, tag=17, gc=False):
    """The sender, which had no place for a call of this function, keeps one for the receiver for a quarter second."""

    function: str


class Explain(msgspec.Struct, array_like=True, frozen=True, tag=13, gc=False):
    """A query for the nodes on which these calls would run, and the reasons. Nothing runs."""

    request: Request


class Explained(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The placement of one call: its candidates, the reason, and the rejected nodes, each with the reason.

    The candidates are equally good, and a random draw chooses one of them. If there is only one, the choice is certain.
    """

    name: str
    function: str
    nodes: tuple[str, ...]
    why: str
    rejected: tuple[tuple[str, str], ...] = ()


class Explanation(msgspec.Struct, array_like=True, frozen=True, tag=14, gc=False):
    """The answer to `Explain`: a row for each call in the request's order, or the error that would end the request."""

    id: int
    rows: tuple[Explained, ...] = ()
    fault: Fault | None = None


class GetView(msgspec.Struct, array_like=True, frozen=True, tag=15, gc=False):
    """A query for the receiver's view of the cluster. The answer is a `View`."""

    id: int


class View(msgspec.Struct, array_like=True, frozen=True, tag=16, gc=False):
    """The view of a node as JSON text (`NodeView`, view.py), for people and tools."""

    id: int
    view: bytes
    last: bool = True
    """True if nothing more comes for this id. A view longer than one message comes in several, to be joined."""


# -- leaving -----------------------------------------------------------------------------------------------------------


class Drain(msgspec.Struct, array_like=True, frozen=True, tag=30, gc=False):
    """A command to let a member leave the cluster in order, as after SIGTERM.

    From a client it names the member in `node`, and the answer is a `DrainReply`. From node to node it names it in `to`
    and has no answer; it is relayed at most four times, never twice by one node.
    """

    id: int
    node: str = ""
    """The name of the member, the beginning of its id in hexadecimal, or one of its addresses."""
    to: bytes = b""
    via: tuple[bytes, ...] = ()


class DrainState(enum.StrEnum):
    """The progress of a `Drain` in the view of the node that answers."""

    CONNECTING = "connecting"
    """There is no link to the member yet, and one is being opened: send the command again."""
    SENT = "sent"
    DRAINING = "draining"
    LEFT = "left"


class DrainReply(msgspec.Struct, array_like=True, frozen=True, tag=31, gc=False):
    """The answer to a client's `Drain`: the member that it means, or the error."""

    id: int
    member: bytes = b""
    shown: str = ""
    state: str = ""
    fault: Fault | None = None


# -- members and their catalogues -------------------------------------------------------------------------------------


class Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The standing of one member in the view of the sender, and its card, in the bytes that the member wrote."""

    member: bytes
    incarnation: int
    standing: int
    card: bytes = b""
    accusers: tuple[bytes, ...] = ()
    """For SUSPECT: the members that suspect it themselves, at this incarnation; at most 10."""


class Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The version of a member's catalogue, and the hash over its whole content at that version (16 bytes)."""

    member: bytes
    version: int
    hash: bytes


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of a catalogue, as its owner wrote it; empty bytes mean that the entry was removed."""

    version: int
    key: str
    entry: bytes


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Changes of one catalogue from `since` up to `head.version`; with `since` 0 the whole catalogue, a snapshot."""

    head: Head
    since: int
    changes: tuple[Change, ...]


class Gossip(msgspec.Struct, array_like=True, frozen=True, tag=20, gc=False):
    """Newer claims and catalogue changes. Each is forwarded on first receipt, never back to its source."""

    claims: tuple[Claim, ...] = ()
    deltas: tuple[Delta, ...] = ()
    heads: tuple[Head, ...] = ()
    """Catalogue heads without their content, which the receiver gets with `Fetch`."""
    answer: bool = False
    """True in the answer to a `Digest`, a `BucketHashes` or a `Pull`: the receiver now has the sender's state."""


class Digest(msgspec.Struct, array_like=True, frozen=True, tag=21, gc=False):
    """The sender's state, in keys only.

    The receiver answers with `Gossip` for what it has newer, and with `Pull` for what it has older.
    """

    claims: tuple[Claim, ...]
    """Claims without cards."""
    heads: tuple[Head, ...]
    scope: bytes = b""
    """The buckets that it covers, one bit for each of 256 (32 bytes, the first bit is bucket 0); empty means all."""


class Fetch(msgspec.Struct, array_like=True, frozen=True, tag=22, gc=False):
    """A query for a member's catalogue. The sender has version `have` of it (0: none)."""

    member: bytes
    have: int


class BucketHashes(msgspec.Struct, array_like=True, frozen=True, tag=23, gc=False):
    """256 hashes of 8 bytes over all cells and heads, one for each bucket.

    The answer is an empty `Gossip` if the receiver has the same hashes, else a `Digest` of the buckets that differ.
    """

    hashes: bytes


class Pull(msgspec.Struct, array_like=True, frozen=True, tag=24, gc=False):
    """A query for the state in which a digest is newer than its receiver. The answer is `Gossip`.

    Claims and heads are as the sender of the `Pull` has them (incarnation -1: not at all).
    """

    claims: tuple[Claim, ...]
    heads: tuple[Head, ...]


class DialBack(msgspec.Struct, array_like=True, frozen=True, tag=25, gc=False):
    """`member` cannot dial `to`, so `to` must dial `member`. Relayed at most four times, never twice by one node."""

    to: bytes
    member: bytes
    via: tuple[bytes, ...] = ()


class PingReq(msgspec.Struct, array_like=True, frozen=True, tag=26, gc=False):
    """A request to probe a member that does not answer the sender.

    The receiver answers only if the member does, with `IndirectAck` (SWIM, section 3.1).
    """

    member: bytes


class IndirectAck(msgspec.Struct, array_like=True, frozen=True, tag=27, gc=False):
    """The answer to a `PingReq`: the member answers the sender."""

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
    | CallProgress
    | Items
    | ItemsTaken
    | InputItems
    | InputTaken
    | Credit
    | Explain
    | Explanation
    | GetView
    | View
    | Drain
    | DrainReply
    | Gossip
    | Digest
    | Fetch
    | BucketHashes
    | Pull
    | DialBack
    | PingReq
    | IndirectAck
)
"""Any native message (docs/reference/messages.md)."""
