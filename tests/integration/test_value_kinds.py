"""Values that JSON lacks: their form for a JSON client, their types between calls, and values beyond JSON.

A foreign JSON client and a native client send requests to one node whose functions return such values.
"""

import cmath
import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from mpreg_transports import Client, ExecutionFailed, Server
from tests.helpers.foreign_clients import ClassicFrameClient, ClassicWebSocketClient, ask, classic

pytestmark = pytest.mark.anyio

Classic = ClassicWebSocketClient | ClassicFrameClient

SAYABLE: dict[str, tuple[object, object]] = {
    "bytes": (b"\x00\xffmpreg", "AP9tcHJlZw=="),
    "tuple": ((1, "a", (2.5, None)), [1, "a", [2.5, None]]),
    "set": ({3, 1, 2}, [1, 2, 3]),
    "frozenset": (frozenset({"b", "a"}), ["a", "b"]),
    "Decimal": (Decimal("1.10"), "1.10"),
    "datetime": (datetime(2024, 2, 29, 12, 30, tzinfo=UTC), "2024-02-29T12:30:00+00:00"),
    "date": (date(2024, 2, 29), "2024-02-29"),
    "timedelta": (timedelta(days=1, hours=2), "P1DT2H"),
    "UUID": (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
    "int": (10**30, 10**30),
    "dict": ({1: (b"x",), Decimal("2.5"): {UUID(int=1)}}, {"1": ["eA=="], "2.5": [str(UUID(int=1))]}),
}
UNSAYABLE: dict[str, tuple[object, str]] = {
    "NaN": (math.nan, "$"),
    "Infinity": (math.inf, "$"),
    "complex": (1 + 2j, "$"),
    "NaN inside": ({"rows": [1.0, math.nan]}, "$.rows[1]"),
    "complex inside": ([{"a": (0, cmath.infj)}], "$[0].a[1]"),
    "Decimal NaN": (Decimal("NaN"), "$"),
    "a key": ({(1, 2): 3}, "$[a tuple]"),
}
VALUES = {title: value for title, (value, _) in [*SAYABLE.items(), *UNSAYABLE.items()]}


@pytest.fixture
async def node() -> AsyncIterator[Server]:
    server = Server(name="giver", port=0)
    server.register("give", VALUES.__getitem__, inline=True)
    server.register("kind", lambda value: type(value).__name__, inline=True)
    server.register("unknown", object, inline=True)
    async with server:
        yield server


@pytest.fixture(params=["websocket", "frames"])
async def peer(request: pytest.FixtureRequest, node: Server) -> AsyncIterator[Classic]:
    async with classic(request.param, node.port) as peer:
        yield peer


def rpc(*cmds: tuple[str, str, object], **fields: object) -> dict[str, object]:
    return {
        "role": "rpc",
        "u": "mine",
        "cmds": [{"name": name, "fun": function, "args": [value]} for name, function, value in cmds],
        **fields,
    }


@pytest.mark.parametrize("title", SAYABLE)
async def test_value_as_json(title: str, peer: Classic) -> None:
    answer = await ask(peer, rpc(("a", "give", title)))
    assert answer == {"r": {"a": SAYABLE[title][1]}, "error": None, "u": "mine"}


@pytest.mark.parametrize("title", SAYABLE)
async def test_value_keeps_its_type_between_calls(title: str, peer: Classic) -> None:
    answer = await ask(peer, rpc(("a", "give", title), ("b", "echo", "a"), ("c", "kind", "b")))
    assert answer["r"] == {"c": type(SAYABLE[title][0]).__name__}


async def test_value_unknown_to_json_passes_between_calls(peer: Classic) -> None:
    answer = await ask(peer, rpc(("a", "give", "complex"), ("b", "kind", "a")))
    assert answer["r"] == {"b": "complex"}


def _shown(value: object) -> str:
    """Return a value as text; sets are sorted, because their order may change on the wire."""
    return f"{type(value)} {sorted(map(repr, value))}" if isinstance(value, (set, frozenset)) else repr(value)


@pytest.mark.parametrize("title", VALUES)
async def test_value_keeps_its_type_natively(title: str, node: Server) -> None:
    async with Client(f"tcp://127.0.0.1:{node.port}") as client:
        there = await client.call("give", title)
        back = await client.call("echo", there)
    assert type(there) is type(back) is type(VALUES[title])
    assert _shown(there) == _shown(back) == _shown(VALUES[title])


@pytest.mark.parametrize("title", UNSAYABLE)
async def test_result_unknown_to_json_is_1003_with_its_path(title: str, peer: Classic) -> None:
    _, path = UNSAYABLE[title]
    answer = await ask(peer, rpc(("fine", "echo", 1), ("a", "give", title)))
    error: dict[str, Any] = answer["error"]
    assert (answer["r"], answer["u"], error["code"]) == (None, "mine", 1003)
    assert "cannot be sent as JSON" in error["message"]
    assert f" {path}: " in error["message"]
    assert error["details"]["call"] == "a"
    assert error["details"]["maybe_executed"] is True
    assert (await ask(peer, rpc(("a", "echo", 7))))["r"] == {"a": 7}


async def test_partial_returns_the_other_results(peer: Classic) -> None:
    message = rpc(("a", "give", "NaN"), ("b", "give", "complex"), ("c", "echo", 5), on_error="partial")
    answer = await ask(peer, message)
    assert answer["r"] == {"c": 5}
    assert answer["error"]["details"]["call"] == "a"
    assert {name: fault["code"] for name, fault in answer["error"]["details"]["failed"].items()} == {"b": 1003}


async def test_unknown_type_is_1003_in_both_dialects(node: Server, peer: Classic) -> None:
    server_side = {"role": "rpc", "cmds": [{"name": "a", "fun": "unknown"}], "u": "mine"}
    error = (await ask(peer, server_side))["error"]
    assert error["code"] == 1003
    assert "cannot be sent: $: object" in error["message"]
    async with Client(f"tcp://127.0.0.1:{node.port}") as client:
        with pytest.raises(ExecutionFailed, match="object"):
            await client.call("unknown")


async def test_failed_names_each_wanted_call_except_the_first_failure(peer: Classic) -> None:
    message = rpc(("a", "give", "nothing of that name"), ("b", "echo", "a"), ("c", "echo", 5), on_error="partial")
    answer = await ask(peer, message | {"want": ["a", "b", "c"]})
    assert answer["r"] == {"c": 5}
    error = answer["error"]
    assert (error["code"], error["details"]["call"], error["details"]["function"]) == (1003, "a", "give")
    failed = error["details"]["failed"]
    assert list(failed) == ["b"]
    assert (failed["b"]["code"], failed["b"]["details"]["because"]) == (1021, "a")
