"""Links that open or continue against the protocol: the node refuses them with the reason and continues to serve.

Foreign clients send hand-made bytes to a real node. Invalid requests are in test_bad_input.py.
"""

import json
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgpack
import pytest
from websockets.frames import Opcode

from mpreg_proto.limits import Limits
from mpreg_transports import Client, ClusterMismatch, Server
from tests.helpers.foreign_clients import HELLO, PATIENCE, REFUSED, NativeClient, ask, classic_frames, native, websocket
from tests.helpers.loopback import ForeignClient

pytestmark = pytest.mark.anyio

MESSAGE = 100_000
"""The length of the longest message that the node accepts, in bytes: a test need not send 16 MiB."""
GOOD = {"role": "rpc", "cmds": [{"name": "g", "fun": "echo", "args": [7]}], "u": "good"}
ANSWER = {"r": {"g": 7}, "error": None, "u": "good"}
ONE_CALL = [10, 1, [["a", "echo", msgpack.packb([[7], {}])]]]
MEMBER = b"0123456789abcdef"


@pytest.fixture
async def node() -> AsyncIterator[Server]:
    server = Server(name="strict", port=0, cluster_id="ours", limits=Limits(message=MESSAGE))
    server.register("large", lambda size: b"x" * size, inline=True)
    async with server:
        yield server
        async with Client(server.url) as client:  # the node still serves after any test
            assert await client.call("echo", "still here") == "still here"


async def refusal(peer: NativeClient) -> tuple[int, str, dict[str, Any]]:
    """Return the code, text and details with which the link ends; no data may follow them."""
    kind, fault = await peer.receive()
    assert kind == REFUSED
    assert await peer.until_closed() == b""
    code, text, details = fault
    assert text
    return code, text, details


def hello(**changes: Any) -> list[Any]:
    fields = {"versions": [1, 1], "features": [], "cluster": "", "member": b"", "name": "by hand"} | changes
    return [1, *fields.values()]


# -- hellos ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [b"", MEMBER], ids=["client", "node"])
async def test_other_cluster_is_1005(member: bytes, node: Server) -> None:
    async with native(node.port, hello=None) as peer:
        await peer.send(hello(cluster="theirs", member=member))
        code, text, details = await refusal(peer)
    assert (code, details) == (1005, {"mine": "ours", "yours": "theirs"})
    assert "'ours'" in text and "'theirs'" in text


async def test_client_of_other_cluster_gets_the_reason(node: Server) -> None:
    with pytest.raises(ClusterMismatch) as caught:
        async with Client(node.url, cluster_id="theirs"):
            pass
    assert caught.value.code == 1005


async def test_node_of_other_cluster_is_refused(node: Server) -> None:
    """Both nodes log the reason."""
    missing = 2
    both_said = anyio.Event()

    def refused(record: logging.LogRecord) -> bool:
        nonlocal missing
        if "'ours'" in record.getMessage():
            missing -= 1
        if not missing:
            both_said.set()
        return True

    log = logging.getLogger("mpreg")
    log.addFilter(refused)
    try:
        async with Server(name="foreign", port=0, cluster_id="theirs", peers=[node.url]) as foreign:
            with anyio.fail_after(PATIENCE):
                await both_said.wait()
            assert [member.name for member in foreign.view().members] == ["foreign"]
            assert [member.name for member in node.view().members] == ["strict"]
    finally:
        log.removeFilter(refused)


@pytest.mark.parametrize("versions", [[2, 9], [0, 0]], ids=["newer", "older"])
async def test_no_common_version_is_1040(versions: list[int], node: Server) -> None:
    async with native(node.port, hello=None) as peer:
        await peer.send(hello(versions=versions))
        code, _, details = await refusal(peer)
    assert (code, details) == (1040, {"mine": [1, 1], "yours": versions})


async def test_overlapping_version_range_and_new_fields_are_accepted(node: Server) -> None:
    async with native(
        node.port, hello=[*hello(versions=[1, 9], features=["of tomorrow"]), [9, 999], "future", [[]]]
    ) as peer:
        assert await peer.code(*ONE_CALL[1:]) is None


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (msgpack.packb(ONE_CALL), 1010),
        (msgpack.packb([3, 1]), 1010),
        (msgpack.packb([1, [1, 1]]), 1010),
        (msgpack.packb(hello(cluster="ours", member=b"short")), 1010),
        (msgpack.packb([99, "a kind of tomorrow"]), 1040),
        (b"", 1010),
        (b" " + json.dumps(GOOD).encode(), 1010),
        (b"[1, 2]", 1010),
        (b"\xc1", 1010),
        (b"\x91" * 100_000, 1010),
    ],
    ids=[
        "request",
        "ping",
        "half a hello",
        "member id",
        "unknown kind",
        "empty",
        "space",
        "JSON array",
        "junk",
        "deep",
    ],
)
async def test_first_byte_of_a_raw_link_is_a_hello_or_a_brace(first: bytes, code: int, node: Server) -> None:
    async with native(node.port, hello=None) as peer:
        await peer.send_body(first)
        assert (await refusal(peer))[0] == code


# -- later messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([99], 1040),
        ([99, {"of": "tomorrow"}], 1040),
        (HELLO, 1010),
        ([], 1010),
        (["text"], 1010),
        ([20, [], [], []], 1010),
    ],
    ids=["unknown kind", "with fields", "second hello", "empty", "kind that is text", "news from a client"],
)
async def test_message_forbidden_for_clients_ends_the_link(message: list[Any], code: int, node: Server) -> None:
    async with native(node.port) as peer:
        await peer.send(message)
        assert (await refusal(peer))[0] == code


async def test_text_on_native_websocket_is_refused(node: Server) -> None:
    async with websocket(node.port, subprotocols=["mpreg.1"]) as client:
        await client.binary(msgpack.packb(HELLO))
        assert msgpack.unpackb((await client.frame()).data)[0] == 1
        await client.text("[3, 1]")
        assert msgpack.unpackb((await client.frame()).data)[:2][0] == REFUSED
        await closed(client)
        assert client.close_code == 1002


async def closed(client: ForeignClient) -> None:
    with anyio.fail_after(PATIENCE):
        await client.until_closed()


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["nothing", "hello"])
async def test_raw_message_is_refused_at_its_length(said: str, node: Server) -> None:
    async with native(node.port, hello=HELLO if said == "hello" else None) as peer:
        await peer.stream.send(struct.pack(">I", MESSAGE + 1))  # and none of the message itself
        code, _, details = await refusal(peer)
    assert (code, details) == (1014, {"limit": "message", "value": MESSAGE, "came": MESSAGE + 1})


async def test_impossible_frame_length_is_1000(node: Server) -> None:
    async with native(node.port) as peer:
        await peer.stream.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await refusal(peer))[0] == 1000


async def test_classic_frame_is_refused_at_its_length_with_an_error(node: Server) -> None:
    async with classic_frames(node.port) as peer:
        assert await ask(peer, GOOD) == ANSWER
        await peer.stream.send(struct.pack(">I", MESSAGE + 1))
        with anyio.fail_after(PATIENCE):
            answer = await peer.receive()
            assert (answer["r"], answer["u"], answer["error"]["code"]) == (None, "", 1014)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await peer.receive()


@pytest.mark.parametrize(
    "text",
    [json.dumps(GOOD | {"x": "x" * MESSAGE}), json.dumps(GOOD | {"x": "ž" * (MESSAGE // 2)}, ensure_ascii=False)],
    ids=["characters", "bytes"],
)
async def test_too_long_websocket_message_closes_with_1009(text: str, node: Server) -> None:
    async with websocket(node.port) as client:
        await client.text(text)
        frame = await client.frame()
        assert frame.opcode is Opcode.TEXT
        assert json.loads(bytes(frame.data))["error"]["code"] == 1014
        await closed(client)
        assert client.close_code == 1009


async def test_message_of_the_largest_size_is_accepted(node: Server) -> None:
    message = GOOD | {"x": ""}
    message["x"] = "x" * (MESSAGE - len(json.dumps(message)))
    async with classic_frames(node.port) as peer:
        assert await ask(peer, message) == ANSWER


async def test_too_long_answer_is_replaced_by_1014(node: Server) -> None:
    async with classic_frames(node.port) as peer:
        large = {"role": "rpc", "cmds": [{"name": "a", "fun": "large", "args": [80_000]}], "u": "mine"}
        answer = await ask(peer, large)  # 80,000 bytes are 106,668 letters in base64
        assert (answer["r"], answer["u"]) == (None, "mine")
        assert answer["error"]["code"] == 1014
        details = answer["error"]["details"]
        assert (details["limit"], details["value"], details["maybe_executed"]) == ("message", MESSAGE, True)
        assert details["came"] > 106_668
        assert await ask(peer, GOOD) == ANSWER
    async with native(node.port) as peer:
        for number, size in enumerate((MESSAGE, 40_000_000), 10):  # more than a frame can hold
            assert await peer.code(number, [["a", "large", msgpack.packb([[size], {}])]]) == 1014
        assert await peer.code(2, [["a", "large", msgpack.packb([[80_000], {}])]]) is None
