"""Harnesses that feed bytes to the core, each a function of bytes that raises only on a defect (README.md).

hypothesis, hypofuzz, atheris and the mutation of this package call the same harnesses. A target is imported when it is
used, so that atheris can instrument its imports.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Harness = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, str] = {
    "frames": "any split of a stream gives the same messages, and at most one frame is buffered",
    "values": "users' values are equal after a round trip; hostile bytes are MalformedValue; msgpack agrees",
    "messages": "native messages are equal after a round trip; hostile bytes are refused; msgpack agrees",
    "json": "accepted JSON is read as by `json`, and is equal after a round trip",
    "links": "operations on sessions: stages, timers, nothing sent after a link's end",
    "members": "the merge of claims is a maximum (P1 to P5, P14)",
    "catalogue": "a replica holds what its owner held (P8); forged deltas are proved by their hash or refused",
    "graph": "calls to a plan, against a naive oracle: fans, diamonds, circles, chains of thousands",
    "placement": "the candidates of a call and the drawn one, against brute force",
    "peer": "mutated conversations of real nodes and clients: a node never raises, and serves others as before",
    "requests": "the classic JSON dialect: each message has one answer, and that is strict JSON",
    "client": "a client with a hostile server: each request ends once, by its deadline",
}
"""The property that each target proves, by name; its module is fuzz/targets/NAME.py."""


def harness(target: str) -> Harness:
    """Return the function of one target. Raises KeyError for an unknown name."""
    if target not in TARGETS:
        raise KeyError(target)
    found: Harness = import_module(f"fuzz.targets.{target}").harness
    return found


def corpus(target: str) -> list[bytes]:
    """Return the seeds of one target in the repository, by file name."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]
