"""What happened in a simulation: a rolling hash of every event, the last of them in words, and the script of what was
done to it.

The hash is the identity of a run: the same seed gives the same hash, in any process, on any Python. The script is what
people and generators did (crash, partition, call, ...), with the number of events before it, so that it can be done
again exactly.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

LAST = 400
"""Events that are kept in words."""


class Action(msgspec.Struct, frozen=True):
    """One thing done to a simulation."""

    events: int
    """How many events came before it."""
    at: int
    """The simulation's time in nanoseconds."""
    name: str
    args: dict[str, Any] = {}


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One event in words: when, what, where, between whom."""

    at: int
    kind: str
    host: str
    other: str = ""
    text: str = ""


class Header(msgspec.Struct, frozen=True):
    """What a saved run needs to be done again."""

    seed: int
    nodes: dict[str, Any]
    options: dict[str, Any]
    hash: str
    events: int
    versions: dict[str, str]


class Trace:
    """Fed by the simulation. `recording` keeps every event for diagrams, else the last ones."""

    def __init__(self, *, recording: bool = False) -> None:
        self._hash = blake2b(digest_size=16)
        self.events = 0
        self.script: list[Action] = []
        self.recorded: list[Event] | deque[Event] = [] if recording else deque(maxlen=LAST)

    def add(self, at: int, kind: str, host: str, other: str, *, text: str = "", data: bytes = b"") -> None:
        """One event has happened."""
        self.events += 1
        self._hash.update(f"{at} {kind} {host} {other} {text}\n".encode())
        if data:
            self._hash.update(data)
        self.recorded.append(Event(at, kind, host, other, text))

    def did(self, at: int, name: str, args: dict[str, Any]) -> None:
        """Somebody did something to the simulation."""
        self.script.append(Action(self.events, at, name, args))
        self._hash.update(f"{at} {name} {sorted(args)}\n".encode())

    @property
    def hash(self) -> str:
        """The rolling hash so far, hexadecimal."""
        return self._hash.hexdigest()

    def save(self, file: str | Path, header: Header) -> None:
        """Write header, script and the recorded events as JSON lines."""
        encode = msgspec.json.encode
        lines = [
            encode(header),
            *(encode(action) for action in self.script),
            *(encode(event) for event in self.recorded),
        ]
        Path(file).write_bytes(b"\n".join(lines) + b"\n")


def load(file: str | Path) -> tuple[Header, list[Action], list[Event]]:
    """A saved run. Raises ValueError for a file that is none."""
    lines = Path(file).read_bytes().splitlines()
    try:
        header = msgspec.json.decode(lines[0], type=Header)
        actions = [msgspec.json.decode(line, type=Action) for line in lines[1:] if line.startswith(b"{")]
        events = [msgspec.json.decode(line, type=Event) for line in lines[1:] if line.startswith(b"[")]
    except (IndexError, msgspec.MsgspecError) as error:
        raise ValueError(f"{file} is not a saved simulation: {error}") from None
    return header, actions, events
