"""Fuzzing of the core: harnesses that take bytes and raise only on a defect. `python -m mpreg_transports.testing.fuzz`.

A harness reads its input as what it fuzzes: a byte stream, choices (draws.py), or a conversation (traces.py). Its
oracle is naive and shares no code with what it checks. hypothesis, hypofuzz, atheris and the mutation of this package
call the same harnesses. A target is imported when it is used, so that atheris can instrument its imports.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

Harness = Callable[[bytes], None]

TARGETS: dict[str, str] = {
    "frames": "any split of a stream gives the same messages, and at most one frame is buffered",
    "values": "users' values are equal after a round trip; hostile bytes are MalformedValue; msgpack agrees",
    "messages": "native messages are equal after a round trip; hostile bytes are refused; msgpack agrees",
    "json": "accepted JSON is read as by `json`, and is equal after a round trip",
    "links": "operations on sessions: stages, timers, nothing sent after a link's end",
    "members": "the merge of claims is a maximum (P1 to P5, P14)",
    "catalogue": "a replica holds what its owner held (P8); forged deltas are proved by their hash or refused",
    "graph": "calls to a plan, against the oracle: fans, diamonds, circles, chains of thousands",
    "placement": "the candidates of a call and the drawn one, against the oracle",
    "peer": "mutated conversations of real nodes and clients: a node never raises, and serves others as before",
    "requests": "the classic JSON dialect: each message has one answer, and that is strict JSON",
    "client": "a client with a hostile server: each request ends once, by its deadline",
}
"""The property that each target proves, by name; its module is targets/NAME.py."""


def harness(target: str) -> Harness:
    """Return the function of one target. Raises KeyError for an unknown name."""
    if target not in TARGETS:
        raise KeyError(target)
    found: Harness = import_module(f"{__name__}.targets.{target}").harness
    return found
