"""A node's journal: every input of its core with its time, so that the run can be repeated elsewhere.

The core is a function of its inputs, its times and its random draws. A `Journal`, the tap of its node, writes all three
before the node acts: one MessagePack record each after a 4-byte length. `replay` reads them into a new `Node` and
compares the rolling hash over all effects with the checkpoints in the file. A journal contains arguments and results of
calls: it is written with mode 0600 and never by default. One file is one run of a node: the next run renames it and
begins its own.
"""

from __future__ import annotations

import glob
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from io import BufferedWriter
from pathlib import Path
from typing import Any

import msgspec

from mpreg_proto.cluster.catalogue import FunctionSpec
from mpreg_proto.describe import exception_text, sendable
from mpreg_proto.effects import (
    FAILURE_TEXT,
    Effect,
    Feed,
    Framing,
    Lost,
    Notify,
    NotStarted,
    Outcome,
    Raised,
    Report,
    Returned,
    Run,
    Send,
    Stopped,
)
from mpreg_proto.errors import LocalProtocolError
from mpreg_proto.ids import Address, LinkId, MemberId
from mpreg_proto.node import Node, NodeConfig
from mpreg_proto.rng import Rng
from mpreg_proto.view import NodeView
from mpreg_proto.wire.dialects import BadRequest
from mpreg_proto.wire.dialects import decode as decode_message
from mpreg_proto.wire.dialects import encode as encode_message
from mpreg_proto.wire.handshake import Authentication
from mpreg_proto.wire.messages import Request
from mpreg_proto.wire.values import ValueCodec
from mpreg_transports.config.release import installed_version
from mpreg_transports.runtime import logs

log: logs.NodeLog = logs.get("mpreg")

MAGIC = b"mpreg-journal-1\n"
_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_CHECKPOINT_EVERY = 256
"""The inputs between two checkpoints of the hash."""
_INPUTS = frozenset(
    "link_opened receive handle link_closed dial_failed progress backlog finished yielded took reported wake submit "
    "cancel offer withdraw set_resources advertise leave".split()
)
"""The names of records, beside "drain" and "entropy"."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first record: the arguments of the node's creation."""

    config: NodeConfig
    me: bytes
    seed: int
    now: int
    version: str


class Input(msgspec.Struct, frozen=True, array_like=True):
    """One call of an input or command: its name, its time, its arguments in order."""

    name: str
    now: int
    args: tuple[Any, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """The hash over all effects so far, after that many inputs."""

    inputs: int
    hash: str


class EffectHash:
    """A rolling hash over all effects, such as sends, dials, runs, hang-ups and notices, in order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)

    def add(self, effects: list[Effect]) -> None:
        """Add the effects of one `drain`."""
        for effect in effects:
            match effect:
                case Send(link, chunks):
                    self._hash.update(b"send %d " % link)
                    for chunk in chunks:
                        self._hash.update(chunk)
                case Run():
                    self._hash.update(f"run {effect.run} {effect.function} {effect.deadline}".encode())
                case Feed(run, items, last):
                    self._hash.update(f"feed {run} {len(items)} {last}".encode())
                case Notify(notice):
                    self._hash.update(f"notify {type(notice).__name__}".encode())
                case _:
                    self._hash.update(repr(effect).encode())

    @property
    def hex(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


class Journal:
    """Writes each input of a node before the node acts on it, as the `Tap` of that node.

    Pass its `entropy` to the node too, so that random draws are recorded. Call `close` at the end.
    """

    def __init__(self, file: Path, config: NodeConfig, *, me: MemberId, seed: int, now: int, codec: ValueCodec) -> None:
        """Begin `file` for a node with these arguments. Raises OSError if it cannot be written."""
        self._file = _create(file)
        self._effects = EffectHash()
        self._inputs = 0
        self._codec = codec
        self._file.write(MAGIC)
        _write(self._file, Start(config=config, me=me, seed=seed, now=now, version=installed_version()))

    def entropy(self, size: int) -> bytes:
        """Return `size` random bytes, as `os.urandom` does."""
        drawn = os.urandom(size)
        _write(self._file, Input("entropy", 0, (drawn,)))
        return drawn

    def input(self, name: str, now: int, args: tuple[Any, ...]) -> None:
        """See `Tap.input`. Each "wake" flushes the file."""
        self._inputs += 1
        if self._inputs % _CHECKPOINT_EVERY == 0:
            _write(self._file, Checkpoint(self._inputs, self._effects.hex))
        _write(self._file, Input(name, now, _encode_args(name, args, self._codec)))
        if name == "wake":
            _flush(self._file)

    def drained(self, effects: list[Effect]) -> None:
        """See `Tap.drained`. What a drain combines depends on its time, so the drain is recorded too."""
        if effects:
            _write(self._file, Input("drain", 0))
            self._effects.add(effects)

    def close(self) -> None:
        """Write the last checkpoint and close the file."""
        if not self._file.closed:
            _write(self._file, Checkpoint(self._inputs, self._effects.hex))
            _flush(self._file)
            self._file.close()


class Replayed(msgspec.Struct, frozen=True):
    """The result of a replay: the number of inputs, the hash over all effects, the check of the hashes, the view."""

    inputs: int
    hash: str
    agreed: bool
    marks: int
    marked: int
    """The inputs before the last checkpoint; later ones were compared with nothing."""
    version: str
    """The mpreg version that wrote it."""
    view: NodeView
    last: tuple[str, ...]
    """Descriptions of the last inputs."""


def replay(
    file: str | Path,
    *,
    codec: ValueCodec,
    stop_at: int | None = None,
    on_input: Callable[[str], object] | None = None,
) -> Replayed:
    """Run the core again on the inputs of a journal, up to `stop_at` of them. `on_input` gets a description of each.

    Raises ValueError for a file that is not a journal or is damaged. Exceptions of the core are passed on.
    """
    start, inputs = _read(Path(file).read_bytes())
    node = _recreate_node(start, inputs, codec=codec)
    effects, done, now, marks, marked, agreed = EffectHash(), 0, start.now, 0, 0, True
    last: deque[str] = deque(maxlen=20)
    for record in inputs:
        if isinstance(record, Checkpoint):
            marks, marked = marks + 1, done
            agreed = agreed and record.hash == effects.hex
            continue
        if record.name == "drain":
            effects.add(node.drain())
        elif record.name != "entropy":
            if stop_at is not None and done >= stop_at:
                break
            done, now = done + 1, record.now
            last.append(_describe(done, record))
            if on_input is not None:
                on_input(last[-1])
            with suppress(
                LocalProtocolError
            ):  # a command that the node refused then is refused again, and changes nothing
                _apply(node, record, codec)
    return Replayed(done, effects.hex, agreed, marks, marked, start.version, node.view(now=now), tuple(last))


def _recreate_node(start: Start, inputs: Iterable[Checkpoint | Input], *, codec: ValueCodec) -> Node:
    """Return the node in its initial state. Random bytes come from the journal."""
    draws = iter([record.args[0] for record in inputs if isinstance(record, Input) and record.name == "entropy"])
    return Node(
        start.config,
        me=MemberId(start.me),
        rng=Rng(start.seed),
        entropy=lambda size: next(draws),
        now=start.now,
        codec=codec,
    )


def _encode_args(name: str, args: tuple[Any, ...], codec: ValueCodec) -> tuple[Any, ...]:
    """Return the arguments of an input as plain data."""
    match name, args:
        case "link_opened", (link, framing, dialled, verdict, client):
            return link, framing.value, dialled, verdict.value, client
        case "receive", (link, data):
            return link, data if isinstance(data, str) else bytes(data)
        case "finished", (run, outcome, began):
            return run, began, *_encode_outcome(outcome, codec)
        case "yielded", (run, items):
            return run, [_encode_item(item, codec) for item in items]
        case "reported", (run, report):
            return run, report.done, report.total, sendable(report.text, FAILURE_TEXT)
        case "submit", (request,):
            return (_encode(request),)
        case "handle", (link, message):
            return link, encode_message(message)
        case "offer", (function,):
            return (msgspec.to_builtins(function),)
        case _:
            return args


def _apply(node: Node, record: Input, codec: ValueCodec) -> None:
    name, now, args = record.name, record.now, record.args
    if name == "link_opened":
        dialled = None if args[2] is None else Address(args[2])
        # A journal of an earlier version has neither of the last two.
        verdict = Authentication(args[3]) if len(args) > 3 else Authentication.NODE
        client = None if len(args) < 5 or args[4] is None else LinkId(args[4])
        framing = Framing(args[1])
        node.link_opened(args[0], framing=framing, dialled=dialled, now=now, client=client, verdict=verdict)
    elif name == "finished":
        node.finished(args[0], _decode_outcome(args[2:], codec), now=now, began=args[1])
    elif name == "yielded":
        node.yielded(args[0], [_decode_item(item, codec) for item in args[1]], now=now)
    elif name == "reported":
        node.reported(args[0], Report(*args[1:]), now=now)
    elif name == "offer":
        node.offer(msgspec.convert(args[0], FunctionSpec), now=now)
    elif name == "handle":
        message = decode_message(args[1], node.config.limits)
        assert not isinstance(message, BadRequest), "only messages are written"
        node.handle(args[0], message, now=now)
    elif name == "submit":
        node.submit(msgspec.msgpack.decode(args[0], type=Request), now=now)
    elif name in ("set_resources", "advertise"):
        getattr(node, name)(tuple(args[0]), now=now)
    else:
        getattr(node, name)(*args, now=now)


def _encode_item(item: object, codec: ValueCodec) -> bytes:
    """Return the bytes of an item; none of one that cannot be sent."""
    try:
        return codec.encode(item)
    except BaseException:  # as the worker does
        return b""


class _Unsendable:
    """An item that could not be sent, and that cannot be sent in a replay either."""


def _decode_item(written: bytes, codec: ValueCodec) -> object:
    return codec.decode(written) if written else _Unsendable()


def _encode_outcome(outcome: Outcome, codec: ValueCodec) -> tuple[object, ...]:
    """Return an outcome as plain data; a result that cannot be sent as the error that it becomes."""
    if isinstance(outcome, Returned):
        try:
            return ("returned", codec.encode(outcome.value))
        except BaseException as error:  # as the worker does
            outcome = Raised("UnsendableValue", f"the result cannot be sent: {exception_text(error)}")
    if isinstance(outcome, Raised):
        texts = (outcome.kind, outcome.message, outcome.traceback)
        return ("raised", *(sendable(text, FAILURE_TEXT) for text in texts))
    if isinstance(outcome, NotStarted):
        return ("not started", sendable(outcome.reason, FAILURE_TEXT))
    if isinstance(outcome, Lost):
        return ("lost", sendable(outcome.reason, FAILURE_TEXT))
    return ("stopped",)


def _decode_outcome(written: tuple[Any, ...], codec: ValueCodec) -> Outcome:
    match written:
        case ("returned", value):
            return Returned(codec.decode(value))
        case ("raised", kind, message, traceback):
            return Raised(kind, message, traceback)
        case ("not started", reason):
            return NotStarted(reason)
        case ("lost", reason):
            return Lost(reason)
        case _:
            return Stopped()


def _create(file: Path) -> BufferedWriter:
    """Create a new file. An earlier journal of that name is renamed to the next free `FILE.1`, `FILE.2`, ..."""
    if _is_journal(file):
        earlier = _next_name(file)
        file.rename(earlier)
        log.info("the journal of the run before is %s now", earlier)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _is_journal(file: Path) -> bool:
    """Return whether a node wrote the file.

    It begins with the magic bytes, or it is empty, as after a node that was killed at once.
    """
    try:
        if not file.is_file() or file.is_symlink():
            return False
        with file.open("rb") as opened:
            return MAGIC.startswith(start) if len(start := opened.read(len(MAGIC))) < len(MAGIC) else start == MAGIC
    except OSError:
        return False  # creating it raises the reason


def _next_name(file: Path) -> Path:
    """Return `FILE.N` with a number higher than all existing ones, so that a higher number is a later run."""
    taken = [other.name.removeprefix(f"{file.name}.") for other in file.parent.glob(f"{glob.escape(file.name)}.*")]
    numbers = [int(end) for end in taken if end.isascii() and end.isdecimal()]
    return file.with_name(f"{file.name}.{max(numbers, default=0) + 1}")


def _write(file: BufferedWriter, record: msgspec.Struct) -> None:
    """Write one record. If the disk refuses it, log that once; the node goes on without a journal."""
    if file.closed:
        return
    body = _encode(record)
    try:
        file.write(_LENGTH.pack(len(body)))
        file.write(body)
    except OSError as error:
        _stop_writing(file, error)


def _flush(file: BufferedWriter) -> None:
    try:
        if not file.closed:
            file.flush()
    except OSError as error:
        _stop_writing(file, error)


def _stop_writing(file: BufferedWriter, error: OSError) -> None:
    log.error("the journal ends here, the node goes on: %s", error)
    with suppress(OSError):
        file.raw.close()
    with suppress(OSError, ValueError):
        file.close()


def _records(data: bytes) -> Iterator[bytes]:
    if not data.startswith(MAGIC):
        raise ValueError("this is not a node's journal")
    at = len(MAGIC)
    while at + 4 <= len(data):
        end = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            return  # the process was killed while it wrote
        yield data[at + 4 : end]
        at = end


def _read(data: bytes) -> tuple[Start, list[Input | Checkpoint]]:
    """Return the records of a journal. Raises ValueError that names the first invalid record."""
    bodies = list(_records(data))
    if not bodies:
        raise ValueError("this journal ends before its first record")
    read: list[Input | Checkpoint] = []
    try:
        start = msgspec.msgpack.decode(bodies[0], type=Start)
    except msgspec.MsgspecError as error:
        raise ValueError(f"record 1 is damaged: {error}") from None
    for number, body in enumerate(bodies[1:], 2):
        try:
            read.append(_record(body))
        except msgspec.MsgspecError as error:
            raise ValueError(f"record {number} is damaged: {error}") from None
    return start, read


def _record(body: bytes) -> Input | Checkpoint:
    if body[:1] and body[0] & 0xF0 == 0x80:  # a MessagePack map
        return msgspec.msgpack.decode(body, type=Checkpoint)
    record = msgspec.msgpack.decode(body, type=Input)
    if record.name not in _INPUTS and record.name not in ("drain", "entropy"):
        raise msgspec.ValidationError(f"there is no input {record.name[:40]!r}")
    return record


def _describe(number: int, record: Input) -> str:
    shown = ", ".join(f"{len(arg)} bytes" if isinstance(arg, bytes) else repr(arg)[:60] for arg in record.args)
    return f"{number} at {record.now}: {record.name}({shown})"
