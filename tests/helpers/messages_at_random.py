"""Hypothesis strategies for every message of the protocol, with extreme numbers and names that collide.

For tests that send a node any message that a peer may send (tests/properties/test_node.py).
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mpreg_proto.errors import Fault
from mpreg_proto.wire.messages import (
    Call,
    CancelRequest,
    Change,
    Claim,
    Delta,
    Digest,
    Done,
    Explain,
    Explanation,
    Failed,
    Fetch,
    GetView,
    Goodbye,
    Gossip,
    Head,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Request,
    Result,
    View,
)
from mpreg_proto.wire.values import Ref
from tests.helpers.node_harness import CODEC

PEER = b"p" * 16
"""The member id of the sender."""

whole = st.one_of(st.integers(0, 5), st.sampled_from([-1, 2**31, 2**62, 2**63 - 1, 2**64 - 1, -(2**63)]))
name = st.sampled_from(["x", "y", "z", "here", "safe", "once", "far", "", "é", "n" * 65])
names = st.lists(name, max_size=3).map(tuple)
member = st.sampled_from([PEER, b"n" * 16, b"q" * 16, b"", b"short"])
blob = st.one_of(
    st.sampled_from([CODEC.encode([[1], {}]), CODEC.encode([[Ref("x")], {}]), CODEC.encode(5), b"", b"\xc1"]),
    st.binary(max_size=12),
)
plain: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), whole, st.text(max_size=5), st.binary(max_size=5), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
fault = st.builds(
    Fault,
    st.one_of(st.sampled_from([1001, 1003, 1010, 1020, 1021, 1022, 1023, 1024]), whole),
    st.text(max_size=8),
    st.dictionaries(st.sampled_from(["call", "node", "maybe_executed", "x"]), plain, max_size=3),
)
made_call = st.builds(Call, name, name, blob, names, names, st.one_of(st.none(), name))
request = st.builds(
    Request,
    whole,
    st.lists(made_call, max_size=4).map(tuple),
    timeout=st.one_of(st.none(), whole),
    want=st.one_of(st.none(), names),
    here=names,
    inputs=st.dictionaries(name, blob, max_size=2),
    wait=whole,
    partial=st.booleans(),
    eager=st.booleans(),
    trace=st.booleans(),
    hops=whole,
    caller=name,
)
done = st.builds(Done, name, blob, whole, whole)
failed = st.builds(Failed, name, fault, st.booleans(), whole, whole)
result = st.builds(
    Result,
    whole,
    st.lists(done, max_size=3).map(tuple),
    st.lists(failed, max_size=3).map(tuple),
    st.booleans(),
    st.one_of(st.none(), fault),
    whole,
)
head = st.builds(Head, member, whole, st.sampled_from([b"h" * 16, b"", b"h"]))
claim = st.builds(Claim, member, whole, whole, st.one_of(st.just(b""), st.binary(max_size=20)))
change = st.builds(Change, whole, st.sampled_from(["f:x", "r", "d", "f:", "?"]), blob)
delta = st.builds(Delta, head, whole, st.lists(change, max_size=3).map(tuple))
some = st.one_of(
    st.builds(Ping, whole),
    st.builds(Pong, whole),
    st.builds(Goodbye, name),
    request,
    request,
    result,
    result,
    st.builds(CancelRequest, whole),
    st.builds(Explain, request),
    st.builds(GetView, whole),
    st.builds(
        Gossip,
        st.lists(claim, max_size=3).map(tuple),
        st.lists(delta, max_size=2).map(tuple),
        st.lists(head, max_size=2).map(tuple),
    ),
    st.builds(Digest, st.lists(claim, max_size=3).map(tuple), st.lists(head, max_size=2).map(tuple)),
    st.builds(Fetch, member, whole),
)
rare = st.one_of(
    st.builds(Refused, fault),
    st.builds(Explanation, whole),
    st.builds(View, whole, blob),
    st.builds(Hello, st.tuples(whole, whole), names, name, member, name),
)
message: st.SearchStrategy[Message] = st.one_of(*[some] * 8, rare)
