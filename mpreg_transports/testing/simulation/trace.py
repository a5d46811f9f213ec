"""What happened in a simulation: a rolling hash of every event, the last of them in words, and the script of what was
done to it.

The hash is the identity of a run: the same seed gives the same hash, in any process, on any Python. The script is what
people and generators did (crash, partition, call, ...), with the number of steps before it, so that it can be done
again exactly (replay.py). A saved run is a file of JSON lines: a header, the script's actions, the recorded events.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import msgspec

from mpreg_proto.wire.dialects import encode as encode_message
from mpreg_proto.wire.messages import Message, Request

LAST = 400
"""Events that are kept in words."""
_TOGETHER = 100


class Action(msgspec.Struct, frozen=True):
    """One thing done to a simulation, or that shall be done to one."""

    at: int
    """The simulation's time in nanoseconds."""
    name: str
    args: dict[str, Any] = {}
    step: int = 0
    """How many steps of the simulation came before it; 0 in a script that is to be done by time."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One event in words: when, what, where, between whom.

    `sent` and `label` are for diagrams (when a message left, what it is) and no part of the hash.
    """

    at: int
    kind: str
    host: str
    other: str = ""
    text: str = ""
    size: int = 0
    sent: int = -1
    label: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a saved run needs to be done again, and what it must come to."""

    kind: str = "simulation"
    """What kind of file this is."""
    seed: int
    scenario: str = ""
    options: dict[str, Any] = {}
    nodes: dict[str, Any]
    """Specs as data (replay.py)."""
    objects: bool
    invariants: bool
    """Whether the standard watchers watched."""
    violation: str = ""
    tape: dict[str, list[float]] | None = None
    """Draws by purpose, where they came from no seed."""
    hash: str
    events: int
    steps: int
    at: int
    versions: dict[str, str]


class Trace:
    """Fed by the simulation. `recording` keeps every event for diagrams, else the last ones."""

    def __init__(self, *, recording: bool = False, describe: Callable[[], Header] | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[bytes] = []
        """What goes into the hash next; a hundred small pieces together take a third of the time."""
        self._describe = describe
        self.recording = recording
        self.events = 0
        self.script: list[Action] = []
        self.recorded: list[Event] | deque[Event] = [] if recording else deque(maxlen=LAST)

    def add(
        self,
        at: int,
        kind: str,
        host: str,
        other: str,
        *,
        text: str = "",
        data: bytes = b"",
        sent: int = -1,
        label: str = "",
    ) -> None:
        """One event has happened."""
        self.events += 1
        unhashed = self._unhashed
        unhashed.append(f"{at} {kind} {host} {other} {text}\n".encode())
        if data:
            unhashed.append(data)
        if len(unhashed) > _TOGETHER:
            self._update_hash()
        self.recorded.append(Event(at, kind, host, other, text, len(data), sent, label))

    def record_action(self, at: int, name: str, args: dict[str, Any], *, step: int) -> None:
        """Somebody did something to the simulation."""
        self.script.append(Action(at, name, args, step))
        self._unhashed.append(b"%d %b " % (at, name.encode()))
        self._unhashed.append(msgspec.json.encode(args))

    def _update_hash(self) -> None:
        self._hash.update(b"".join(self._unhashed))
        self._unhashed.clear()

    @property
    def hash(self) -> str:
        """The rolling hash so far, hexadecimal."""
        self._update_hash()
        return self._hash.hexdigest()

    def save(self, file: str | Path) -> None:
        """Write header, script and the recorded events as JSON lines. Raises ValueError for what cannot be replayed."""
        if self._describe is None:
            raise ValueError("this trace belongs to no simulation that could be done again")
        encode = msgspec.json.encode
        lines = [
            encode(self._describe()),
            *(encode(action) for action in self.script),
            *(encode(event) for event in self.recorded),
        ]
        Path(file).write_bytes(b"\n".join(lines) + b"\n")


_KINDS: dict[object, str] = {kind.__struct_config__.tag: kind.__name__ for kind in get_args(Message)}


def labelled(data: object) -> str:
    """What is in the first frame of a native stream's write, for people: the kind of its message."""
    if not isinstance(data, bytes) or len(data) < 8:
        return ""
    return _KINDS.get(data[5] if data[4] >> 4 == 9 else data[7], "")  # an array's head is one byte, or three


def load(file: str | Path) -> tuple[Header, list[Action], list[Event]]:
    """A saved run. Raises ValueError for a file that is none, OSError for one that cannot be read."""
    lines = Path(file).read_bytes().splitlines()
    try:
        header = msgspec.json.decode(lines[0], type=Header)
        actions = [msgspec.json.decode(line, type=Action) for line in lines[1:] if line.startswith(b"{")]
        events = [msgspec.json.decode(line, type=Event) for line in lines[1:] if line.startswith(b"[")]
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a saved simulation: {error}") from None
    return header, actions, events


def packed(request: Request) -> str:
    """A request as it stands in a script."""
    return b64encode(encode_message(request)).decode()


def unpacked(text: str) -> Request:
    """A request out of a script."""
    return msgspec.msgpack.decode(b64decode(text), type=Request)
