"""The session of one link: the table of stages, the handshake, bytes and violations, and the dialect."""

import json
from itertools import product

import pytest

from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import Address, LinkId
from mpreg_proto.limits import Limits
from mpreg_proto.wire import dialects
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.framing import Framing, prefix
from mpreg_proto.wire.handshake import Authentication, hello
from mpreg_proto.wire.messages import Claim, Goodbye, Gossip, Hello, Message, Ping, Refused, Request, Result
from mpreg_proto.wire.session import CLOSE_CODES, STAGES, Cause, Session, Stage
from mpreg_proto.wire.values import ValueCodec

NODE = hello(cluster="c", member=b"n" * 16, name="node")
OTHER = hello(cluster="c", member=b"o" * 16, name="other")
CLIENT = hello(cluster="", member=b"", name="client")
LIMITS = Limits(message=1000, node_message=2000)


def session(
    framing: Framing = Framing.NATIVE_MESSAGES,
    *,
    local_hello: Hello = NODE,
    dialled: str | None = None,
    limits: Limits = LIMITS,
    verdict: Authentication = Authentication.NODE,
) -> Session:
    return Session(
        LinkId(1),
        framing=framing,
        dialled=None if dialled is None else Address(dialled),
        local_hello=local_hello,
        codec=ValueCodec(),
        limits=limits,
        now=5,
        verdict=verdict,
    )


def framed(*messages: Message) -> bytes:
    return b"".join(prefix(len(body)) + body for body in map(dialects.encode, messages))


# -- stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "cause"), list(product(Stage, Cause)))
def test_each_transition_of_the_table_or_an_error(stage: Stage, cause: Cause) -> None:
    one = session()
    one.stage = stage
    following = STAGES.get((stage, cause))
    if following is not None:
        one.transition(cause)
        assert one.stage is following
        return
    before = {name: getattr(one, name) for name in Session.__slots__}
    with pytest.raises(LocalProtocolError, match=f"{stage.name} cannot take {cause.name}"):
        one.transition(cause)
    assert {name: getattr(one, name) for name in Session.__slots__} == before


def test_table_of_stages_from_opening_to_ended() -> None:
    order = list(Stage)
    assert all(order.index(after) > order.index(before) for (before, _), after in STAGES.items())
    assert all((stage, Cause.HUNG_UP) in STAGES for stage in Stage if stage is not Stage.ENDED)
    reached = {Stage.OPENING} | set(STAGES.values())
    assert reached == set(Stage)
    assert not any(before is Stage.ENDED for before, _ in STAGES)


def test_both_closing_after_goodbyes_in_either_order() -> None:
    for first, second in ((Cause.GOODBYE_SENT, Cause.GOODBYE_RECEIVED), (Cause.GOODBYE_RECEIVED, Cause.GOODBYE_SENT)):
        one = session()
        for cause in (Cause.AGREED, first, second):
            one.transition(cause)
        assert one.stage is Stage.BOTH_CLOSING and one.closing


def test_closing_from_the_first_goodbye() -> None:
    one = session()
    assert not one.closing
    one.transition(Cause.AGREED)
    assert not one.closing
    one.transition(Cause.GOODBYE_RECEIVED)
    assert one.closing


# -- handshake --------------------------------------------------------------------------------------------------------


def test_open_session_after_the_hello() -> None:
    one = session()
    received = one.receive(dialects.encode(OTHER), 9)
    assert list(received) == [OTHER] and received.violation is None
    assert (one.stage, one.member, one.remote_hello, one.last_activity) == (Stage.OPEN, OTHER.member, OTHER, 9)
    assert one.agreed is not None and one.agreed.version == 1


@pytest.mark.parametrize(("mine", "theirs", "limit"), [(NODE, OTHER, 2000), (NODE, CLIENT, 1000), (CLIENT, NODE, 1000)])
def test_message_limit_by_peer(mine: Hello, theirs: Hello, limit: int) -> None:
    one = session(Framing.STREAM, local_hello=mine)
    assert one.limit == 1000
    one.receive(framed(theirs), 0)
    assert one.limit == limit
    over = one.receive(prefix(limit + 1), 0)
    assert over.violation is not None and over.violation.details == {
        "limit": "message",
        "value": limit,
        "came": limit + 1,
    }


def test_long_message_of_a_node_with_its_hello() -> None:
    one = session(Framing.STREAM, dialled="mem://other")
    long = Goodbye("x" * 1500)
    received = one.receive(framed(OTHER, long), 0)
    assert list(received) == [OTHER, long] and received.violation is None


@pytest.mark.parametrize(("theirs", "accepted"), [(OTHER, True), (CLIENT, False)])
def test_long_membership_message(theirs: Hello, accepted: bool) -> None:
    one = session(limits=Limits())
    one.receive(dialects.encode(theirs), 0)
    long = Gossip(tuple(Claim(b"m" * 16, number, 1) for number in range(5_000)))
    received = one.receive(dialects.encode(long), 0)
    assert (list(received) == [long], received.violation is None) == (accepted, accepted)


@pytest.mark.parametrize(
    ("first", "code"),
    [(Ping(1), 1010), (Goodbye(""), 1010), (Request(1, ()), 1010), (hello(cluster="d", member=b"", name=""), 1005)],
)
def test_violation_by_a_first_message_that_is_no_hello(first: Message, code: int) -> None:
    one = session()
    received = one.receive(dialects.encode(first), 0)
    assert list(received) == [] and received.violation is not None and received.violation.code == code
    assert (one.stage, one.remote_hello, one.agreed) == (Stage.OPENING, None, None)


def test_refusal_as_the_first_message() -> None:
    one = session(dialled="mem://x")
    (message,) = one.receive(dialects.encode(Refused(received_fault())), 0)
    assert isinstance(message, Refused) and one.stage is Stage.OPENING


def received_fault() -> dialects.Fault:
    return dialects.Fault(1040, "too new")


def test_violation_by_a_second_hello() -> None:
    one = session()
    one.receive(dialects.encode(OTHER), 0)
    assert one.receive(dialects.encode(OTHER), 0).violation is not None


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 12))
def test_stream_in_pieces_of_any_size(cut: int) -> None:
    one, data = session(Framing.STREAM), framed(OTHER, Ping(1), Ping(2))
    messages = [message for at in range(0, len(data), cut) for message in one.receive(data[at : at + cut], at)]
    assert messages == [OTHER, Ping(1), Ping(2)]
    assert one.last_activity == (len(data) - 1) // cut * cut


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_type_of_buffer(kind: type) -> None:
    one, stream = session(), session(Framing.STREAM)
    assert list(one.receive(kind(dialects.encode(OTHER)), 0)) == [OTHER]
    assert list(stream.receive(kind(framed(OTHER)), 0)) == [OTHER]


def test_messages_before_a_violation() -> None:
    one = session(Framing.STREAM)
    received = one.receive(framed(OTHER, Ping(1)) + b"\x09", 0)
    assert list(received) == [OTHER, Ping(1)]
    assert received.violation is not None and received.violation.code == 1000


def test_first_of_two_violations() -> None:
    one = session(Framing.STREAM)
    one.receive(framed(OTHER), 0)
    received = one.receive(framed(Ping(1), OTHER, Ping(2)) + b"\x09", 0)
    assert list(received) == [Ping(1)]
    assert received.violation is not None and "hello" in received.violation.message


def test_any_byte_is_activity_and_resets_keepalive() -> None:
    one = session(Framing.STREAM)
    one.keepalive_sent = True
    one.receive(b"\x00", 77)
    assert (one.last_activity, one.keepalive_sent) == (77, False)


def test_prefixed_chunks_on_streams_only() -> None:
    body = dialects.encode(Ping(1))
    assert session(Framing.STREAM).chunks(body) == (prefix(len(body)), body)
    assert session().chunks(body) == (body,)


def test_violation_by_text_on_a_native_link() -> None:
    assert session().receive("hello", 0).violation is not None


def test_length_of_text_in_bytes() -> None:
    one = session(Framing.CLASSIC_MESSAGES)
    assert one.receive("é" * 500, 0).violation is None
    violation = one.receive("é" * 501, 0).violation
    assert violation is not None and violation.details["came"] == 1002


# -- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_classic_stream_after_a_first_body_of_json(mark: bytes) -> None:
    one = session(Framing.STREAM)
    first = mark + b'{"role":"rpc","cmds":[{"name":"x","fun":"echo"}],"u":"7"}'
    (request,) = one.receive(prefix(len(first)) + first, 0)
    assert isinstance(request, Request) and one.classic and one.stage is Stage.OPEN and one.member is None
    (bad,) = one.receive(framed(OTHER), 0)
    assert isinstance(bad, BadRequest)
    answer = one.encode(Result(request.id, fault=received_fault()))
    assert answer is not None and answer.startswith(b"{") and b'"7"' in answer


def test_byte_order_mark_before_the_first_body() -> None:
    one = session(Framing.STREAM)
    first = b'\xef\xbb\xbf{"role":"rpc","cmds":[{"name":"x","fun":"echo"}]}'
    (request,) = one.receive(prefix(len(first)) + first, 0)
    assert isinstance(request, Request) and one.classic


def test_violation_by_json_on_a_dialled_or_open_native_link() -> None:
    dialling, opened = session(Framing.STREAM, dialled="mem://x"), session(Framing.STREAM)
    opened.receive(framed(OTHER), 0)
    for one in (dialling, opened):
        assert one.receive(prefix(2) + b"{}", 0).violation is not None
        assert not one.classic


def test_classic_link_is_open_and_encodes_only_replies() -> None:
    one = session(Framing.CLASSIC_MESSAGES)
    assert (one.classic, one.stage, one.member) == (True, Stage.OPEN, None)
    assert one.encode(Ping(1)) is None and one.encode(Goodbye("")) is None and one.encode(NODE) is None


def test_handshake_of_a_link_without_bytes() -> None:
    one = session(Framing.OBJECTS)
    assert one.handle(Ping(1), 3).violation is not None
    assert list(one.handle(OTHER, 4)) == [OTHER] and one.stage is Stage.OPEN
    assert one.handle(OTHER, 5).violation is not None
    assert (one.last_activity, one.member) == (5, OTHER.member)


def test_close_codes_that_an_endpoint_may_send() -> None:
    assert set(CLOSE_CODES.values()) <= {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011}


# -- authentication ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [Framing.NATIVE_MESSAGES, Framing.STREAM, Framing.OBJECTS])
def test_hello_of_a_peer_that_is_not_authenticated(framing: Framing) -> None:
    for theirs, verdict in (
        (OTHER, Authentication.CLIENT),
        (OTHER, Authentication.NONE),
        (CLIENT, Authentication.NONE),
    ):
        one = session(framing, verdict=verdict)
        if framing is Framing.OBJECTS:
            received = one.handle(theirs, 6)
        else:
            body = framed(theirs) if framing is Framing.STREAM else dialects.encode(theirs)
            received = one.receive(body, 6)
        assert list(received) == [] and received.violation is not None and received.violation.code == 1030
        assert (one.stage, one.member) == (Stage.OPENING, None)


def test_refusal_of_a_peer_that_is_not_authenticated_does_not_name_the_cluster() -> None:
    received = session(verdict=Authentication.NONE).receive(
        dialects.encode(hello(cluster="x", member=b"o" * 16, name="")), 6
    )
    assert received.violation is not None and received.violation.code == 1030
    assert "'c'" not in received.violation.message


def test_hello_of_an_authenticated_client() -> None:
    one = session(verdict=Authentication.CLIENT)
    assert list(one.receive(dialects.encode(CLIENT), 6)) == [CLIENT]
    assert one.stage is Stage.OPEN


@pytest.mark.parametrize("framing", [Framing.CLASSIC_MESSAGES, Framing.STREAM])
def test_classic_requests_of_a_peer_that_is_not_authenticated(framing: Framing) -> None:
    one = session(framing, limits=Limits(), verdict=Authentication.NONE)
    for u, size in (("a", 100), ("b", 64 * 1024)):  # the second one decoded in steps
        request = {"role": "rpc", "u": u, "cmds": [{"name": "x", "fun": "echo"}]}
        body = json.dumps(request).encode().ljust(size)
        received = one.receive(prefix(len(body)) + body if framing is Framing.STREAM else body, 6)
        while one.decoding:
            received = one.continue_decoding()[0]
        (bad,) = received
        assert isinstance(bad, BadRequest) and bad.fault.code == 1030
        answer = one.encode(Result(bad.id, fault=bad.fault))
        assert answer is not None and json.loads(answer)["u"] == u and json.loads(answer)["error"]["code"] == 1030


@pytest.mark.parametrize("framing", [Framing.CLASSIC_MESSAGES, Framing.NATIVE_MESSAGES, Framing.STREAM])
def test_limit_of_a_peer_that_is_not_authenticated(framing: Framing) -> None:
    one = session(framing, limits=Limits(), verdict=Authentication.NONE)
    size = 64 * 1024 + 1
    received = one.receive(prefix(size) if framing is Framing.STREAM else b" " * size, 6)
    assert received.violation is not None and received.violation.code == 1014
