"""The trace of a simulation: a rolling hash of every event, the last events as text, and the script of actions.

The hash identifies a run: the same seed gives the same hash, in any process, on any Python version. The script contains
the actions of users and generators (crash, partition, call, ...), each with the number of steps before it, so that the
run can be repeated exactly (replay.py). A saved run is a file of JSON lines: a header, the actions of the script, the
recorded events.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import msgspec

from mpreg_proto.effects import Framing
from mpreg_proto.wire.dialects import encode as encode_message
from mpreg_proto.wire.messages import Message, Request

LAST = 400
"""The number of events that are kept as text."""
_TOGETHER = 100
WORK = ("submit", "cancel", "add_client", "send_json", "post", "query", "submit_own", "cancel_own")
"""The actions that are no faults: they go on while the cluster settles."""


class Action(msgspec.Struct, frozen=True):
    """One action on a simulation, past or planned."""

    at: int
    """The simulated time in nanoseconds."""
    name: str
    args: dict[str, Any] = {}
    step: int = 0
    """The number of steps before the action; 0 in a script that is performed by time."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One event as text: its time, its kind, and the hosts between which it happened.

    `sent` and `label` are for diagrams (when a message was sent, and its type). They are not part of the hash.
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
    """The data that repeats a saved run, and its expected end."""

    kind: str = "simulation"
    """The kind of this file."""
    seed: int
    scenario: str = ""
    options: dict[str, Any] = {}
    nodes: dict[str, Any]
    """The specs as data (specs.py)."""
    objects: bool
    invariants: bool
    """True if the standard watchers checked the run."""
    watchers: tuple[str, ...] = ()
    """The classes of the watchers, as `module:Name`, sorted."""
    violation: str = ""
    tape: dict[str, list[float]] | None = None
    """The draws by purpose, if they did not come from a seed."""
    hash: str
    events: int
    steps: int
    at: int
    versions: dict[str, str]


class Trace:
    """The trace of one simulation, filled by the simulation.

    `recording` keeps every event for diagrams, otherwise only the last ones.
    """

    def __init__(self, *, recording: bool = False, describe: Callable[[], Header] | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[bytes] = []
        """The input of the next hash update. To hash a hundred small pieces together takes a third of the time."""
        self._describe = describe
        self.recording = recording
        self.events: int = 0
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
        """Record one event."""
        self.events += 1
        unhashed = self._unhashed
        unhashed.append(f"{at} {kind} {host} {other} {text}\n".encode())
        if data:
            unhashed.append(data)
        if len(unhashed) > _TOGETHER:
            self._update_hash()
        self.recorded.append(
            Event(at, kind, host, other, text, len(data), sent, label or (stream_label(data) if data else ""))
        )

    def record_action(self, at: int, name: str, args: dict[str, Any], *, step: int) -> None:
        """Record one action on the simulation."""
        self.script.append(Action(at, name, args, step))
        self._unhashed.append(b"%d %b " % (at, name.encode()))
        self._unhashed.append(msgspec.json.encode(args))

    def _update_hash(self) -> None:
        self._hash.update(b"".join(self._unhashed))
        self._unhashed.clear()

    @property
    def hash(self) -> str:
        """The rolling hash so far, in hexadecimal."""
        self._update_hash()
        return self._hash.hexdigest()

    def save(self, file: str | Path) -> None:
        """Write header, script and recorded events as JSON lines.

        Raises ValueError for a trace that cannot be replayed.
        """
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


def labelled(data: object, framing: Framing) -> str:
    """Return the type of the first message of a write to a native link, or an empty text."""
    start = 4 if framing is Framing.STREAM else 0
    if not isinstance(data, bytes) or len(data) < start + 4 or framing is Framing.CLASSIC_MESSAGES:
        return ""
    # the head of an array has one byte or three
    return _KINDS.get(data[start + 1] if data[start] >> 4 == 9 else data[start + 3], "")


def stream_label(data: bytes) -> str:
    """Return the type of the message that begins a piece of a native stream, or an empty text.

    A piece that begins inside a message has no type. Its first bytes are seldom those of a message.
    """
    if len(data) < 6 or data[0] > 1:
        return ""
    if data[4] >> 4 == 9:  # the head of an array has one byte or three
        return _KINDS.get(data[5], "")
    return _KINDS.get(data[7], "") if data[4] == 0xDC and len(data) > 7 else ""


def load(file: str | Path) -> tuple[Header, list[Action], list[Event]]:
    """Read a saved run. Raises ValueError for a file that is no saved run, OSError for one that cannot be read."""
    lines = Path(file).read_bytes().splitlines()
    try:
        header = msgspec.json.decode(lines[0], type=Header)
        actions = [msgspec.json.decode(line, type=Action) for line in lines[1:] if line.startswith(b"{")]
        events = [msgspec.json.decode(line, type=Event) for line in lines[1:] if line.startswith(b"[")]
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a saved simulation: {error}") from None
    return header, actions, events


def packed(request: Request) -> str:
    """Return a request as it is stored in a script."""
    return b64encode(encode_message(request)).decode()


def unpacked(text: str) -> Request:
    """Return a request from a script."""
    return msgspec.msgpack.decode(b64decode(text), type=Request)
