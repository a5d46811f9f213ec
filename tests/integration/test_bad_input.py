"""Invalid requests over both dialects: each gets its typed error, no call of it runs, and the link stays open.

Foreign clients (tests/helpers/foreign_clients.py) send requests to a real node. Every refused request that can hold a
call holds a call of a function that counts its runs. So each test checks that nothing ran.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgpack
import pytest

from mpreg_transports import Server
from tests.helpers.foreign_clients import (
    PATIENCE,
    REQUEST,
    RESULT,
    ClassicFrameClient,
    ClassicWebSocketClient,
    ask,
    classic,
    native,
)

pytestmark = pytest.mark.anyio

Classic = ClassicWebSocketClient | ClassicFrameClient

COUNT = {"name": "n", "fun": "count"}
GOOD = {"role": "rpc", "cmds": [{"name": "g", "fun": "echo", "args": [7]}], "u": "good"}
ANSWER = {"r": {"g": 7}, "error": None, "u": "good"}


class CountingNode:
    """A node whose function `count` counts its runs; `held` runs until the test sets `release`."""

    def __init__(self) -> None:
        self.counted = 0
        self.release = anyio.Event()
        self.server = Server(name="counting", port=0)
        self.server.register("count", self._count, inline=True)
        self.server.register("held", self._held)

    def _count(self) -> int:
        self.counted += 1
        return self.counted

    async def _held(self) -> str:
        await self.release.wait()
        return "released"


@pytest.fixture
async def node() -> AsyncIterator[CountingNode]:
    node = CountingNode()
    async with node.server:
        yield node


@pytest.fixture(params=["websocket", "frames"])
async def peer(request: pytest.FixtureRequest, node: CountingNode) -> AsyncIterator[Classic]:
    async with classic(request.param, node.server.port) as peer:
        assert await ask(peer, GOOD) == ANSWER
        yield peer


async def refused(peer: Classic, node: CountingNode, message: object, *, u: str) -> dict[str, Any]:
    """Return the error that answers `message`, after checks that nothing ran and that the link stays open."""
    answer = await ask(peer, message)
    assert await ask(peer, GOOD) == ANSWER
    assert (answer["r"], answer["u"]) == (None, u), answer
    assert node.counted == 0
    error: dict[str, Any] = answer["error"]
    assert error["details"]["maybe_executed"] is False
    return error


def rpc(*cmds: object, **fields: object) -> dict[str, object]:
    return {"role": "rpc", "cmds": [*cmds, COUNT], "u": "mine", **fields}


def echo(*args: object, name: object = "a", **fields: object) -> dict[str, object]:
    return {"name": name, "fun": "echo", "args": list(args), **fields}


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def text_of(value: str, key: str = "x") -> str:
    return json.dumps(rpc())[:-1] + f', "{key}": {value}}}'


# -- 1000 and 1004 -----------------------------------------------------------------------------------------------------

NOT_A_MESSAGE = {
    "nothing": "",
    "no JSON": "hello",
    "half of it": json.dumps(rpc())[:-1],
    "two": json.dumps(rpc()) * 2,
    "an array": "[" + json.dumps(rpc()) + "]",
    "text": '"rpc"',
    "a number": "5",
    "true": "true",
    "null": "null",
    "NaN": text_of("NaN"),
    "Infinity": text_of("Infinity"),
    "-Infinity deep inside": text_of('[[{"y": -Infinity}]]'),
    "a number without end": text_of("1e999"),
    "a key twice": text_of('"rpc"', "role"),
    "a key twice, deep inside": text_of('[{"k": 1, "k": 1}]'),
    "half of a surrogate pair": text_of('"\\ud800"'),
    "single quotes": str(rpc()),
    "not UTF-8": b'{"role": "rpc", "u": "\xff"}',
}


@pytest.mark.parametrize("title", NOT_A_MESSAGE)
async def test_invalid_json_object_is_1000(title: str, peer: Classic, node: CountingNode) -> None:
    assert (await refused(peer, node, NOT_A_MESSAGE[title], u=""))["code"] == 1000


@pytest.mark.parametrize(
    "role", ["absent", "RPC", "auth", "", None, 5, ["rpc"], "x" * 10_000], ids=lambda role: f"{role!s:.9}"
)
async def test_other_role_is_1004(role: object, peer: Classic, node: CountingNode) -> None:
    message = rpc(role=role)
    if role == "absent":
        del message["role"]
    error = await refused(peer, node, message, u="mine")
    assert error["code"] == 1004
    assert len(error["message"]) < 200  # the error does not echo long input


# -- 1010 to 1014 ------------------------------------------------------------------------------------------------------

WRONG_SHAPES: dict[str, tuple[dict[str, object], str]] = {
    "no cmds": ({"role": "rpc", "u": "mine"}, "$"),
    "cmds null": (rpc() | {"cmds": None}, "$.cmds"),
    "cmds an object": (rpc() | {"cmds": COUNT}, "$.cmds"),
    "cmds empty": (rpc() | {"cmds": []}, "$.cmds"),
    "a call that is text": (rpc("echo"), "$.cmds[0]"),
    "a call without name": (rpc({"fun": "echo"}), "$.cmds[0]"),
    "a call without function": (rpc({"name": "a"}), "$.cmds[0]"),
    "a name that is a number": (rpc(echo(name=1)), "$.cmds[0].name"),
    "an empty name": (rpc(echo(name="")), "$.cmds[0].name"),
    "an empty function": (rpc({"name": "a", "fun": ""}), "$.cmds[0].fun"),
    "args of the third call": (rpc(echo(), echo(name="b"), echo(name="c") | {"args": "text"}), "$.cmds[2].args"),
    "args an object": (rpc(echo() | {"args": {}}), "$.cmds[0].args"),
    "kwargs an array": (rpc(echo(kwargs=[1])), "$.cmds[0].kwargs"),
    "locs text": (rpc(echo(locs="red")), "$.cmds[0].locs"),
    "a loc that is a number": (rpc(echo(locs=["red", 5])), "$.cmds[0].locs[1]"),
    "refs unknown": (rpc(refs="magic"), "$.refs"),
    "want text": (rpc(want="n"), "$.want"),
    "want empty": (rpc(want=[]), "$.want"),
    "want twice": (rpc(want=["n", "n"]), "$.want"),
    "want a number": (rpc(want=["n", 5]), "$.want[1]"),
    "timeout text": (rpc(timeout="1"), "$.timeout"),
    "timeout true": (rpc(timeout=True), "$.timeout"),
    "timeout 0": (rpc(timeout=0), "$.timeout"),
    "timeout negative": (rpc(timeout=-1), "$.timeout"),
    "timeout over a day": (rpc(timeout=86_401), "$.timeout"),
    "timeout beyond numbers": (rpc(timeout=10**400), "$.timeout"),
    "wait negative": (rpc(wait=-0.1), "$.wait"),
    "wait over a day": (rpc(wait=86_401), "$.wait"),
    "on_error unknown": (rpc(on_error="ignore"), "$.on_error"),
    "trace text": (rpc(trace="yes"), "$.trace"),
    "$ref a number": (rpc(echo(1, {"$ref": 5}), refs="explicit"), '$.cmds[0].args[1]["$ref"]'),
    "$ref with more": (rpc(echo([{"$ref": "n", "x": 1}]), refs="explicit"), "$.cmds[0].args[0][0]"),
    "a path that is text": (
        rpc(echo(kwargs={"k": {"$ref": "n", "path": "x"}}), refs="explicit"),
        "$.cmds[0].kwargs.k.path",
    ),
    "a negative step": (rpc(echo({"$ref": "n", "path": [-1]}), refs="explicit"), "$.cmds[0].args[0].path"),
    "$data with more": (rpc(echo({"$data": 1, "x": 1}), refs="explicit"), "$.cmds[0].args[0]"),
}


@pytest.mark.parametrize("title", WRONG_SHAPES)
async def test_invalid_shape_is_1010_with_its_path(title: str, peer: Classic, node: CountingNode) -> None:
    message, path = WRONG_SHAPES[title]
    error = await refused(peer, node, message, u="mine")
    assert error["code"] == 1010
    assert error["message"].startswith(f"{path}: ")
    assert error["details"]["path"] == path


async def test_u_that_is_not_text_is_1010_without_echo(peer: Classic, node: CountingNode) -> None:
    error = await refused(peer, node, rpc(u=5), u="")
    assert (error["code"], error["details"]["path"]) == (1010, "$.u")


MANY = [echo(1, name=f"c{number}") for number in range(10_000)]
LONG = "x" * 257
OVER_LIMITS: dict[str, tuple[dict[str, object], tuple[str, int, int]]] = {
    "10,001 calls": (rpc(*MANY), ("calls", 10_000, 10_001)),
    "a long name": (rpc(echo(name=LONG)), ("name_length", 256, 257)),
    "a long function": (rpc({"name": "a", "fun": LONG}), ("name_length", 256, 257)),
    "a long resource": (rpc(echo(locs=["red", LONG])), ("name_length", 256, 257)),
    # A message, its cmds, a call and its args are four levels.
    "65 levels": (rpc(echo(nested(61))), ("nesting", 64, 65)),
    "a long key": (rpc(echo({"k" * 1025: 1})), ("key length", 1024, 1025)),
}


@pytest.mark.parametrize("title", OVER_LIMITS)
async def test_exceeded_limit_is_1014_with_its_name(title: str, peer: Classic, node: CountingNode) -> None:
    message, (limit, value, came) = OVER_LIMITS[title]
    error = await refused(peer, node, message, u="mine")
    assert error["code"] == 1014
    assert error["details"] == {"limit": limit, "value": value, "came": came, "maybe_executed": False}


async def test_message_beyond_the_decoder_depth_is_1014(peer: Classic, node: CountingNode) -> None:
    depth = 200_000
    error = await refused(peer, node, text_of("[" * depth + "]" * depth), u="")
    assert (error["code"], error["details"]["limit"]) == (1014, "nesting")


@pytest.mark.parametrize(
    "message", [rpc(*MANY[1:]), rpc(echo(nested(60)), echo(1, name="x" * 256))], ids=["calls", "others"]
)
async def test_values_at_the_limits_are_accepted(message: dict[str, object], peer: Classic, node: CountingNode) -> None:
    answer = await ask(peer, message | {"want": ["n"]})
    assert answer == {"r": {"n": 1}, "error": None, "u": "mine"}


UNKNOWN = {"name": "unknown", "fun": "no_such_function"}
CYCLE = (echo({"$ref": "d"}, name="c"), echo({"$ref": "c"}, name="d"))
NOWHERE = echo({"$ref": "nobody"}, name="e")
TWICE = (echo(name="t"), echo(name="t"))
EXPLICIT = {"refs": "explicit"}
SEVERAL_FAULTS: list[tuple[int, object]] = [
    (1000, json.dumps(rpc(*MANY, *TWICE) | {"role": "no", "cmds": 5, "x": float("nan")})),
    (1004, rpc(5, nested(65)) | {"role": "no"}),
    (1010, rpc(*MANY, *TWICE, *CYCLE, NOWHERE, UNKNOWN, echo(5, locs=5), **EXPLICIT)),
    (1010, rpc(*MANY, *TWICE, *CYCLE, NOWHERE, UNKNOWN, echo(name=""), **EXPLICIT)),
    (1010, rpc(echo(nested(65)), timeout=-1)),
    (1010, rpc(*MANY, *TWICE, want=["nobody", "nobody"])),
    (1014, rpc(*MANY, *TWICE, *CYCLE, NOWHERE, UNKNOWN, want=["nobody"], **EXPLICIT)),
    (1014, rpc(*TWICE, *CYCLE, NOWHERE, UNKNOWN, echo(name=LONG), **EXPLICIT)),
    (1011, rpc(UNKNOWN, *CYCLE, NOWHERE, *TWICE, want=["nobody"], **EXPLICIT)),
    (1013, rpc(UNKNOWN, *CYCLE, NOWHERE, **EXPLICIT)),
    (1013, rpc(UNKNOWN, *CYCLE, want=["nobody"], **EXPLICIT)),
    (1012, rpc(UNKNOWN, *CYCLE, **EXPLICIT)),
    (1012, rpc(UNKNOWN, echo({"$ref": "a"}), on_error="partial", **EXPLICIT)),
    (1001, rpc(UNKNOWN)),
    (1001, rpc(echo(locs=["nowhere"]))),
]


@pytest.mark.parametrize(("code", "message"), SEVERAL_FAULTS, ids=lambda value: value if isinstance(value, int) else "")
async def test_first_fault_in_order_is_reported(code: int, message: object, peer: Classic, node: CountingNode) -> None:
    error = await refused(peer, node, message, u="" if code == 1000 else "mine")
    assert error["code"] == code


async def test_cycle_is_listed_in_order(peer: Classic, node: CountingNode) -> None:
    error = await refused(peer, node, rpc(*CYCLE, refs="explicit"), u="mine")
    assert error["details"]["cycle"] in (["c", "d"], ["d", "c"])


# -- links stay open ---------------------------------------------------------------------------------------------------


async def test_unknown_fields_are_ignored(peer: Classic, node: CountingNode) -> None:
    message = rpc(echo(1, colour="red"), colour={"of": ["the", "request"]}, cmds2=[])
    assert await ask(peer, message) == {"r": {"a": 1, "n": 1}, "error": None, "u": "mine"}


@pytest.mark.parametrize(
    "u", ["", "x" * 10_000, "žluťoučký 🐎", '\0\n"\\'], ids=["empty", "long", "letters", "escapes"]
)
async def test_u_is_returned_unchanged(u: str, peer: Classic) -> None:
    assert (await ask(peer, GOOD | {"u": u}))["u"] == u
    assert (await ask(peer, {"role": "no", "u": u}))["u"] == u


async def test_absent_u_is_empty(peer: Classic) -> None:
    assert await ask(peer, {"role": "rpc", "cmds": GOOD["cmds"]}) == ANSWER | {"u": ""}


async def test_pending_request_is_answered_despite_invalid_input(peer: Classic, node: CountingNode) -> None:
    await peer.send(json.dumps({"role": "rpc", "cmds": [{"name": "h", "fun": "held"}], "u": "slow"}))
    wrong: list[object] = [*NOT_A_MESSAGE.values(), *(message for message, _ in WRONG_SHAPES.values())]
    for message in wrong:
        await peer.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
    with anyio.fail_after(PATIENCE):
        codes = [(await peer.receive())["error"]["code"] for _ in wrong]
        assert codes == [1000] * len(NOT_A_MESSAGE) + [1010] * len(WRONG_SHAPES)
        node.release.set()
        assert await peer.receive() == {"r": {"h": "released"}, "error": None, "u": "slow"}


# -- the same over the native protocol ---------------------------------------------------------------------------------


def args(*values: object) -> bytes:
    packed: bytes = msgpack.packb([list(values), {}])
    return packed


def call(name: object, function: object = "echo", *rest: object) -> list[object]:
    """The array of a call; `rest` are dependencies, resources and version."""
    return [name, function, args(7) if function == "echo" else args(), *rest]


N = call("n", "count")
N_MANY = [call(f"c{number}") for number in range(10_000)]
N_CYCLE = [call("c", "echo", ["d"]), call("d", "echo", ["c"])]
N_NOWHERE = call("e", "echo", ["nobody"])
N_TWICE = [call("t"), call("t")]
N_UNKNOWN = call("unknown", "no_such_function")
N_ALL = [*N_TWICE, *N_CYCLE, N_NOWHERE, N_UNKNOWN, N]

NATIVE: dict[str, tuple[int, list[Any]]] = {
    "no calls": (1010, [[]]),
    "calls absent": (1010, []),
    "calls nil": (1010, [None]),
    "a call that is text": (1010, [["echo", N]]),
    "a name that is a number": (1010, [[call(5), N]]),
    "an empty name": (1010, [[call(""), N]]),
    "an empty function": (1010, [[call("a", ""), N]]),
    "arguments that are text": (1010, [[["a", "echo", "text"], N]]),
    "needs that are text": (1010, [[call("a", "echo", "n"), N]]),
    "a timeout of nothing": (1010, [[N], 0]),
    "a timeout that is text": (1010, [[N], "1"]),
    "want empty": (1010, [[N], None, []]),
    "want twice": (1010, [[N], None, ["n", "n"]]),
    "10,001 calls": (1014, [[*N_MANY, N]]),
    "a long name": (1014, [[call(LONG), N]]),
    "a long resource": (1014, [[call("a", "echo", [], [LONG]), N]]),
    "two of one name": (1011, [[*N_TWICE, N]]),
    "unknown dependency": (1013, [[N_NOWHERE, N]]),
    "unknown wanted call": (1013, [[N], None, ["nobody"]]),
    "a circle": (1012, [[*N_CYCLE, N]]),
    "needs itself": (1012, [[call("a", "echo", ["a"]), N]]),
    "an unknown function": (1001, [[N_UNKNOWN, N]]),
    "an unknown version": (1001, [[call("a", "echo", [], [], "7"), N]]),
    "several, 1010 first": (1010, [[*N_MANY, *N_ALL], None, ["nobody", "nobody"]]),
    "several, 1014 first": (1014, [[*N_MANY, *N_ALL], None, ["nobody"]]),
    "several, 1011 first": (1011, [N_ALL, None, ["nobody"]]),
    "several, 1013 first": (1013, [N_ALL[1:], None, ["nobody"]]),
    "several, 1012 first": (1012, [[*N_CYCLE, N_UNKNOWN, N]]),
}


@pytest.mark.parametrize("title", NATIVE)
async def test_invalid_native_request(title: str, node: CountingNode) -> None:
    code, fields = NATIVE[title]
    async with native(node.server.port) as peer:
        await peer.send([REQUEST, 1, *fields])
        kind, number, done, _failed, last, (received, message, details), *_ = await peer.receive()
        assert (kind, number, done, last, received) == (RESULT, 1, [], True, code), message
        assert message and details["maybe_executed"] is False
        if code == 1010:
            assert "$" in message
        assert await peer.code(2, [call("a")]) is None
    assert node.counted == 0


async def test_unknown_native_fields_are_ignored(node: CountingNode) -> None:
    async with native(node.server.port) as peer:
        newer = [*call("a", "echo", [], [], None), "a field of the future", {"of": ["any", "shape"]}]
        all_fields = [[newer], None, None, [], {}, 0, False, False, False, 0, "", [], b"", [], False, 0, False, [], {}]
        assert await peer.code(1, *all_fields, "future", [[[]]]) is None


@pytest.mark.parametrize(
    ("needs", "value", "code"),
    [
        ([], msgpack.ExtType(1, b"n"), 1010),
        (["n"], msgpack.ExtType(2, msgpack.packb(["n", "x"])), 1013),
        ([], msgpack.ExtType(31, b""), 1010),
        ([], nested(65), 1014),
    ],
    ids=["an undeclared dependency", "a path that is not there", "an unknown extension", "65 levels"],
)
async def test_invalid_arguments_fail_their_call(
    needs: list[str], value: object, code: int, node: CountingNode
) -> None:
    """Arguments are opaque until the node that runs the call reads them, so the calls before them have run."""
    async with native(node.server.port) as peer:
        assert await peer.code(1, [["a", "echo", args(value), needs], N]) == code
        assert await peer.code(2, [call("a")]) is None
