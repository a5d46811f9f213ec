"""Harnesses that throw bytes at the core, each a function of bytes that raises only on a defect (README.md).

hypothesis, hypofuzz, atheris and the mutation of this package all call the same ones. A target is imported when it is
asked for, so that atheris can instrument what it imports.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Harness = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, str] = {
    "frames": "any split of a stream gives the same messages, and no more is held than one frame",
    "values": "users' values come back as they went; hostile bytes are MalformedValue; msgpack agrees",
    "messages": "native messages come back as they went; hostile bytes are refused; msgpack agrees",
    "json": "strict JSON is what `json` reads, less what is refused, and comes back as it went",
    "links": "operations on sessions: stages, timers, nothing said after a link's end",
    "members": "the merge of claims is a maximum (P1 to P5, P14)",
    "catalogue": "a replica holds what its owner held (P8); forged deltas prove themselves or change nothing",
    "graph": "calls to a plan, against a naive oracle: fans, diamonds, circles, chains of thousands",
    "placement": "who can run a call and who is drawn, against brute force",
    "peer": "mutated conversations of real nodes and clients: a node never raises, and serves others as before",
    "requests": "the seed's JSON: each message has one answer, and that is strict JSON",
    "client": "a client with a hostile server: each request ends once, by its deadline",
}
"""What each target proves, by name; its module is fuzz/targets/NAME.py."""


def harness(target: str) -> Harness:
    """The function of one target. Raises KeyError for a name that is none."""
    if target not in TARGETS:
        raise KeyError(target)
    found: Harness = import_module(f"fuzz.targets.{target}").harness
    return found


def corpus(target: str) -> list[bytes]:
    """The seeds of one target that are kept in the repository, by file name."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]
