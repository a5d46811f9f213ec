"""Native messages of every kind, with extreme numbers and names that collide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mpreg_proto.errors import Fault
from mpreg_proto.wire.messages import (
    BucketHashes,
    Call,
    CallProgress,
    CancelRequest,
    Change,
    Claim,
    Credit,
    Delta,
    DialBack,
    Digest,
    Done,
    Drain,
    DrainReply,
    Explain,
    Explanation,
    Failed,
    Fetch,
    GetView,
    Goodbye,
    Gossip,
    Head,
    Hello,
    IndirectAck,
    InputItems,
    InputTaken,
    Items,
    ItemsTaken,
    Message,
    Ping,
    PingReq,
    Pong,
    Pull,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.values import Ref, ValueCodec

MEMBERS = (b"p" * 16, b"n" * 16, b"q" * 16, b"", b"short")
NAMES = ("x", "y", "z", "", "é", "n" * 65)

whole: SearchStrategy[int] = st.one_of(
    st.integers(0, 5), st.sampled_from([-1, 2**31, 2**62, 2**63 - 1, 2**64 - 1, -(2**63)])
)
"""Small numbers, and those at the limits of the numbers of a message."""
plain: SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), whole, st.text(max_size=5), st.binary(max_size=5), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
"""Trees of the types that MessagePack has itself."""


def messages(
    *kinds: type[Message], names: Sequence[str] = NAMES, members: Sequence[bytes] = MEMBERS
) -> SearchStrategy[Message]:
    """Return a strategy for native messages: of these kinds, or of every kind, those that end a link less often.

    `names` are those of calls, functions and resources, so that messages can refer to each other and to what a node
    offers; `members` are the member ids. Numbers are often extreme, and many messages make no sense.
    """
    known = _kinds(st.sampled_from(list(names)), st.sampled_from(list(members)))
    if kinds:
        return st.one_of([known[kind] for kind in kinds])
    often = st.one_of([one for kind, one in known.items() if kind not in _RARE])
    return st.one_of(*[often] * 8, st.one_of([known[kind] for kind in _RARE]))


_RARE = (Refused, Explanation, View, Hello, Drain, DrainReply)
"""Messages that a node receives at most once on a link, or never: they end it, or the node."""


def _kinds(name: SearchStrategy[str], member: SearchStrategy[bytes]) -> dict[type, SearchStrategy[Any]]:
    """Return a strategy for each kind of message."""
    names = st.lists(name, max_size=3).map(tuple)
    known = _requests(name, names) | _membership(member)
    known[Hello] = st.builds(Hello, st.tuples(whole, whole), names, name, member, name)
    known[Goodbye] = st.builds(Goodbye, name)
    known[Credit] = st.builds(Credit, name)
    known |= {kind: st.builds(kind, whole) for kind in (Ping, Pong, CancelRequest, GetView, Explanation)}
    via = st.lists(member, max_size=3).map(tuple)
    known[Drain] = st.builds(Drain, whole, name, member, via)
    known[DrainReply] = st.builds(DrainReply, whole, member, name, name)
    return {kind: known[kind] for kind in get_args(Message)}


def _requests(name: SearchStrategy[str], names: SearchStrategy[tuple[str, ...]]) -> dict[type, SearchStrategy[Any]]:
    """Return a strategy for each message about requests."""
    fault = st.builds(
        Fault,
        st.one_of(st.sampled_from([1001, 1003, 1010, 1020, 1021, 1022, 1023, 1024]), whole),
        st.text(max_size=8),
        st.dictionaries(st.sampled_from(["call", "node", "maybe_executed", "x"]), plain, max_size=3),
    )
    call = st.builds(Call, name, name, _blob, names, names, st.one_of(st.none(), name))
    request = st.builds(
        Request,
        whole,
        st.lists(call, max_size=4).map(tuple),
        timeout=st.one_of(st.none(), whole),
        want=st.one_of(st.none(), names),
        here=names,
        inputs=st.dictionaries(name, _blob, max_size=2),
        wait=whole,
        partial=st.booleans(),
        eager=st.booleans(),
        trace=st.booleans(),
        hops=whole,
        caller=name,
        again=st.booleans(),
        client=whole,
        progress=st.booleans(),
        streams=names,
        iterates=st.dictionaries(name, name, max_size=2),
    )
    result = st.builds(
        Result,
        whole,
        st.lists(st.builds(Done, name, _blob, whole, whole), max_size=3).map(tuple),
        st.lists(st.builds(Failed, name, fault, st.booleans(), whole, whole), max_size=3).map(tuple),
        st.booleans(),
        st.one_of(st.none(), fault),
        whole,
    )
    return {
        Request: request,
        Result: result,
        Explain: st.builds(Explain, request),
        Refused: st.builds(Refused, fault),
        View: st.builds(View, whole, _blob),
        Items: st.builds(Items, whole, name, st.lists(_blob, max_size=3).map(tuple)),
        ItemsTaken: st.builds(ItemsTaken, whole, name, whole),
        InputItems: st.builds(InputItems, whole, name, st.lists(_blob, max_size=3).map(tuple), st.booleans()),
        InputTaken: st.builds(InputTaken, whole, name, whole),
        CallProgress: st.builds(CallProgress, whole, name, name, name, whole, st.one_of(st.none(), st.floats()), name),
    }


def _membership(member: SearchStrategy[bytes]) -> dict[type, SearchStrategy[Any]]:
    """Return a strategy for each message about members and their catalogues."""
    head = st.builds(Head, member, whole, st.sampled_from([b"h" * 16, b"", b"h"]))
    claim = st.builds(Claim, member, whole, whole, st.one_of(st.just(b""), st.binary(max_size=20)))
    change = st.builds(Change, whole, st.sampled_from(["f:x", "r", "d", "f:", "?"]), _blob)
    delta = st.builds(Delta, head, whole, st.lists(change, max_size=3).map(tuple))
    claims, heads = st.lists(claim, max_size=3).map(tuple), st.lists(head, max_size=2).map(tuple)
    return {
        Gossip: st.builds(Gossip, claims, st.lists(delta, max_size=2).map(tuple), heads, st.booleans()),
        Digest: st.builds(Digest, claims, heads, st.sampled_from([b"", b"\xff" * 32, b"\0" * 32, b"\xff"])),
        Fetch: st.builds(Fetch, member, whole),
        BucketHashes: st.builds(BucketHashes, st.sampled_from([b"", bytes(2048), b"\xff" * 2048, b"short"])),
        Pull: st.builds(Pull, claims, heads),
        DialBack: st.builds(DialBack, member, member, st.lists(member, max_size=3).map(tuple)),
        PingReq: st.builds(PingReq, member),
        IndirectAck: st.builds(IndirectAck, member),
    }


_CODEC = ValueCodec()
_blob = st.one_of(
    st.sampled_from([_CODEC.encode([[1], {}]), _CODEC.encode([[Ref("x")], {}]), _CODEC.encode(5), b"", b"\xc1"]),
    st.binary(max_size=12),
)
"""Encoded arguments and results, and bytes that are none."""
