"""Cases as native requests: classic and explicit references, found by a plain scan, written as typed references.

The scan follows the rules of docs/explanation/requests.md word by word. It shares no code with the classic dialect,
which does the same for each request. `ONLY_JSON` names the cases that no native request can express, and for each a
message by hand with the equivalent fault.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mpreg_proto.wire.messages import Call, Request
from mpreg_proto.wire.values import Ref
from mpreg_transports.values import default_codec

SECOND = 1_000_000_000


def native_request(case: dict[str, Any]) -> Request:
    """Return the request that a native client would send for a case that it can express."""
    fields = case["fields"]
    explicit = fields.get("refs") == "explicit"
    names = [command["name"] for command in case["cmds"]]
    calls: list[Call] = []
    for command in case["cmds"]:
        needs: list[str] = []
        others = [name for name in names if name != command["name"]]
        arguments = [command.get("args", []), command.get("kwargs", {})]
        arguments = _explicit(arguments, needs) if explicit else _classic(arguments, others, needs)
        encoded = default_codec().encode(arguments)
        resources = tuple(command.get("locs", ()))
        calls.append(Call(command["name"], command["fun"], encoded, tuple(needs), resources))
    return Request(
        0,
        tuple(calls),
        timeout=int(fields["timeout"] * SECOND) if "timeout" in fields else None,
        want=tuple(fields["want"]) if "want" in fields else None,
        partial=fields.get("on_error") == "partial",
    )


def _classic(value: Any, others: list[str], needs: list[str]) -> Any:
    if isinstance(value, list):
        return [_classic(item, others, needs) for item in value]
    if isinstance(value, dict):
        return {key: _classic(item, others, needs) for key, item in value.items()}
    if isinstance(value, str) and value in others:
        needs.append(value)
        return Ref(value)
    return value


def _explicit(value: Any, needs: list[str]) -> Any:
    if isinstance(value, list):
        return [_explicit(item, needs) for item in value]
    if isinstance(value, dict) and "$ref" in value:
        needs.append(value["$ref"])
        return Ref(value["$ref"], tuple(value.get("path", ())))
    if isinstance(value, dict) and "$data" in value:
        return value["$data"]
    if isinstance(value, dict):
        return {key: _explicit(item, needs) for key, item in value.items()}
    return value


def arguments(*args: Any, **kwargs: Any) -> bytes:
    """Return the arguments of a call, encoded by hand."""
    packed: bytes = msgpack.packb([list(args), kwargs])
    return packed


_REF, _REF_PATH, _UNKNOWN = 1, 2, 31
_ONE_CALL = ["a", "echo", arguments(1)]

ONLY_JSON: dict[str, tuple[str, list[Any]]] = {
    "arguments of the wrong shape": (
        "arguments are opaque bytes to whoever reads the message; these hold a text where the list should be",
        [[["a", "echo", msgpack.packb(["text", {}])]]],
    ),
    "$ref with more beside it": (
        "a typed reference is an extension with nothing beside it; this one has more in it than a name and a path",
        [[["a", "echo", arguments(1)], ["b", "echo", arguments(msgpack.ExtType(_REF, b"a\xff")), ["a"]]]],
    ),
    "$ref that is not text": (
        "the name in a typed reference is text by its type; this one is written with a number",
        [[["b", "echo", arguments(msgpack.ExtType(_REF_PATH, msgpack.packb([5, "x"])))]]],
    ),
    "locs as one text": (
        "resources are an array by their type; this message has a text there",
        [[["a", "echo", arguments(1), [], "red"]]],
    ),
    "args null": ("arguments are bytes by their type; this message has nil there", [[["a", "echo", None]]]),
    "a name that is a number": (
        "a name is text by its type; this message has a number there",
        [[[5, "echo", arguments(1)]]],
    ),
    "no function": ("a call's array has its function at a fixed place; this one ends before it", [[["a"]]]),
    "refs of no known kind": (
        "natively there is one kind of references; this one is an extension that nobody knows",
        [[["a", "echo", arguments(msgpack.ExtType(_UNKNOWN, b"a"))]]],
    ),
    "on_error of no known kind": (
        "natively it is a flag; this message has a text there",
        [[_ONE_CALL], None, None, [], {}, 0, "ignore"],
    ),
}
"""Titles of the cases about JSON's own shapes: the reason, and the fields of a hand-made native request after its id.
"""
